//! Listeners: where Pixy is spoken to, and the loop that accepts.
//!
//! A connection speaks HTTP/1, behind `strict`, or HTTP/2 with prior knowledge. What is no request that means one thing only
//! reaches a surface as [`Refused`], whatever else the request may look like.

mod chunked;
mod descriptors;
mod entry;
mod framer;
mod head;
mod http2;
mod patient;
mod pulse;
mod refused;
mod strict;
mod target;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service;

use entry::Entry;
use pulse::Pulse;
use strict::{Protocol, Strict};

pub use descriptors::{Share, share};
pub use patient::Patient;
pub use pulse::{Switch, Switched};
pub use refused::Refused;

/// After a failed accept (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// hyper's read buffer is never smaller than this, and by default it takes so many fields.
const HYPERS_LEAST: usize = 8 * 1024;
const HYPERS_FIELDS: usize = 100;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP socket; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600 in a directory that exists.
    Unix(PathBuf),
}

/// A bound socket.
pub struct Listener {
    socket: Socket,
    address: Address,
    _file: Option<SocketFile>,
}

/// What a client may take of a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of agents at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Streams of one HTTP/2 connection at once.
    pub streams: u32,
    /// Bytes of a request's head, and of its trailers.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub header_fields: usize,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// A client that takes longer than this to send a request's head is let go.
    pub header_time: Duration,
    /// Without a byte of the request's body, without a byte of the answer being taken, or between two requests.
    pub idle_time: Duration,
    /// Open streams may go on this long after SIGTERM.
    pub drain_time: Duration,
}

/// How many connections, and requests under way, several listeners may have together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Capacity {
    connections: Arc<Semaphore>,
    exchanges: Arc<Semaphore>,
}

/// Who is at the other end, as the kernel says; in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user id of a Unix socket's peer.
    pub uid: Option<u32>,
    /// The address of a TCP socket's peer.
    pub address: Option<SocketAddr>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes the socket's file when the listener ends.
struct SocketFile(PathBuf);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams: 100,
            header_bytes: 64 * 1024,
            header_fields: 100,
            uri_bytes: 8 * 1024,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(2), // above the 90 s for which clients keep an idle connection at most
            drain_time: Duration::from_secs(20), // below the 30 s that Kubernetes and systemd leave
        }
    }
}

impl Capacity {
    /// So many connections, and as many requests under way.
    pub fn new(most: usize) -> Self {
        let semaphore = || Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { connections: semaphore(), exchanges: semaphore() }
    }
}

impl Address {
    /// Only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl Listener {
    /// Binds. A TCP port that somebody else holds is an error, never a reason to take another; a Unix socket that nobody
    /// answers on is a leftover and is replaced.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted).await?;
                let address = Address::Tcp(socket.local_addr()?);
                Ok(Self { socket: Socket::Tcp(socket), address, _file: None })
            }
            Address::Unix(path) => {
                remove_leftover(path).await?;
                let socket = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self { socket: Socket::Unix(socket), address: address.clone(), _file: Some(file) })
            }
        }
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer { uid: None, address: Some(address) }))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer { uid: Some(uid), address: None }))
            }
        }
    }
}

/// Accepts until `shutdown` becomes true, then lets open streams go on for `limits.drain_time`.
pub async fn serve<S, B>(
    listener: Listener,
    limits: Limits,
    capacity: Capacity,
    surface: S,
    mut shutdown: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                // The semaphore is never closed, so a permit always comes.
                let permit = Arc::clone(&capacity.connections).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = shutdown.wait_for(|&down| down) => break,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                let (surface, exchanges) = (surface.clone(), Arc::clone(&capacity.exchanges));
                let connection = connection(stream, peer, limits, exchanges, surface, shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, address = %listener.address, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.drain_time, drained).await;
}

async fn connection<S, B>(
    stream: Box<dyn Stream>,
    peer: Peer,
    limits: Limits,
    exchanges: Arc<Semaphore>,
    surface: S,
    mut shutdown: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let pulse = Pulse::new();
    let mut stream = Strict::new(stream, limits, Arc::clone(&pulse));
    let protocol = tokio::select! {
        protocol = stream.protocol() => protocol,
        _ = shutdown.wait_for(|&down| down) => return,
    };
    let Ok(protocol) = protocol else { return }; // it said nothing, or too little
    let entry =
        Entry { surface, peer, protocol, limits, pulse: Arc::clone(&pulse), exchanges, shutdown: shutdown.clone() };
    match protocol {
        Protocol::Http1 => {
            {
                let connection = http1(&limits).serve_connection(TokioIo::new(stream), entry).with_upgrades();
                tokio::pin!(connection);
                let down = tokio::select! {
                    result = &mut connection => {
                        finished(&result);
                        false
                    }
                    _ = shutdown.wait_for(|&down| down) => true,
                };
                if down {
                    connection.as_mut().graceful_shutdown();
                    finished(&connection.await);
                }
            }
            // Another protocol may go on on the same socket, in the hands of whoever began it.
            pulse.left().await;
        }
        Protocol::Http2 => {
            let connection = http2::builder(&limits).serve_connection(TokioIo::new(stream), entry);
            tokio::pin!(connection);
            let idle = tokio::select! {
                result = &mut connection => return finished(&result),
                _ = shutdown.wait_for(|&down| down) => false,
                () = pulse.idle(limits.idle_time) => true,
            };
            connection.as_mut().graceful_shutdown();
            if idle {
                // Nothing is under way; a client that does not even take our farewell is not waited for.
                let _ = tokio::time::timeout(limits.header_time, connection).await;
            } else {
                finished(&connection.await);
            }
        }
    }
}

/// The times and sizes of heads are `strict`'s; hyper's own must not be smaller.
fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(limits.header_bytes.max(HYPERS_LEAST) + HYPERS_LEAST);
    if limits.header_fields > HYPERS_FIELDS {
        builder.max_headers(limits.header_fields); // costs an allocation for every request, so only then
    }
    builder
}

fn finished(result: &hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early"); // a client that left, or did not speak HTTP
    }
}

async fn remove_leftover(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program answers on this socket"));
    }
    std::fs::remove_file(path)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // already gone is as good
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
