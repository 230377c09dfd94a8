//! Listeners of agents, of the page and of probes: added and removed by a reload; a change in place needs a restart.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
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

/// A linked account `a`, and an account `b` that is not linked.
pub(super) struct Fixture {
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

fn coder() -> Value {
    json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }])
}

impl Fixture {
    pub(super) async fn new(listen: &Value) -> Self {
        let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
        let account = oauth_account(&endpoint, &upstream);
        let accounts = json!({ "a": account, "b": account });
        let pixy = Pixy::with(&accounts, &listening(listen)).await;
        pixy.link(&endpoint).await;
        Self { pixy, upstream, accounts, _endpoint: endpoint }
    }

    /// Reloads with these agent listeners.
    pub(super) async fn listen(&mut self, listen: &Value) -> Result<(), String> {
        self.reload(&listening(listen)).await
    }

    /// Reloads with these top-level keys.
    pub(super) async fn reload(&mut self, more: &Value) -> Result<(), String> {
        self.pixy.reload(&self.accounts, more).await
    }

    pub(super) fn agents(&self, at: usize) -> SocketAddr {
        match &self.pixy.all_agents()[at] {
            Address::Tcp(address) => *address,
            Address::Unix(path) => panic!("{}", path.display()),
        }
    }

    async fn problem(&self) -> Value {
        self.pixy.api(Method::GET, "/api/configuration", Value::Null).await.1["problem"].clone()
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
async fn listeners_are_added_and_removed() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let first = fixture.agents(0);
    fixture.listen(&json!([ANY, { "address": ANY, "account": "a" }])).await.unwrap();
    assert_eq!(fixture.agents(0), first);
    let second = fixture.agents(1);
    assert_eq!((hello(first).await, hello(second).await), (200, 403), "the second has no prefix");
    let shown = fixture.pixy.api(Method::GET, "/api/accounts/a/env", Value::Null).await.1.to_string();
    assert!(shown.contains(&second.to_string()), "the client snippets name it: {shown}");
    fixture.listen(&json!([ANY])).await.unwrap();
    assert!(!is_open(second).await && is_open(first).await);
    let shown = fixture.pixy.api(Method::GET, "/api/accounts/a/env", Value::Null).await.1.to_string();
    assert!(!shown.contains(&second.to_string()) && shown.contains(&first.to_string()), "{shown}");
}

#[tokio::test]
async fn an_address_in_use_changes_nothing() {
    let holder = TcpListener::bind(ANY).unwrap();
    let held = holder.local_addr().unwrap().to_string();
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let (before, socket) = (fixture.agents(0), fixture.pixy.scratch.path("new.sock"));
    let unix = format!("unix:{}", socket.display());
    let more = json!({
        "agent": { "listen": [unix, held], "keys": coder() }, "link": "off", "limits": { "uri_bytes": 64 },
    });
    let error = fixture.reload(&more).await.unwrap_err();
    let text = fs::read_to_string(fixture.pixy.scratch.path("pixy.yaml")).unwrap();
    let line = text.lines().position(|line| line.contains(&held)).unwrap() + 1;
    assert!(error.contains(&format!("pixy.yaml:{line}:")) && error.contains("`agent.listen.1.address`"), "{error}");
    assert!(error.contains(&held) && error.contains("in use by another program"), "{error}");
    assert!(error.ends_with("the configuration before stays in force"), "{error}");
    assert!(!error.contains("nothing was started"), "{error}");
    assert_eq!(fixture.problem().await, error);
    let counted = metrics(&fixture.pixy).await;
    assert!(counted.contains("pixy_config_reloads_total{outcome=\"not_bound\"} 1"), "{counted}");
    assert!(counted.contains("pixy_config_last_reload_successful 0"), "{counted}");
    // No socket, no key and no limit of it, and the page is on.
    assert!(!socket.exists());
    assert_eq!((fixture.agents(0), hello(before).await), (before, 200));
    assert_eq!(fixture.pixy.get(&format!("/a?{}", "x".repeat(64))).await.status, 200);
    assert!(is_open(fixture.pixy.page()).await);
    drop(holder);
    fixture.reload(&more).await.unwrap();
    assert!(socket.exists() && !is_open(before).await);
}

#[tokio::test]
async fn a_listener_changed_in_place_needs_a_restart() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let path = fixture.pixy.scratch.path("agent.sock");
    let unix = format!("unix:{}", path.display());
    let fixed = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    let bound = |account: &str| json!({ "address": fixed.to_string(), "account": account });
    let socket = |mode: &str| json!({ "address": unix, "mode": mode });
    let listeners = |second: Value, third: Value| json!([ANY, second, third]);
    fixture.listen(&listeners(bound("a"), socket("0600"))).await.unwrap();
    let page = fixture.pixy.page();
    let cases = [
        ("another account", listeners(bound("b"), socket("0600")), fixed.to_string()),
        ("no account", listeners(json!(fixed.to_string()), socket("0600")), fixed.to_string()),
        ("another mode", listeners(bound("a"), socket("0660")), unix.clone()),
        ("an overlap", listeners(json!(format!("0.0.0.0:{}", fixed.port())), socket("0600")), fixed.to_string()),
        ("an overlap over IPv6", listeners(json!(format!("[::]:{}", fixed.port())), json!(ANY)), fixed.to_string()),
        ("the page's address", listeners(json!(page.to_string()), socket("0600")), page.to_string()),
    ];
    for (case, listen, held) in cases {
        let off = json!({ "agent": { "listen": listen, "keys": coder() }, "link": "off" });
        let error = fixture.reload(&off).await.unwrap_err();
        assert!(error.starts_with("What is changed needs a restart of Pixy: `agent.listen` "), "{case}: {error}");
        assert!(error.contains(&format!("(Pixy listens on {held})")), "{case}: {error}");
        assert!(error.ends_with("The configuration before stays in force."), "{case}: {error}");
        assert_eq!(fixture.problem().await, error);
        // Nothing of it applies: no key is needed, the page is on, and the bound listener serves its account.
        assert_eq!(hello(fixture.agents(0)).await, 200, "{case}");
        assert!(is_open(page).await && fixture.pixy.all_agents().len() == 3, "{case}");
        let get = "GET /v1/models HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n";
        assert_eq!(RawClient::once(fixed, get).await.unwrap().status, 200, "{case}");
        assert!(UnixStream::connect(&path).await.is_ok(), "{case}");
    }
    let counted = metrics(&fixture.pixy).await;
    assert!(counted.contains("pixy_config_reloads_total{outcome=\"restart\"} 6"), "{counted}");
    // An address that is not written in the file any more is free for the next reload.
    fixture.listen(&json!(ANY)).await.unwrap();
    fixture.listen(&json!([ANY, bound("b"), socket("0660")])).await.unwrap();
}

#[tokio::test]
async fn a_listener_that_stays_misses_no_connection() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let stays = fixture.agents(0);
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = [0, 1].map(|_| {
        let (over, count) = (Arc::clone(&over), Arc::clone(&count));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(hello(stays).await, 200);
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let mut reloads = 0;
    while reloads < 20 || (reloads < 2000 && count.load(Ordering::Relaxed) < 200) {
        let more = [json!(ANY), json!({ "address": ANY, "account": "a" })];
        fixture.listen(&json!(more[..=reloads % 2])).await.unwrap();
        assert_eq!((fixture.agents(0), fixture.pixy.all_agents().len()), (stays, 1 + reloads % 2));
        reloads += 1;
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        within(client).await.unwrap();
    }
    assert!(count.load(Ordering::Relaxed) >= 200);
}

#[tokio::test]
async fn a_removed_unix_socket_takes_its_file_along() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let path = fixture.pixy.scratch.path("agent.sock");
    let with_socket = json!([ANY, format!("unix:{}", path.display())]);
    fixture.listen(&with_socket).await.unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
    fixture.listen(&json!(ANY)).await.unwrap();
    assert!(!path.exists());
    // A file that has replaced the socket stays.
    fixture.listen(&with_socket).await.unwrap();
    fs::rename(&path, fixture.pixy.scratch.path("moved.sock")).unwrap();
    fs::write(&path, "another file").unwrap();
    fixture.listen(&json!(ANY)).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "another file");
}

#[tokio::test]
async fn a_client_of_a_removed_open_socket_still_needs_a_key() {
    // The reload removes the socket of mode 0666 and the keys: its connected clients must not gain access by that.
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let path = fixture.pixy.scratch.path("agent.sock");
    let open = json!([ANY, { "address": format!("unix:{}", path.display()), "mode": "0666" }]);
    fixture.reload(&json!({ "agent": { "listen": open, "keys": coder() } })).await.unwrap();
    let mut agent = UnixStream::connect(&path).await.unwrap();
    // Connections are accepted in order: after this answer the first one is accepted too.
    let mut second = UnixStream::connect(&path).await.unwrap();
    second.write_all(HELLO.as_bytes()).await.unwrap();
    within(second.read_u8()).await.unwrap();
    fixture.listen(&json!([ANY])).await.unwrap();
    assert_eq!(hello(fixture.agents(0)).await, 200, "the other listener needs no key any more");
    agent.write_all(HELLO.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(agent.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("agent_key_missing"), "{answer}");
}

#[tokio::test]
async fn the_page_and_the_probes_move() {
    let mut fixture = Fixture::new(&json!(ANY)).await;
    let (agents, page, ops) = (fixture.agents(0), fixture.pixy.page(), fixture.pixy.ops());
    let url = async |pixy: &Pixy| pixy.api(Method::POST, "/api/setup", Value::Null).await;
    // An open event stream of the page.
    let (_, shown) = url(&fixture.pixy).await;
    let code = shown["url"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let mut events = RawClient::connect(page).await;
    events.send(format!("GET /api/events HTTP/1.1\r\nHost: {page}\r\nAuthorization: Bearer {code}\r\n\r\n")).await;
    assert_eq!(events.head().await.unwrap().status, 200);

    let fixed = TcpListener::bind(ANY).unwrap().local_addr().unwrap().to_string();
    fixture.reload(&json!({ "link": "off", "ops": { "listen": fixed } })).await.unwrap();
    assert!(!is_open(page).await && !is_open(ops).await);
    assert_eq!((fixture.agents(0), hello(agents).await), (agents, 200));
    within(events.rest()).await;
    assert_eq!(url(&fixture.pixy).await.0, 409, "the page is off");
    assert_eq!(fixture.pixy.ops().to_string(), fixed);
    assert!(metrics(&fixture.pixy).await.contains("pixy_config_last_reload_successful 1"));

    fixture.reload(&json!({})).await.unwrap();
    let (_, shown) = url(&fixture.pixy).await;
    let moved = fixture.pixy.page();
    assert!(shown["url"].as_str().unwrap().starts_with(&format!("http://{moved}/#")), "{shown}");
    let get = format!("GET / HTTP/1.1\r\nHost: {moved}\r\nConnection: close\r\n\r\n");
    let answer = RawClient::once(moved, get).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(&moved.port().to_string()), "the page shows its address");
}

#[tokio::test]
async fn a_changed_mount_moves_a_listener_of_a_confined_pixy() {
    change_mount(1).await;
}

#[tokio::test]
async fn a_changed_mount_moves_a_listener_with_several_threads() {
    change_mount(4).await;
}

async fn change_mount(io_threads: u32) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let (scratch, elsewhere) = (Scratch::new(), Scratch::new());
    let with = |path: PathBuf| {
        let listen = json!([ANY, format!("unix:{}", path.display())]);
        json!({ "agent": { "listen": listen }, "limits": { "io_threads": io_threads } })
    };
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    // The layout of a mounted ConfigMap. Landlock allows the directory of the first two sockets, and not that of the third.
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
    let switch = |version: &str| {
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
    switch("..2");
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
    assert_eq!(program.get("/a").await.status, 200, "the other listener stays");

    switch("..3");
    let problem = async {
        loop {
            let shown = program.api(Method::GET, "/api/configuration").await.unwrap();
            if let Some(problem) = shown["problem"].as_str() {
                break problem.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if program.startup_output().contains("files are not limited") {
        return; // a kernel without Landlock
    }
    let problem = within(problem).await;
    assert!(problem.contains("3.sock") && problem.contains("that needs a restart"), "{problem}");
    assert!(UnixStream::connect(scratch.path("sockets/2.sock")).await.is_ok());
}
