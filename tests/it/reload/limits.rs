//! `limits`: a reload changes them for new connections.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::request_ids::capture_log;
use crate::support::{Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account, within};

/// A client without a response for this long waits for a permit.
const SILENCE: Duration = Duration::from_millis(300);

const GET: &str = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";

async fn limited(limits: &Value) -> (Pixy, TokenEndpoint, Upstream, Value) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::with(&accounts, &json!({ "limits": limits })).await;
    pixy.link(&endpoint).await;
    (pixy, endpoint, upstream, accounts)
}

#[tokio::test]
async fn a_connection_keeps_its_limits_and_new_ones_get_new_limits() {
    let (mut pixy, _endpoint, _upstream, accounts) = limited(&json!({})).await;
    let long = format!("GET /a?{} HTTP/1.1\r\nHost: pixy\r\n\r\n", "x".repeat(100));
    let mut before = RawClient::connect(pixy.agents()).await;
    before.send(&long).await;
    assert_eq!(before.response().await.unwrap().status, 200);
    let limits = json!({ "uri_bytes": 64, "header_bytes": 1024, "header_fields": 10, "header_time": "300ms" });
    pixy.reload(&accounts, &json!({ "limits": limits })).await.unwrap();
    before.send(&long).await;
    assert_eq!(before.response().await.unwrap().status, 200);
    for (bytes, status) in [
        (long.clone(), 414),
        (format!("GET /a HTTP/1.1\r\nHost: pixy\r\n{}\r\n", "x: y\r\n".repeat(10)), 431),
        (format!("GET /a HTTP/1.1\r\nHost: pixy\r\nx: {}\r\n\r\n", "x".repeat(1000)), 431),
    ] {
        assert_eq!(RawClient::once(pixy.agents(), bytes).await.unwrap().status, status);
    }
    let (mut slow, begun) = (RawClient::connect(pixy.agents()).await, Instant::now());
    slow.send("GET").await;
    assert!(slow.until_closed().await && begun.elapsed() < Duration::from_secs(5));
    pixy.reload(&accounts, &json!({})).await.unwrap();
    assert_eq!(pixy.send(&long.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await.status, 200);
}

#[tokio::test]
async fn more_connections_admit_waiters_and_fewer_end_no_stream() {
    let with = |most: u32| json!({ "connections": most });
    let (mut pixy, _endpoint, upstream, accounts) = limited(&with(1)).await;
    let answered = async |client: &mut RawClient| tokio::time::timeout(SILENCE, client.head()).await.is_ok();
    let mut open = Vec::new();
    let mut stream = async |pixy: &Pixy| {
        let (reply, chunks) = Reply::stream(200);
        upstream.answer(reply);
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send(GET).await;
        let head = answered(&mut client).await;
        open.push(chunks);
        (client, head)
    };
    let (mut first, head) = stream(&pixy).await;
    assert!(head);
    let (mut second, head) = stream(&pixy).await;
    assert!(!head, "the limit is one connection");
    pixy.reload(&accounts, &json!({ "limits": with(2) })).await.unwrap();
    assert_eq!(second.head().await.unwrap().status, 200, "it waited for a permit");
    pixy.reload(&accounts, &json!({ "limits": with(1) })).await.unwrap();
    let (mut third, head) = stream(&pixy).await;
    assert!(!head);
    let [one, two, three]: [_; 3] = open.try_into().expect("three streams");
    one.send("on\n");
    assert_eq!(first.bytes(8).await, b"3\r\non\n\r\n");
    one.finish();
    assert_eq!(first.bytes(5).await, b"0\r\n\r\n");
    drop(first);
    assert!(!answered(&mut third).await, "the second has the only permit");
    two.send("on\n");
    two.finish();
    assert_eq!(second.bytes(13).await, b"3\r\non\n\r\n0\r\n\r\n");
    drop(second);
    assert_eq!(within(third.head()).await.unwrap().status, 200);
    three.finish();
}

#[tokio::test]
async fn the_drain_uses_the_reloaded_time() {
    let (mut pixy, _endpoint, upstream, accounts) = limited(&json!({ "drain_time": "10m" })).await;
    let (reply, _chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(GET).await;
    assert_eq!(agent.head().await.unwrap().status, 200);
    pixy.reload(&accounts, &json!({ "limits": { "drain_time": "1ms" } })).await.unwrap();
    within(pixy.stop()).await.unwrap();
}

#[tokio::test]
async fn a_reload_logs_a_removed_key() {
    let (log, _guard) = capture_log();
    let (mut pixy, _endpoint, _upstream, accounts) = limited(&json!({})).await;
    pixy.reload(&accounts, &json!({ "limits": { "streams": 5 } })).await.unwrap();
    assert!(log.text().contains("agents connect by HTTP/1.1 only"), "{}", log.text());
}
