//! A removed listener accepts no connection; its open connections are served to their end.

use std::time::Duration;

use pixy::server::Address;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::listeners::{ANY, Fixture, HELLO, is_open, listening};
use crate::support::{Chunks, Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account, opened, within};

const GET: &str = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";

/// A response that is streamed until `finish`.
async fn stream(fixture: &Fixture, at: usize) -> (RawClient, Chunks) {
    let (reply, chunks) = Reply::stream(200);
    fixture.upstream.answer(reply);
    let mut client = RawClient::connect(fixture.agents(at)).await;
    client.send(GET).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    (client, chunks)
}

async fn finish(mut client: RawClient, chunks: Chunks) {
    chunks.send("last\n");
    chunks.finish();
    assert_eq!(client.bytes(15).await, b"5\r\nlast\n\r\n0\r\n\r\n");
}

#[tokio::test]
async fn connections_of_a_removed_listener_go_on_to_their_end() {
    let mut fixture = Fixture::new(&json!([ANY, ANY])).await;
    let removed = fixture.agents(1);
    let (streaming, chunks) = stream(&fixture, 1).await;
    // One without a byte of its request, one with half of it, and one that is idle after a request. Connections are accepted in
    // order: after the answer to the last one all are accepted.
    let (mut new, mut half) = (RawClient::connect(removed).await, RawClient::connect(removed).await);
    half.send(&HELLO[..10]).await;
    let mut idle = RawClient::connect(removed).await;
    idle.send(HELLO).await;
    assert_eq!(idle.response().await.unwrap().status, 200);

    fixture.listen(&json!([ANY])).await.unwrap();
    assert!(!is_open(removed).await);
    assert!(idle.until_closed().await, "no request was under way");
    new.send(HELLO).await;
    half.send(&HELLO[10..]).await;
    for client in [&mut new, &mut half] {
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.header("connection"), answer.closed), (200, vec!["close"], true));
    }
    // Over a further reload, too.
    fixture.listen(&json!([ANY, ANY])).await.unwrap();
    finish(streaming, chunks).await;
}

#[tokio::test]
async fn a_websocket_outlives_its_listener_and_ends_with_pixy() {
    let (endpoint, server) = (TokenEndpoint::start().await, tokio::net::TcpListener::bind(ANY).await.unwrap());
    let mut account = oauth_account(&endpoint, &Upstream::start().await);
    account["profile"]["api"]["base_url"] = json!(format!("http://{}", server.local_addr().unwrap()));
    account["profile"]["api"]["websocket"] = json!(["/v1/responses"]);
    let accounts = json!({ "a": account });
    let mut pixy = Pixy::with(&accounts, &listening(&json!([ANY, ANY]))).await;
    pixy.link(&endpoint).await;
    let Address::Tcp(removed) = pixy.all_agents()[1] else { unreachable!() };
    let mut agent = RawClient::ask_for_socket(removed, "/a/v1/responses").await;
    let (mut upstream, _) = opened(&server).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    upstream.write_all(switch.as_bytes()).await.unwrap();
    assert_eq!(agent.head().await.unwrap().status, 101);
    pixy.reload(&accounts, &listening(&json!([ANY]))).await.unwrap();
    assert!(!is_open(removed).await);
    // Longer than the pause after which one is ended between two answers when Pixy removed down.
    for _ in 0..4 {
        upstream.write_all(b"\x81\x02hi").await.unwrap();
        assert_eq!(agent.bytes(4).await, b"\x81\x02hi");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let stopping = tokio::spawn(pixy.stop());
    assert_eq!(agent.rest().await, b"\x88\x02\x03\xe9", "1001, going away");
    drop(upstream);
    within(stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_removed_listener_serves_what_it_accepted_only() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let with = |listen: &[&str], most: u32| json!({ "agent": { "listen": listen }, "limits": { "connections": most } });
    fixture.reload(&with(&[ANY, ANY], 2)).await.unwrap();
    let removed = fixture.agents(1);
    let streams = [stream(&fixture, 1).await, stream(&fixture, 1).await];
    // The first is accepted and waits for a permit; the others are in the accept queue of the kernel.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(removed).await;
        client.send(HELLO).await;
        waiting.push(client);
    }
    fixture.reload(&with(&[ANY], 4)).await.unwrap();
    let answer = waiting[0].response().await.expect("it was accepted");
    assert_eq!((answer.status, answer.closed), (200, true));
    for queued in &mut waiting[1..] {
        assert!(queued.until_closed().await);
    }
    for (client, chunks) in streams {
        finish(client, chunks).await;
    }
}
