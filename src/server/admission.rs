//! Admission control: how many connections are open at once, and which one is evicted for a newcomer.
//!
//! The number of connections is limited (`limits.connections`). A client that opens all of them and then hardly speaks (slow
//! loris, slow bodies, slow readers; attack 40) would exclude all other clients indefinitely, each of its
//! connections within every time limit. So when a connection arrives and no permit is free, **the connection that has been
//! stalled longest by its own client is evicted**. One that waits for an upstream, for minutes in the case of a slow model, is never
//! evicted. If none can be evicted, the newcomer waits, and later ones wait in the kernel's accept queue.
//!
//! - A short stall is not enough: a new connection has `FIRST_REQUEST_GRACE` for its first request, and a transfer may pause for
//!   `STALL_GRACE`. Pauses add up, and only bytes cancel them (`STALL_PER_BYTE`): a trickle is not enough. A flood gets no more
//!   than all permits within that time.
//! - Among idle connections, the one that has been idle longest is evicted first, as if its idle timeout had passed: HTTP lets
//!   a server close an idle connection at any time (RFC 9112 §9.5), and clients open the next one.
//! - There are no quotas by peer address: beside a sidecar, every peer is 127.0.0.1. An agent that really uses all connections
//!   is limited by the `concurrent` of its key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::stall::StallTracker;
use crate::lock::lock;

/// While no permit is free: eviction retry interval.
const EVICTION_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How many connections several listeners may have open together. Cheap to clone; clones share the limit.
#[derive(Debug, Clone)]
pub struct ConnectionLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    permits: Arc<Semaphore>,
    connections: Mutex<Connections>,
}

#[derive(Debug)]
struct Connections {
    open: HashMap<u64, Arc<StallTracker>>,
    next_id: u64,
    max: usize,
    /// Permits in use beyond `max`, after `max` was lowered. Each is discarded when its connection ends.
    surplus: usize,
}

/// Permission for one open connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limit: ConnectionLimit,
    id: u64,
    stall: Arc<StallTracker>,
    semaphore: Option<OwnedSemaphorePermit>,
}

impl ConnectionLimit {
    /// Allows `max` open connections.
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(max)),
            connections: Mutex::new(Connections { open: HashMap::new(), next_id: 0, max, surplus: 0 }),
        }))
    }

    /// Allows `max` open connections from now on. Never evicts; newcomers queue, or evict the longest-stalled connection, until
    /// there are fewer.
    pub fn resize(&self, max: usize) {
        let max = max.min(Semaphore::MAX_PERMITS);
        let mut connections = lock(&self.0.connections);
        let before = std::mem::replace(&mut connections.max, max);
        if max < before {
            let fewer = before - max;
            connections.surplus += fewer - self.0.permits.forget_permits(fewer);
        } else {
            let more = max - before;
            let kept = more.min(connections.surplus);
            connections.surplus -= kept;
            self.0.permits.add_permits(more - kept);
        }
    }

    fn try_acquire(&self) -> Option<Permit> {
        Arc::clone(&self.0.permits).try_acquire_owned().ok().map(|permit| self.register(permit))
    }

    /// Waits for a permit, first come, first served, and evicts stalled connections one by one until there is one.
    pub(super) async fn acquire(&self) -> Permit {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let permit = Arc::clone(&self.0.permits).acquire_owned();
        tokio::pin!(permit);
        loop {
            self.evict_one();
            tokio::select! {
                permit = &mut permit => match permit {
                    Ok(permit) => return self.register(permit),
                    Err(_) => std::future::pending().await, // cannot happen: the semaphore is never closed
                },
                () = tokio::time::sleep(EVICTION_RETRY_INTERVAL) => {}
            }
        }
    }

    fn register(&self, permit: OwnedSemaphorePermit) -> Permit {
        let stall = Arc::new(StallTracker::new());
        let mut connections = lock(&self.0.connections);
        let id = connections.next_id;
        connections.next_id += 1;
        connections.open.insert(id, Arc::clone(&stall));
        Permit { limit: self.clone(), id, stall, semaphore: Some(permit) }
    }

    /// Requests the eviction of the connection that has been stalled longest.
    fn evict_one(&self) {
        let now = Instant::now();
        let connections = lock(&self.0.connections);
        let candidates = connections.open.values().filter(|stall| !stall.eviction_requested());
        let longest =
            candidates.filter_map(|stall| Some((stall.evictable_since(now)?, stall))).min_by_key(|(at, _)| *at);
        if let Some((_, stall)) = longest {
            stall.request_eviction();
        }
    }
}

impl Permit {
    /// Records the stalls of the connection that this permit is for.
    pub(super) fn stall(&self) -> &Arc<StallTracker> {
        &self.stall
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut connections = lock(&self.limit.0.connections);
        connections.open.remove(&self.id);
        // Returned while `connections` is locked: `resize`, on another thread, must find each permit either used or free.
        let permit = self.semaphore.take();
        if connections.surplus > 0
            && let Some(permit) = permit
        {
            connections.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stall::STALL_GRACE;
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
        assert_eq!(evicted(&limit, &all).await, None, "each is within its grace period");
        tokio::time::sleep(SOON).await;
        assert_eq!(evicted(&limit, &all).await, Some(3), "it sent no first request in time");
        new.stall().begin_exchange();
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
        limit.resize(1);
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
        limit.resize(2);
        let two = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap();
        two.stall().begin_exchange();
        assert!(none_is_free(&limit).await);
        // Lowered and raised again: the surplus permit is kept.
        limit.resize(1);
        limit.resize(3);
        let three = busy().await;
        assert!(none_is_free(&limit).await);
        drop((one, two, three));
        limit.resize(1);
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
}
