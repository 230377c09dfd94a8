//! A listener is taken out: what it accepted goes on to its end, and who waits there is let in as far as there are places.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pixy::server::Address;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::DIGEST;
use super::listeners::{ANY, HELLO, Stage, is_open, listening};
use crate::support::{Chunks, Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account, opened, within};

const GET: &str = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\nX-Api-Key: secret-key\r\n\r\n";

#[tokio::test]
async fn what_a_listener_accepted_goes_on_to_its_end_when_it_is_taken_out() {
    let mut stage = Stage::new(&json!([ANY, ANY])).await;
    let goes = stage.agents(1);
    let get = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";
    let (reply, chunks) = Reply::stream(200);
    stage.upstream.answer(reply);
    let mut streaming = RawClient::connect(goes).await;
    streaming.send(get).await;
    assert_eq!(streaming.head().await.unwrap().status, 200);
    chunks.send("first\n");
    assert_eq!(streaming.bytes(11).await, b"6\r\nfirst\n\r\n");

    let (reply, more_chunks) = Reply::stream(200);
    stage.upstream.answer(reply);
    let io = TokioIo::new(TcpStream::connect(goes).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = || Request::get(format!("http://{goes}/a/v1/models")).body(Empty::<Bytes>::new()).unwrap();
    let mut body = sender.send_request(ask()).await.unwrap().into_body();

    let mut idle = RawClient::connect(goes).await;
    idle.send(HELLO).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    let mut idle_over_2 = {
        let io = TokioIo::new(TcpStream::connect(goes).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let connection = tokio::spawn(connection);
        assert_eq!(
            sender.send_request(ask()).await.unwrap().into_body().collect().await.unwrap().to_bytes(),
            "upstream"
        );
        (sender, connection)
    };
    // One that has not yet said what it wants, and one that has said half of it.
    let (mut new, mut half) = (RawClient::connect(goes).await, RawClient::connect(goes).await);
    half.send(&HELLO[..10]).await;

    stage.listen(&json!([ANY])).await.unwrap();
    assert!(!is_open(goes).await);
    assert!(idle.until_closed().await, "nothing was under way");
    within(&mut idle_over_2.1).await.unwrap().unwrap();
    assert!(within(idle_over_2.0.ready()).await.is_err(), "it was told to go");
    new.send(HELLO).await;
    half.send(&HELLO[10..]).await;
    for client in [&mut new, &mut half] {
        let answer = client.response().await.unwrap();
        assert_eq!((answer.status, answer.header("connection"), answer.closed), (200, vec!["close"], true));
    }
    // Over a further reload, too.
    stage.listen(&json!([ANY, ANY])).await.unwrap();
    let told_to_go = async {
        while sender.send_request(ask()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(told_to_go).await;
    for (chunks, length) in [(&chunks, 64_usize), (&more_chunks, 64)] {
        chunks.send("x".repeat(length));
    }
    let frame = within(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame.len(), 64);
    chunks.finish();
    more_chunks.finish();
    let rest = String::from_utf8(streaming.rest().await).unwrap();
    assert!(rest.contains(&"x".repeat(64)) && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(within(body.collect()).await.unwrap().to_bytes(), "");
    within(connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_websocket_goes_on_when_its_listener_is_taken_out_and_ends_with_pixy() {
    let (endpoint, server) = (TokenEndpoint::start().await, tokio::net::TcpListener::bind(ANY).await.unwrap());
    let mut account = oauth_account(&endpoint, &Upstream::start().await);
    account["profile"]["api"]["base_url"] = json!(format!("http://{}", server.local_addr().unwrap()));
    account["profile"]["api"]["websocket"] = json!(["/v1/responses"]);
    let accounts = json!({ "a": account });
    let mut pixy = Pixy::with(&accounts, &listening(&json!([ANY, ANY]))).await;
    pixy.link(&endpoint).await;
    let Address::Tcp(goes) = pixy.all_agents()[1] else { unreachable!() };
    let mut agent = RawClient::ask_for_socket(goes, "/a/v1/responses").await;
    let (mut upstream, _) = opened(&server).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    upstream.write_all(switch.as_bytes()).await.unwrap();
    assert_eq!(agent.head().await.unwrap().status, 101);
    pixy.reload(&accounts, &listening(&json!([ANY]))).await.unwrap();
    assert!(!is_open(goes).await);
    // Longer than the pause after which one is ended between two answers when Pixy goes down.
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

/// A stream that takes a place for as long as its chunks come.
async fn streaming(stage: &Stage, at: usize) -> (RawClient, Chunks) {
    let (reply, chunks) = Reply::stream(200);
    stage.upstream.answer(reply);
    let mut client = RawClient::connect(stage.agents(at)).await;
    client.send(GET).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    (client, chunks)
}

async fn ends(mut client: RawClient, chunks: Chunks) {
    chunks.send("last\n");
    chunks.finish();
    assert_eq!(client.bytes(15).await, b"5\r\nlast\n\r\n0\r\n\r\n");
}

#[tokio::test]
async fn who_waits_where_a_listener_goes_is_let_in_as_far_as_there_are_places() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let with = |listen: &[&str], most: u32| json!({ "agent": { "listen": listen }, "limits": { "connections": most } });
    stage.change(&with(&[ANY, ANY], 2)).await.unwrap();
    let goes = stage.agents(1);
    let streams = [streaming(&stage, 1).await, streaming(&stage, 1).await];
    // One of them was accepted and waits for a place, the others are in the kernel's queue.
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = RawClient::connect(goes).await;
        client.send(HELLO).await;
        waiting.push(client);
    }
    stage.change(&with(&[ANY], 4)).await.unwrap();
    let [first, second, third, fourth] = waiting.as_mut_slice() else { unreachable!() };
    for client in [first, second] {
        let answer = client.response().await.expect("there is a place");
        assert_eq!((answer.status, answer.closed), (200, true));
    }
    for client in [third, fourth] {
        assert!(client.until_closed().await, "nobody waits with a descriptor at a listener that is gone");
    }
    for (client, chunks) in streams {
        ends(client, chunks).await;
    }
}

#[tokio::test]
async fn who_waited_at_a_socket_that_was_open_to_all_is_never_served_without_a_key() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let path = stage.pixy.scratch.path("agent.sock");
    let listen = |mode: &str| json!([ANY, { "address": format!("unix:{}", path.display()), "mode": mode }]);
    let keys = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }]);
    let limits = json!({ "connections": 1 });
    stage.change(&json!({ "agent": { "listen": listen("0666"), "keys": keys }, "limits": limits })).await.unwrap();
    let (client, chunks) = streaming(&stage, 0).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(HELLO.as_bytes()).await.unwrap();
        waiting.push(client);
    }
    stage.change(&json!({ "agent": { "listen": listen("0600") }, "limits": limits })).await.unwrap();
    let mut own = UnixStream::connect(&path).await.unwrap();
    own.write_all(HELLO.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    ends(client, chunks).await;
    let mut answers = Vec::new();
    for mut client in waiting.into_iter().chain([own]) {
        let mut answer = Vec::new();
        let _ = within(client.read_to_end(&mut answer)).await; // whoever is turned away may see a reset
        answers.push(String::from_utf8(answer).unwrap().chars().take(12).collect::<String>());
    }
    assert_eq!(answers, ["HTTP/1.1 401", "", "", "HTTP/1.1 200"]);
}
