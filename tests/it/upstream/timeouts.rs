//! Idle timeouts of servers: a request on a connection past its timeout is lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future;
use pixy::upstream::{Tuning, Upstream as Client, UpstreamSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::relay::Relay;
use super::{get, post, text, tuned};
use crate::support::{Authority, Protocols, Reply, Seen, Step, Upstream, within};

/// Sends one request per response, one after the other, and returns how long after the last one the connection was closed.
/// `None`: it did not carry all of them.
async fn closed_after(said: &[&str], idle: Duration) -> Option<Duration> {
    let authority = Authority::new();
    let upstream = Upstream::builder().tls(&authority, Protocols::Http1).start().await;
    let relay = Relay::to(upstream.address()).await;
    let client = tuned(&authority, &UpstreamSettings::default(), Tuning { idle, ..Tuning::default() });
    for said in said {
        let reply = Reply::new(200);
        upstream.answer(if said.is_empty() { reply } else { reply.header("Keep-Alive", said) });
        text(within(client.send(post(relay.url() + "/", "once"))).await.unwrap()).await;
    }
    let since = Instant::now();
    if relay.connections() > 1 {
        return None;
    }
    relay.until_closed(1).await;
    Some(since.elapsed())
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_its_server_does() {
    let (never, second) = (Duration::from_hours(1), Duration::from_millis(990));
    let two = ["timeout=2", "max=100, Timeout = 2", "timeout=2"];
    let closed = future::join_all([
        Box::pin(closed_after(&two[..1], never)),
        Box::pin(closed_after(&two, never)),
        Box::pin(closed_after(&["timeout=2", ""], never)), // what was said holds
    ]);
    for (number, closed) in closed.await.into_iter().enumerate() {
        let after = closed.unwrap_or_else(|| panic!("{number}: used again within that second"));
        assert!(after > second, "{number}: after {after:?}");
    }
}

#[tokio::test]
async fn a_keep_alive_under_two_seconds_disables_reuse() {
    let never = Duration::from_hours(1);
    for said in ["timeout=1", "timeout=0"] {
        assert_eq!(closed_after(&[said, said], never).await, None, "{said}: used again");
        closed_after(&[said], never).await; // and closed at once, not when the server does
    }
}

#[tokio::test]
async fn a_longer_keep_alive_changes_nothing() {
    let idle = Duration::from_millis(300);
    for said in ["", "timeout=60", "max=7", "timeout=99999999999999999999999", "timeout", "timeout=-1", "timeout=soon"]
    {
        let after = closed_after(&[said, said], idle).await.expect("it is used again");
        assert!(after > Duration::from_millis(290), "{said:?}: after {after:?}");
    }
}

#[tokio::test]
async fn bursts_lose_no_request_to_closing_connections() {
    // A request that crosses the end of its connection is lost, as with Node's server five seconds after the last.
    let idle_timeout = Duration::from_secs(2);
    let mut answered: HashMap<usize, Instant> = HashMap::new();
    let upstream = Upstream::answering(move |seen: &Seen| {
        let before = answered.insert(seen.connection, Instant::now());
        if before.is_some_and(|before| before.elapsed() > idle_timeout) {
            return Reply::raw([Step::Reset]);
        }
        Reply::new(200).header("keep-alive", "timeout=2").body("fine")
    })
    .await;
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    for burst in 0..2 {
        let sent = (0..20).map(|_| client.send(post(upstream.url() + "/", "once")));
        for sent in within(future::join_all(sent)).await {
            let response = sent.unwrap_or_else(|error| panic!("in burst {burst}: {error}"));
            assert_eq!(text(response).await, "fine");
        }
        tokio::time::sleep(idle_timeout + Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_is_removed() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = server.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.unwrap();
        stream
    };
    let ask = async { text(client.send(get(url)).await.unwrap()).await };
    let (mut stream, answer) = within(future::join(serve, ask)).await;
    assert_eq!(answer, "fine");
    stream.shutdown().await.unwrap();
    assert_eq!(within(stream.read(&mut [0; 1024])).await.unwrap(), 0);
}
