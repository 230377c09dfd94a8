//! The clients of a flood: each connects, does its harm until it is disconnected, and connects again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::HOSTILE;

/// What the clients do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flood {
    /// A byte of a head from time to time.
    SlowHeads,
    /// A byte of a body from time to time.
    SlowBodies,
    /// Ask for long responses, and do not read them.
    SlowReaders,
    /// Send bodies that Pixy keeps for a second try, to an upstream that does not answer.
    KeptBodies,
    /// A hundred requests at once.
    Pipelining,
    /// Connect, and nothing more.
    Connections,
    /// The longest paths.
    Paths,
    /// The most and largest fields, whole and unfinished in turn.
    Fields,
    /// WebSockets that send nothing.
    WebSockets,
}

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Agents,
    Page,
    Ops,
}

/// A flood that runs until it is dropped.
pub(super) struct Running(tokio::runtime::Runtime);

/// A trickle's pause.
const TRICKLE: Duration = Duration::from_millis(200);

/// Starts so many clients, on a thread of their own. Each connects again after `pause`.
pub(super) fn start(flood: Flood, address: SocketAddr, clients: usize, pause: Duration) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bytes: Arc<[Vec<u8>; 2]> = Arc::new([opening(flood, false), opening(flood, true)]);
    for client in 0..clients {
        let bytes = Arc::clone(&bytes);
        runtime.spawn(async move {
            loop {
                let _ = tokio::time::timeout(Duration::from_secs(30), attack(flood, address, &bytes[client % 2])).await;
                tokio::time::sleep(pause).await;
            }
        });
    }
    Running(runtime)
}

impl Running {
    pub(super) fn stop(self) {
        self.0.shutdown_background();
    }
}

/// One connection, until Pixy closes it.
async fn attack(flood: Flood, address: SocketAddr, opening: &[u8]) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    if let Flood::SlowReaders | Flood::Pipelining = flood {
        socket.set_recv_buffer_size(4096)?;
    }
    let mut stream = socket.connect(address).await?;
    stream.write_all(opening).await?;
    match flood {
        Flood::SlowReaders | Flood::Pipelining => loop {
            // A write fails once the connection is closed; reading would make room.
            tokio::time::sleep(TRICKLE).await;
            if is_closed(&stream) {
                return Ok(());
            }
        },
        Flood::SlowHeads | Flood::SlowBodies => {
            let (mut reading, mut writing) = stream.split();
            let trickle = async {
                loop {
                    tokio::time::sleep(TRICKLE).await;
                    if writing.write_all(b"x").await.is_err() {
                        return;
                    }
                }
            };
            let mut space = [0; 1024];
            tokio::select! {
                () = trickle => {}
                _ = reading.read(&mut space) => {}
            }
            Ok(())
        }
        _ => {
            let mut space = [0; 4096];
            while stream.read(&mut space).await? > 0 {}
            Ok(())
        }
    }
}

/// Whether the peer has reset the connection.
fn is_closed(stream: &TcpStream) -> bool {
    !matches!(stream.take_error(), Ok(None)) || stream.peer_addr().is_err()
}

/// The bytes that a client sends at once; `other` is for every second client.
fn opening(flood: Flood, other: bool) -> Vec<u8> {
    let key = format!("Host: pixy\r\nx-api-key: {HOSTILE}\r\n");
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\n{key}{more}\r\n");
    let text = match flood {
        Flood::Connections => String::new(),
        Flood::SlowHeads => format!("GET /a/v1/models HTTP/1.1\r\n{key}X-Slow: "),
        Flood::SlowBodies => format!("POST /a/v1/messages HTTP/1.1\r\n{key}Content-Length: 100000\r\n\r\n{{"),
        // The page and ops have no such path: there it is an error, and `/metrics` the longest answer.
        Flood::SlowReaders => get("/a/v1/models/long", "") + &get("/metrics", "").repeat(200),
        Flood::KeptBodies => {
            let body = "x".repeat(1_000_000);
            format!("POST /a/v1/messages HTTP/1.1\r\n{key}Content-Length: {}\r\n\r\n{body}", body.len())
        }
        Flood::Pipelining => get(if other { "/a/v1/models" } else { "/livez" }, "").repeat(100),
        Flood::Paths => get(&format!("/a/v1/{}", "p".repeat(8000)), ""),
        Flood::Fields => {
            let fields: String = (0..97).map(|at| format!("X-{at}: {}\r\n", "f".repeat(640))).collect();
            let whole = get("/a/v1/models", &fields);
            if other { whole } else { whole[..whole.len() - 2].to_owned() }
        }
        Flood::WebSockets => get(
            "/a/v1/responses",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    };
    text.into_bytes()
}
