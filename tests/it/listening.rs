//! Listening sockets: the accept queue, socket modes, and leftover files.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use futures_util::future;
use pixy::server::{Access, Address, Listener};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixSocket, UnixStream};

use crate::support::{Pixy, Scratch, TokenEndpoint, Upstream, oauth_account, within};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_accept_queue_holds_1024_connections() {
    // The default would be 128.
    const WAITING: usize = 1024;
    let scratch = Scratch::new();
    let tcp = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let unix = Listener::bind(&Address::Unix(scratch.path("agent.sock"))).await.unwrap();
    let (Address::Tcp(port), Address::Unix(path)) = (tcp.address(), unix.address()) else { unreachable!() };
    let waiting = within(future::try_join_all((0..WAITING).map(|_| TcpStream::connect(port)))).await.unwrap();
    let beside = within(future::try_join_all((0..WAITING).map(|_| UnixStream::connect(path)))).await.unwrap();
    assert_eq!((waiting.len(), beside.len()), (WAITING, WAITING));
}

#[tokio::test]
async fn a_unix_socket_has_the_mode_of_its_access() {
    let scratch = Scratch::new();
    let path = scratch.path("agent.sock");
    let address = Address::Unix(path.clone());
    drop(Listener::bind(&address).await.unwrap());
    for (access, expected) in [(Access::Owner, 0o600), (Access::Group, 0o660), (Access::Everybody, 0o666)] {
        let listener = Listener::bind_with_access(&address, access).await.unwrap();
        assert_eq!(mode(&path), expected, "{access:?}");
        UnixStream::connect(&path).await.unwrap();
        // A socket with a listening process is not replaced, whatever its mode.
        assert!(Listener::bind(&address).await.is_err());
        drop(listener);
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn only_a_leftover_socket_is_replaced() {
    let scratch = Scratch::new();
    let refused = async |name: &str| {
        let bound = Listener::bind(&Address::Unix(scratch.path(name))).await;
        bound.err().unwrap_or_else(|| panic!("{name} was replaced")).kind()
    };
    scratch.write("key", "a key file, configured as a socket by mistake");
    std::os::unix::fs::symlink(scratch.path("key"), scratch.path("link")).unwrap();
    for name in ["key", "link", ""] {
        assert_eq!(refused(name).await, ErrorKind::AlreadyExists, "{name}");
    }
    assert!(fs::read_to_string(scratch.path("key")).unwrap().starts_with("a key file"));

    // A listening process whose accept queue is full.
    let busy = UnixSocket::new_stream().unwrap();
    busy.bind(scratch.path("busy")).unwrap();
    let _busy = busy.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(one) = UnixStream::connect(scratch.path("busy")).await {
        waiting.push(one);
        assert!(waiting.len() < 10, "the queue has no bound");
    }
    assert_eq!(refused("busy").await, ErrorKind::AddrInUse);

    drop(std::os::unix::net::UnixListener::bind(scratch.path("left")).unwrap());
    assert!(scratch.path("left").exists());
    Listener::bind(&Address::Unix(scratch.path("left"))).await.unwrap();
}

/// Pixy with this entry as a second agent listener.
async fn with_listener(entry: &Value) -> Pixy {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let listen = json!(["127.0.0.1:0", entry]);
    Pixy::with(&json!({ "a": oauth_account(&endpoint, &upstream) }), &json!({ "agent": { "listen": listen } })).await
}

#[tokio::test]
async fn mode_0660_admits_the_group_and_the_default_only_the_owner() {
    let shared = Scratch::new(); // like a volume that two containers mount
    let socket = shared.path("agent.sock");
    let address = format!("unix:{}", socket.display());
    let pixy = with_listener(&json!({ "address": address, "mode": "0660" })).await;
    assert_eq!(mode(&socket), 0o660);
    assert_eq!(mode(&pixy.scratch.path("state/control.sock")), 0o600);
    let mut agent = UnixStream::connect(&socket).await.unwrap();
    agent.write_all(b"GET /a HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(agent.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(pixy);

    let private = shared.path("private.sock");
    for entry in
        [json!(format!("unix:{}", private.display())), json!({ "address": format!("unix:{}", private.display()) })]
    {
        let pixy = with_listener(&entry).await;
        assert_eq!(mode(&private), 0o600);
        pixy.stop().await.unwrap();
    }
}
