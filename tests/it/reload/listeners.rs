//! Where agents, the person and probes connect: added, taken away and changed, and no stream drops.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use pixy::server::Address;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::{DIGEST, metrics};
use crate::support::{Pixy, Program, RawClient, Reply, Scratch, TokenEndpoint, Upstream, oauth_account, within};

/// A linked account `a`, and a second one that nobody linked.
pub(super) struct Stage {
    pub(super) pixy: Pixy,
    pub(super) upstream: Upstream,
    accounts: Value,
    _endpoint: TokenEndpoint,
}

pub(super) const ANY: &str = "127.0.0.1:0";

pub(super) const HELLO: &str = "GET /a HTTP/1.1\r\nHost: pixy\r\n\r\n";

pub(super) fn listening(listen: &Value) -> Value {
    json!({ "agent": { "listen": listen } })
}

impl Stage {
    pub(super) async fn new(listen: &Value) -> Self {
        let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
        let account = oauth_account(&endpoint, &upstream);
        let accounts = json!({ "a": account, "b": account });
        let pixy = Pixy::with(&accounts, &listening(listen)).await;
        pixy.link(&endpoint).await;
        Self { pixy, upstream, accounts, _endpoint: endpoint }
    }

    pub(super) async fn listen(&mut self, listen: &Value) -> Result<(), String> {
        self.change(&listening(listen)).await
    }

    pub(super) async fn change(&mut self, more: &Value) -> Result<(), String> {
        self.pixy.reload(&self.accounts, more).await
    }

    pub(super) fn agents(&self, at: usize) -> SocketAddr {
        match &self.pixy.all_agents()[at] {
            Address::Tcp(address) => *address,
            Address::Unix(path) => panic!("{}", path.display()),
        }
    }
}

pub(super) async fn hello(address: SocketAddr) -> u16 {
    let request = HELLO.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    RawClient::once(address, request).await.expect("Pixy answers").status
}

pub(super) async fn is_open(address: SocketAddr) -> bool {
    within(TcpStream::connect(address)).await.is_ok()
}

#[tokio::test]
async fn a_listener_may_come_and_go_and_the_others_stay() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let first = stage.agents(0);
    stage.listen(&json!([ANY, { "address": ANY, "account": "a" }])).await.unwrap();
    assert_eq!(stage.agents(0), first);
    let second = stage.agents(1);
    assert_eq!((hello(first).await, hello(second).await), (200, 403), "the second has no prefix");
    let shown = stage.pixy.api(Method::GET, "/api/accounts/a/env", Value::Null).await.1.to_string();
    assert!(shown.contains(&second.to_string()), "an agent is told of it: {shown}");
    stage.listen(&json!([ANY])).await.unwrap();
    assert!(!is_open(second).await && is_open(first).await);
    let shown = stage.pixy.api(Method::GET, "/api/accounts/a/env", Value::Null).await.1.to_string();
    assert!(!shown.contains(&second.to_string()) && shown.contains(&first.to_string()), "{shown}");
}

#[tokio::test]
async fn one_address_that_cannot_be_had_refuses_the_whole_file_and_is_told_with_its_place() {
    let holder = TcpListener::bind(ANY).unwrap();
    let held = holder.local_addr().unwrap().to_string();
    let mut stage = Stage::new(&json!(ANY)).await;
    let (before, socket) = (stage.agents(0), stage.pixy.scratch.path("new.sock"));
    let unix = format!("unix:{}", socket.display());
    let keys = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }]);
    let more = json!({
        "agent": { "listen": [unix, held], "keys": keys }, "link": "off", "limits": { "uri_bytes": 64 },
    });
    let told = stage.change(&more).await.unwrap_err();
    let text = fs::read_to_string(stage.pixy.scratch.path("pixy.yaml")).unwrap();
    let line = text.lines().position(|line| line.contains(&held)).unwrap() + 1;
    assert!(told.contains(&format!("pixy.yaml:{line}:")) && told.contains("`agent.listen.1`"), "{told}");
    assert!(told.contains(&held) && told.contains("held by another program"), "{told}");
    assert!(
        told.ends_with("the configuration before stays in force") && !told.contains("nothing was started"),
        "{told}"
    );
    let (_, shown) = stage.pixy.api(Method::GET, "/api/configuration", Value::Null).await;
    assert_eq!(shown["problem"], told);
    let counted = metrics(&stage.pixy).await;
    assert!(counted.contains("pixy_config_reloads_total{outcome=\"not_bound\"} 1"), "{counted}");
    assert!(counted.contains("pixy_config_last_reload_successful 0"), "{counted}");
    // Nothing of it is there: no socket, no key, no limit, and the page is on.
    assert!(!socket.exists());
    assert_eq!((stage.agents(0), hello(before).await), (before, 200));
    assert_eq!(stage.pixy.get(&format!("/a?{}", "x".repeat(64))).await.status, 200);
    assert!(is_open(stage.pixy.page()).await);
    drop(holder);
    stage.change(&more).await.unwrap();
    assert!(socket.exists() && !is_open(before).await);
}

#[tokio::test]
async fn an_address_that_overlaps_our_own_asks_for_a_restart() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let own = stage.agents(0);
    let keys = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }]);
    let everywhere = format!("0.0.0.0:{}", own.port());
    let more = json!({ "agent": { "listen": everywhere, "keys": keys } });
    let told = stage.change(&more).await.unwrap_err();
    assert!(told.contains(&format!("needs a restart of Pixy: it holds {own} itself")), "{told}");
    assert_eq!(hello(own).await, 200);
    // The port that the system chose, written down, is the same listener.
    stage.listen(&json!(own.to_string())).await.unwrap();
    assert_eq!((stage.agents(0), hello(own).await), (own, 200));
}

#[tokio::test]
async fn no_connection_is_missed_by_a_listener_that_stays_or_is_handed_over() {
    let mut stage = Stage::new(&json!([ANY, { "address": ANY, "account": "a" }])).await;
    let (stays, changes) = (stage.agents(0), stage.agents(1));
    let over = Arc::new(AtomicBool::new(false));
    let asking = [(stays, vec![200]), (changes, vec![403, 404])].map(|(address, expected)| {
        let (over, count) = (Arc::clone(&over), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        let asking = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let status = hello(address).await;
                assert!(expected.contains(&status), "{status}");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        (asking, count)
    });
    let mut turn = 0;
    while turn < 20 || (turn < 2000 && asking.iter().any(|(_, count)| count.load(Ordering::Relaxed) < 100)) {
        let bound = if turn % 2 == 0 { "b" } else { "a" };
        let more = [json!({ "address": changes.to_string(), "account": bound }), json!(ANY)];
        let listen = [&[json!(stays.to_string())], &more[..=turn % 2]].concat();
        stage.listen(&json!(listen)).await.unwrap();
        assert_eq!((stage.agents(0), stage.agents(1)), (stays, changes));
        turn += 1;
    }
    over.store(true, Ordering::Relaxed);
    for (asked, count) in asking {
        within(asked).await.unwrap();
        assert!(count.load(Ordering::Relaxed) >= 100);
    }
}

#[tokio::test]
async fn a_listener_that_is_bound_to_another_account_keeps_its_port() {
    let mut stage = Stage::new(&json!([{ "address": ANY, "account": "a" }])).await;
    let address = stage.agents(0);
    let get = "GET /v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";
    let (reply, chunks) = Reply::stream(200);
    stage.upstream.answer(reply);
    let (mut streaming, mut idle) = (RawClient::connect(address).await, RawClient::connect(address).await);
    streaming.send(get).await;
    assert_eq!(streaming.head().await.unwrap().status, 200);
    idle.send(get).await;
    assert_eq!(idle.response().await.unwrap().status, 200);
    stage.listen(&json!([{ "address": ANY, "account": "b" }])).await.unwrap();
    assert_eq!(stage.agents(0), address);
    assert!(idle.until_closed().await, "it comes again, and is served by what is configured now");
    assert_eq!(RawClient::once(address, get).await.unwrap().status, 401, "b is not linked");
    chunks.send("last\n");
    chunks.finish();
    assert!(streaming.rest().await.ends_with(b"5\r\nlast\n\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_unix_socket_changes_its_mode_in_place_and_takes_its_file_along() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let path = stage.pixy.scratch.path("agent.sock");
    let at = |mode: &str| json!([ANY, { "address": format!("unix:{}", path.display()), "mode": mode }]);
    let found = || {
        let found = fs::symlink_metadata(&path).unwrap();
        (found.ino(), found.mode() & 0o777)
    };
    stage.listen(&at("0600")).await.unwrap();
    let (inode, mode) = found();
    assert_eq!(mode, 0o600);
    let mut idle = UnixStream::connect(&path).await.unwrap();
    stage.listen(&at("0660")).await.unwrap();
    assert_eq!(found(), (inode, 0o660));
    let ask = async |agent: &mut UnixStream| {
        agent.write_all(HELLO.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        within(agent.read_exact(&mut start)).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    };
    ask(&mut idle).await;
    ask(&mut UnixStream::connect(&path).await.unwrap()).await;
    // Who was in the queue when it goes has been let in.
    let mut late = UnixStream::connect(&path).await.unwrap();
    stage.listen(&json!(ANY)).await.unwrap();
    assert!(!path.exists());
    ask(&mut late).await;
    // Again, and now somebody puts something else in its place.
    stage.listen(&at("0600")).await.unwrap();
    fs::rename(&path, stage.pixy.scratch.path("moved.sock")).unwrap();
    fs::write(&path, "somebody's").unwrap();
    let told = stage.listen(&at("0660")).await.unwrap_err();
    assert!(told.contains("something else was put in its place"), "{told}");
    stage.listen(&json!(ANY)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
}

#[tokio::test]
async fn who_came_by_a_socket_that_was_open_to_all_needs_a_key_to_the_end() {
    // The keys go together with the socket's openness: who is connected already must not gain by that.
    let mut stage = Stage::new(&json!(ANY)).await;
    let path = stage.pixy.scratch.path("agent.sock");
    let address = format!("unix:{}", path.display());
    let keys = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }]);
    let open = json!({ "agent": { "listen": [ANY, { "address": address, "mode": "0666" }], "keys": keys } });
    stage.change(&open).await.unwrap();
    let mut agents = Vec::new();
    for _ in 0..2 {
        agents.push(UnixStream::connect(&path).await.unwrap());
    }
    for listen in [json!([ANY, { "address": address, "mode": "0600" }]), json!([ANY])] {
        stage.change(&open).await.unwrap();
        let mut agent = UnixStream::connect(&path).await.unwrap();
        stage.listen(&listen).await.unwrap();
        assert_eq!(hello(stage.agents(0)).await, 200, "elsewhere none is needed any more");
        agent.write_all(HELLO.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(agent.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("agent_key_missing"), "{answer}");
    }
}

#[tokio::test]
async fn the_page_and_the_probes_move_too() {
    let mut stage = Stage::new(&json!(ANY)).await;
    let (agents, page, ops) = (stage.agents(0), stage.pixy.page(), stage.pixy.ops());
    let url = async |pixy: &Pixy| pixy.api(Method::POST, "/api/setup", Value::Null).await;
    // A page that somebody watches.
    let (_, shown) = url(&stage.pixy).await;
    let code = shown["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let mut watching = RawClient::connect(page).await;
    watching.send(format!("GET /api/events HTTP/1.1\r\nHost: {page}\r\nAuthorization: Bearer {code}\r\n\r\n")).await;
    assert_eq!(watching.head().await.unwrap().status, 200);

    let fixed = TcpListener::bind(ANY).unwrap().local_addr().unwrap().to_string();
    stage.change(&json!({ "link": "off", "ops": { "listen": fixed } })).await.unwrap();
    assert!(!is_open(page).await && !is_open(ops).await);
    assert_eq!((stage.agents(0), hello(agents).await), (agents, 200));
    within(watching.rest()).await;
    assert_eq!(url(&stage.pixy).await.0, 409, "the page is off");
    assert_eq!(stage.pixy.ops().to_string(), fixed);
    assert!(metrics(&stage.pixy).await.contains("pixy_config_last_reload_successful 1"));

    stage.change(&json!({})).await.unwrap();
    let (_, shown) = url(&stage.pixy).await;
    let moved = stage.pixy.page();
    assert!(shown["url"].as_str().unwrap().starts_with(&format!("http://{moved}/#")), "{shown}");
    let get = format!("GET / HTTP/1.1\r\nHost: {moved}\r\nConnection: close\r\n\r\n");
    let answer = RawClient::once(moved, get).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(&moved.port().to_string()), "it says where it is");
}

#[tokio::test]
async fn a_turned_link_moves_a_listener_of_the_confined_program_and_a_stream_goes_on() {
    a_link_is_turned(1).await;
}

#[tokio::test]
async fn a_turned_link_moves_a_listener_also_where_several_threads_serve() {
    a_link_is_turned(4).await;
}

async fn a_link_is_turned(io_threads: u32) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    let with = |path: PathBuf| {
        let listen = json!([ANY, format!("unix:{}", path.display())]);
        json!({ "agent": { "listen": listen }, "limits": { "io_threads": io_threads } })
    };
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    // As a kubelet lays a ConfigMap out. Pixy was let have the place of two sockets, and not that of the third.
    fs::create_dir(scratch.path("sockets")).unwrap();
    let mount = scratch.path("mount");
    for (version, socket) in [
        ("..1", scratch.path("sockets/1.sock")),
        ("..2", scratch.path("sockets/2.sock")),
        ("..3", elsewhere.path("3.sock")),
    ] {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::copy(scratch.config_with(&accounts, &with(socket)), mount.join(version).join("pixy.yaml")).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/pixy.yaml", mount.join("pixy.yaml")).unwrap();
    let turn = |version: &str| {
        symlink(version, mount.join("..new")).unwrap();
        fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    };
    let program = Program::start(&scratch, &mount.join("pixy.yaml")).await;
    program.link(&endpoint).await;

    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut agent = UnixStream::connect(scratch.path("sockets/1.sock")).await.unwrap();
    agent.write_all(b"GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n").await.unwrap();
    within(upstream.until_requests(1)).await;
    turn("..2");
    let moved = async {
        while !scratch.path("sockets/2.sock").exists() || scratch.path("sockets/1.sock").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(moved).await;
    chunks.send("last\n");
    chunks.finish();
    let mut answer = String::new();
    within(agent.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("5\r\nlast\n\r\n0\r\n\r\n"), "{answer}");
    assert!(UnixStream::connect(scratch.path("sockets/2.sock")).await.is_ok());
    assert_eq!(program.get("/a").await.status, 200, "the port has stayed");

    turn("..3");
    let problem = async {
        loop {
            let shown = program.api(Method::GET, "/api/configuration").await.unwrap();
            if let Some(problem) = shown["problem"].as_str() {
                break problem.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if program.told().contains("files are not limited") {
        return; // a kernel without Landlock closes no directory
    }
    let problem = within(problem).await;
    assert!(problem.contains("3.sock") && problem.contains("that needs a restart"), "{problem}");
    assert!(UnixStream::connect(scratch.path("sockets/2.sock")).await.is_ok());
}
