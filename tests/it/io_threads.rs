//! More than one thread for connections (`limits.io_threads`), in the real binary: who has the work, and that all else is as it is
//! with one.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    Chunks, Gate, Program, RawClient, Reply, Scratch, Seen, TokenEndpoint, Upstream, oauth_account, opened, within,
};

const SEVERAL: usize = 4;

/// Requests, or streams, at once: more than there are threads.
const MANY: usize = 60;

/// Of each WebSocket.
const TURNS: usize = 50;

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: from-the-upstream\r\n\r\n";

/// An agent's frame, masked with nothing.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

/// Pixy with so many threads, or as many as it has by itself; its account `a` is linked.
struct House {
    program: Program,
    endpoint: TokenEndpoint,
    _scratch: Scratch,
}

impl House {
    async fn with(threads: Option<usize>, upstream: &Upstream) -> Self {
        Self::at(threads, upstream, &upstream.url()).await
    }

    async fn at(threads: Option<usize>, upstream: &Upstream, url: &str) -> Self {
        let (endpoint, scratch) = (TokenEndpoint::start().await, Scratch::new());
        let mut account = oauth_account(&endpoint, upstream);
        account["profile"]["api"]["base_url"] = json!(url);
        account["profile"]["api"]["websocket"] = json!(["/v1/responses"]);
        let more = threads.map_or_else(|| json!({}), |threads| json!({ "limits": { "io_threads": threads } }));
        let config = scratch.config_with(&json!({ "a": account }), &more);
        let program = Program::start(&scratch, &config).await;
        program.link(&endpoint).await;
        Self { program, endpoint, _scratch: scratch }
    }

    /// How often each thread had nothing to do and was woken: the main one, and the runtime's others together.
    fn turns(&self) -> (u64, u64) {
        let of = |thread| number(&self.status(thread), "voluntary_ctxt_switches:");
        (of(self.program.id()), self.program.workers().into_iter().map(of).sum())
    }

    fn status(&self, thread: u32) -> String {
        fs::read_to_string(format!("/proc/{}/task/{thread}/status", self.program.id())).unwrap()
    }
}

fn number(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn several_threads_share_the_work_each_as_confined_as_the_first_and_by_default_the_first_has_all_of_it() {
    let upstream = Upstream::start().await;
    for threads in [None, Some(1), Some(SEVERAL)] {
        let house = House::with(threads, &upstream).await;
        let before = house.turns();
        for _ in 0..MANY {
            assert_eq!(house.program.get("/a/v1/models").await.status, 200);
        }
        let after = house.turns();
        let (first, others) = (after.0 - before.0, after.1 - before.1);
        let count = house.program.workers().len(); // those that files need are among them
        if threads == Some(SEVERAL) {
            assert!(count >= SEVERAL && others > first, "{count} threads, {others} turns and {first} of the first one");
        } else {
            assert!(count < SEVERAL && first > others, "{count} threads, {others} turns and {first} of the first one");
        }
        let main = house.status(house.program.id());
        for thread in house.program.workers() {
            for guard in ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"] {
                let own = number(&house.status(thread), guard);
                assert_eq!(own, number(&main, guard), "{guard} of {thread}");
            }
        }
    }
}

#[tokio::test]
async fn many_refused_at_once_cost_one_refresh_and_each_gets_its_own_answer() {
    let gates = Arc::new(Mutex::new(Vec::<Gate>::new()));
    let held = Arc::clone(&gates);
    // The first token is refused; each of these answers is held until all have asked.
    let upstream = Upstream::answering(move |seen: &Seen| {
        if seen.header("authorization") == ["Bearer marked-access-0-1"] {
            let (reply, gate) = Reply::new(401).gated();
            held.lock().unwrap().push(gate);
            return reply;
        }
        Reply::new(200).body(seen.target.clone())
    })
    .await;
    let house = House::with(Some(SEVERAL), &upstream).await;
    let mut agents = JoinSet::new();
    for number in 0..MANY {
        let (address, path) = (house.program.agents(), format!("/v1/models/{number}"));
        agents.spawn(async move {
            let answer = RawClient::once(address, get(&format!("/a{path}"))).await.unwrap();
            (answer.status, answer.text(), path)
        });
    }
    within(upstream.until_requests(MANY)).await;
    let gates = std::mem::take(&mut *gates.lock().unwrap());
    assert_eq!(gates.len(), MANY, "all with the first token");
    gates.into_iter().for_each(Gate::open);
    for (status, text, path) in within(agents.join_all()).await {
        assert_eq!((status, text), (200, path));
    }
    assert_eq!(house.endpoint.refreshes(), 1);
    assert_eq!(upstream.requests().len(), 2 * MANY);
}

#[tokio::test]
async fn streams_over_both_protocols_arrive_whole_and_in_order() {
    let streams = Arc::new(Mutex::new(HashMap::<String, Chunks>::new()));
    let begun = Arc::clone(&streams);
    let upstream = Upstream::answering(move |seen: &Seen| {
        let (reply, chunks) = Reply::stream(200);
        begun.lock().unwrap().insert(seen.target.clone(), chunks);
        reply
    })
    .await;
    let house = House::with(Some(SEVERAL), &upstream).await;
    let io = TokioIo::new(TcpStream::connect(house.program.agents()).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut agents = JoinSet::new();
    for number in 0..MANY {
        let (address, path, mut sender) = (house.program.agents(), format!("/v1/models/{number}"), sender.clone());
        agents.spawn(async move {
            if number % 2 == 0 {
                return (RawClient::once(address, get(&format!("/a{path}"))).await.unwrap().text(), path);
            }
            let ask = Request::get(format!("http://{address}/a{path}")).body(Empty::<Bytes>::new()).unwrap();
            let body = sender.send_request(ask).await.unwrap().into_body();
            (String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(), path)
        });
    }
    within(upstream.until_requests(MANY)).await;
    let streams = std::mem::take(&mut *streams.lock().unwrap());
    for number in 0..200 {
        for (path, chunks) in &streams {
            chunks.send(format!("{path} {number}\n"));
        }
        if number % 10 == 0 {
            tokio::task::yield_now().await; // some of it leaves while the rest is being made
        }
    }
    streams.into_values().for_each(Chunks::finish);
    for (text, path) in within(agents.join_all()).await {
        let expected: String = (0..200).map(|number| format!("{path} {number}\n")).collect();
        assert!(text == expected, "{path}: {text}");
    }
}

#[tokio::test]
async fn websockets_go_both_ways() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let house = House::at(Some(SEVERAL), &Upstream::start().await, &url).await;
    let mut sockets = JoinSet::new();
    for number in 0..MANY {
        let mut agent = RawClient::ask_for_socket(house.program.agents(), "/a/v1/responses").await;
        let (mut upstream, _) = opened(&server).await;
        upstream.write_all(SWITCH).await.unwrap();
        assert_eq!(agent.head().await.unwrap().status, 101);
        sockets.spawn(async move {
            let mut heard = vec![0; HELLO.len() * TURNS];
            let said = [b"\x81\x05", format!("{number:05}").as_bytes()].concat();
            for _ in 0..TURNS {
                agent.send(HELLO).await;
                upstream.write_all(&said).await.unwrap();
                assert_eq!(agent.bytes(said.len()).await, said);
            }
            within(upstream.read_exact(&mut heard)).await.unwrap();
            assert_eq!(heard, HELLO.repeat(TURNS));
        });
    }
    within(sockets.join_all()).await;
}

#[tokio::test]
async fn after_sigterm_nobody_else_is_let_in_and_an_open_stream_ends_by_itself() {
    let upstream = Upstream::start().await;
    let mut house = House::with(Some(SEVERAL), &upstream).await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut agent = RawClient::connect(house.program.agents()).await;
    agent.send(get("/a/v1/models")).await;
    assert_eq!(agent.head().await.unwrap().status, 200);
    let id = rustix::process::Pid::from_raw(i32::try_from(house.program.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let refused = async { while TcpStream::connect(house.program.agents()).await.is_ok() {} };
    within(refused).await;
    assert!(!house.program.has_ended());
    chunks.send("last\n");
    chunks.finish();
    assert!(agent.rest().await.ends_with(b"5\r\nlast\n\r\n0\r\n\r\n"));
    assert!(house.program.ended().await.success());
}
