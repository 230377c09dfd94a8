//! More than one thread for connections (`limits.io_threads`), in the real binary: how the work is shared, and that everything else
//! works as with one thread.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    Chunks, Gate, Program, RawClient, Reply, Scratch, Seen, TokenEndpoint, Upstream, oauth_account, opened, within,
};

const SEVERAL: usize = 4;

/// Concurrent requests: more than there are threads.
const MANY: usize = 60;

/// Messages of each WebSocket, each way.
const MESSAGES: usize = 50;

const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: from-the-upstream\r\n\r\n";

/// An agent's frame, masked with nothing.
const HELLO: &[u8] = b"\x81\x85\0\0\0\0hello";

/// Pixy with so many threads, or with the default; its account `a` is linked.
struct Fixture {
    program: Program,
    endpoint: TokenEndpoint,
    _scratch: Scratch,
}

impl Fixture {
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

    /// How often the main thread was woken, and the runtime's other threads together.
    fn wakeups(&self) -> (u64, u64) {
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
async fn io_threads_share_connections_and_one_is_the_default() {
    let upstream = Upstream::start().await;
    for threads in [None, Some(1), Some(SEVERAL)] {
        let fixture = Fixture::with(threads, &upstream).await;
        let before = fixture.wakeups();
        for _ in 0..MANY {
            assert_eq!(fixture.program.get("/a/v1/models").await.status, 200);
        }
        let after = fixture.wakeups();
        let (first, others) = (after.0 - before.0, after.1 - before.1);
        let count = fixture.program.workers().len(); // includes the threads for blocking file operations
        if threads == Some(SEVERAL) {
            assert!(
                count >= SEVERAL && others > first,
                "{count} threads, {others} wakeups and {first} of the first one"
            );
        } else {
            assert!(
                count < SEVERAL && first > others,
                "{count} threads, {others} wakeups and {first} of the first one"
            );
        }
        let main = fixture.status(fixture.program.id());
        for thread in fixture.program.workers() {
            for guard in ["Seccomp:", "Seccomp_filters:", "NoNewPrivs:"] {
                let own = number(&fixture.status(thread), guard);
                assert_eq!(own, number(&main, guard), "{guard} of {thread}");
            }
        }
    }
}

#[tokio::test]
async fn concurrent_401s_cause_one_refresh_and_no_failed_request() {
    let gates = Arc::new(Mutex::new(Vec::<Gate>::new()));
    let held = Arc::clone(&gates);
    // The first token gets 401, but not before all requests have arrived.
    let upstream = Upstream::answering(move |seen: &Seen| {
        if seen.header("authorization") == ["Bearer marked-access-0-1"] {
            let (reply, gate) = Reply::new(401).gated();
            held.lock().unwrap().push(gate);
            return reply;
        }
        Reply::new(200).body(seen.target.clone())
    })
    .await;
    let fixture = Fixture::with(Some(SEVERAL), &upstream).await;
    let mut agents = JoinSet::new();
    for number in 0..MANY {
        let (address, path) = (fixture.program.agents(), format!("/v1/models/{number}"));
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
    assert_eq!(fixture.endpoint.refreshes(), 1);
    assert_eq!(upstream.requests().len(), 2 * MANY);
}

#[tokio::test]
async fn concurrent_streams_arrive_complete_and_in_order() {
    let streams = Arc::new(Mutex::new(HashMap::<String, Chunks>::new()));
    let begun = Arc::clone(&streams);
    let upstream = Upstream::answering(move |seen: &Seen| {
        let (reply, chunks) = Reply::stream(200);
        begun.lock().unwrap().insert(seen.target.clone(), chunks);
        reply
    })
    .await;
    let fixture = Fixture::with(Some(SEVERAL), &upstream).await;
    let mut agents = JoinSet::new();
    for number in 0..MANY {
        let (address, path) = (fixture.program.agents(), format!("/v1/models/{number}"));
        agents.spawn(async move { (RawClient::once(address, get(&format!("/a{path}"))).await.unwrap().text(), path) });
    }
    within(upstream.until_requests(MANY)).await;
    let streams = std::mem::take(&mut *streams.lock().unwrap());
    for number in 0..200 {
        for (path, chunks) in &streams {
            chunks.send(format!("{path} {number}\n"));
        }
        if number % 10 == 0 {
            tokio::task::yield_now().await; // some of it is sent while the rest is generated
        }
    }
    streams.into_values().for_each(Chunks::finish);
    for (text, path) in within(agents.join_all()).await {
        let expected: String = (0..200).map(|number| format!("{path} {number}\n")).collect();
        assert!(text == expected, "{path}: {text}");
    }
}

#[tokio::test]
async fn websockets_carry_messages_both_ways() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let fixture = Fixture::at(Some(SEVERAL), &Upstream::start().await, &url).await;
    let mut sockets = JoinSet::new();
    for number in 0..MANY {
        let mut agent = RawClient::ask_for_socket(fixture.program.agents(), "/a/v1/responses").await;
        let (mut upstream, _) = opened(&server).await;
        upstream.write_all(SWITCH).await.unwrap();
        assert_eq!(agent.head().await.unwrap().status, 101);
        sockets.spawn(async move {
            let mut heard = vec![0; HELLO.len() * MESSAGES];
            let said = [b"\x81\x05", format!("{number:05}").as_bytes()].concat();
            for _ in 0..MESSAGES {
                agent.send(HELLO).await;
                upstream.write_all(&said).await.unwrap();
                assert_eq!(agent.bytes(said.len()).await, said);
            }
            within(upstream.read_exact(&mut heard)).await.unwrap();
            assert_eq!(heard, HELLO.repeat(MESSAGES));
        });
    }
    within(sockets.join_all()).await;
}

#[tokio::test]
async fn sigterm_closes_the_listener_and_open_streams_finish() {
    let upstream = Upstream::start().await;
    let mut fixture = Fixture::with(Some(SEVERAL), &upstream).await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut agent = RawClient::connect(fixture.program.agents()).await;
    agent.send(get("/a/v1/models")).await;
    assert_eq!(agent.head().await.unwrap().status, 200);
    let id = rustix::process::Pid::from_raw(i32::try_from(fixture.program.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let refused = async { while TcpStream::connect(fixture.program.agents()).await.is_ok() {} };
    within(refused).await;
    assert!(!fixture.program.has_ended());
    chunks.send("last\n");
    chunks.finish();
    assert!(agent.rest().await.ends_with(b"5\r\nlast\n\r\n0\r\n\r\n"));
    assert!(fixture.program.ended().await.success());
}
