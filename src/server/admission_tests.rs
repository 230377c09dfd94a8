use super::super::stall::{FIRST_REQUEST_GRACE, PRESSED_GRACE, STALL_GRACE};
use super::*;

const SOON: Duration = Duration::from_millis(60);

/// The position of the connection that is evicted first when one more arrives.
async fn evicted(limit: &ConnectionLimit, connections: &[&Permit]) -> Option<usize> {
    let evictions = connections.iter().map(|connection| Box::pin(connection.stall().evicted()));
    tokio::select! {
        _ = limit.acquire() => None,
        ((), which, _) = futures_util::future::select_all(evictions) => Some(which),
        () = tokio::time::sleep(SOON) => None,
    }
}

async fn none_is_free(limit: &ConnectionLimit) -> bool {
    tokio::time::timeout(SOON, limit.acquire()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn attack_40_the_longest_stalled_connection_is_evicted() {
    let limit = ConnectionLimit::new(3);
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(limit.acquire().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    connections[0].stall().begin_exchange(); // its request arrived, and an upstream works on it
    assert_eq!(evicted(&limit, &connections.iter().collect::<Vec<_>>()).await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_upstream_or_a_short_stall_is_not_evicted() {
    let limit = ConnectionLimit::new(4);
    let (thinking, pausing, used) = (limit.acquire().await, limit.acquire().await, limit.acquire().await);
    thinking.stall().begin_exchange();
    pausing.stall().begin_exchange();
    tokio::time::sleep(Duration::from_mins(10)).await;
    pausing.stall().reading.start();
    tokio::time::sleep(Duration::from_millis(1)).await;
    used.stall().begin_exchange();
    used.stall().end_exchange();
    let new = limit.acquire().await;
    let all = [&thinking, &pausing, &used, &new];
    tokio::time::sleep(FIRST_REQUEST_GRACE).await;
    assert_eq!(evicted(&limit, &all).await, Some(3), "it sent no first request in time");
    new.stall().begin_exchange();
    tokio::time::sleep(PRESSURE_BREAK).await;
    assert_eq!(evicted(&limit, &all).await, None, "each is within its grace period");
    tokio::time::sleep(STALL_GRACE).await;
    assert_eq!(evicted(&limit, &all).await, Some(1), "its body has stalled for too long");
    pausing.stall().reading.reset();
    assert_eq!(evicted(&limit, &all).await, Some(2), "it has been idle for too long");
}

#[tokio::test(start_paused = true)]
async fn attack_40_a_trickle_is_evicted_and_a_slow_stream_is_not() {
    let limit = ConnectionLimit::new(2);
    let (trickle, slow) = (limit.acquire().await, limit.acquire().await);
    for connection in [&trickle, &slow] {
        connection.stall().begin_exchange();
    }
    for _ in 0..20 {
        for (connection, bytes) in [(&trickle, 60), (&slow, 600)] {
            let writing = &connection.stall().writing;
            writing.start();
            tokio::time::sleep(Duration::from_millis(60)).await;
            writing.record_progress(bytes);
            writing.start();
        }
    }
    assert_eq!(evicted(&limit, &[&slow, &trickle]).await, Some(1));
    trickle.stall().writing.reset();
    tokio::time::sleep(PRESSURE_BREAK).await;
    assert_eq!(evicted(&limit, &[&slow, &trickle]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_lower_limit_evicts_none_and_a_higher_one_admits_waiters() {
    let limit = ConnectionLimit::new(3);
    let busy = async || {
        let permit = limit.acquire().await;
        permit.stall().begin_exchange();
        permit
    };
    let [first, second, third] = [busy().await, busy().await, busy().await];
    limit.resize(1, 0);
    assert!(none_is_free(&limit).await);
    drop(first);
    assert!(none_is_free(&limit).await, "two are one too many");
    drop(second);
    assert!(none_is_free(&limit).await, "one is the limit");
    drop(third);
    let one = busy().await;
    assert!(none_is_free(&limit).await);
    // One waits while the limit is raised.
    let waiting = tokio::spawn({
        let limit = limit.clone();
        async move { limit.acquire().await }
    });
    tokio::time::sleep(SOON).await;
    limit.resize(2, 0);
    let two = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
    two.stall().begin_exchange();
    assert!(none_is_free(&limit).await);
    // Lowered and raised again: the surplus permit is kept.
    limit.resize(1, 0);
    limit.resize(3, 0);
    let three = busy().await;
    assert!(none_is_free(&limit).await);
    drop((one, two, three));
    limit.resize(1, 0);
    let _one = busy().await;
    assert!(none_is_free(&limit).await, "free permits are discarded at once");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_moves_on_in_time_stays() {
    let limit = ConnectionLimit::new(1);
    let connection = limit.acquire().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let newcomer = tokio::spawn({
        let limit = limit.clone();
        async move { limit.acquire().await }
    });
    tokio::time::sleep(SOON).await;
    let stall = connection.stall();
    assert!(stall.eviction_requested());
    stall.begin_exchange();
    assert!(tokio::time::timeout(SOON, stall.evicted()).await.is_err());
    stall.end_exchange();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tokio::time::timeout(SOON, stall.evicted()).await.is_ok(), "eviction is requested again");
    newcomer.abort();
}

#[tokio::test(start_paused = true)]
async fn attack_83_while_newcomers_wait_short_stalls_are_evicted() {
    const CONNECTIONS: u32 = 20;
    let limit = ConnectionLimit::new(CONNECTIONS as usize);
    let thinking = limit.acquire().await;
    thinking.stall().begin_exchange();
    // A flood: each connection stalls in its first body, and is replaced when it is evicted.
    for _ in 0..20 * CONNECTIONS {
        let limit = limit.clone();
        tokio::spawn(async move {
            let permit = limit.acquire().await;
            permit.stall().begin_exchange();
            permit.stall().reading.start();
            permit.stall().evicted().await;
        });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let arrived = Instant::now();
    drop(limit.acquire().await);
    // Each place serves twenty of them for `PRESSED_GRACE`.
    let rounds = PRESSURE_TIME + 22 * (PRESSED_GRACE + EVICTION_RETRY_INTERVAL);
    assert!(arrived.elapsed() < rounds, "{:?}", arrived.elapsed());
    assert!(tokio::time::timeout(SOON, thinking.stall().evicted()).await.is_err(), "it waits for its upstream");
}

#[tokio::test(start_paused = true)]
async fn attack_83_a_surface_without_long_transfers_evicts_at_once() {
    let memory = ConnectionMemory::unbounded();
    let limit = ConnectionLimit::with_memory(1, Transfers::Short, memory);
    let reader = limit.acquire().await;
    reader.stall().begin_exchange();
    reader.stall().writing.start();
    tokio::time::sleep(FIRST_REQUEST_GRACE).await;
    assert_eq!(evicted(&limit, &[&reader]).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn attack_81_without_memory_a_newcomer_waits() {
    let memory = ConnectionMemory { fixed: MemoryBudget::new(10), per_connection: 6, ..ConnectionMemory::unbounded() };
    let limit = ConnectionLimit::with_memory(5, Transfers::Long, memory);
    let first = limit.acquire().await;
    first.stall().begin_exchange();
    assert!(none_is_free(&limit).await);
    assert!(!limit.is_contended());
    drop(first);
    assert!(!none_is_free(&limit).await);
}

#[tokio::test(start_paused = true)]
async fn attack_82_the_slowest_reader_makes_room() {
    let limit = ConnectionLimit::new(3);
    let (slow, slower, thinking) = (limit.acquire().await, limit.acquire().await, limit.acquire().await);
    assert!(!limit.evict_slowest_reader(), "none is stalled");
    for reader in [&slower, &slow] {
        reader.stall().begin_exchange();
        reader.stall().writing.start();
        tokio::time::sleep(PRESSED_GRACE).await;
    }
    thinking.stall().begin_exchange();
    assert!(limit.evict_slowest_reader());
    slower.stall().evicted().await;
    assert!(limit.evict_slowest_reader(), "then the next");
    slow.stall().evicted().await;
    assert!(!limit.evict_slowest_reader());
}
