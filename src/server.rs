//! Listeners: where Pixy is spoken to, and the loop that accepts.

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
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::Service;

/// A client that takes longer than this to send a request's head is let go (slow loris).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Larger heads are answered with 431.
const LARGEST_HEAD: usize = 64 * 1024;

/// After a failed accept (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

/// How a surface is served.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long open streams may go on after shutdown.
    pub drain: Duration,
}

/// Who is at the other end, as the kernel says; in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user id of a Unix socket's peer.
    pub uid: Option<u32>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes the socket's file when the listener ends.
struct SocketFile(PathBuf);

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
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer { uid: None }))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer { uid: Some(uid) }))
            }
        }
    }
}

/// Accepts until `shutdown` becomes true, then lets open streams go on for `settings.drain`.
pub async fn serve<S, B>(listener: Listener, settings: Settings, service: S, mut shutdown: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(settings.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = async {
                // The semaphore is never closed, so a permit always comes.
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, listener.accept().await)
            } => accepted,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            _ = shutdown.wait_for(|&down| down) => break,
        };
        match accepted {
            (permit, Ok((stream, peer))) => {
                let connection = connection(stream, peer, service.clone(), shutdown.clone());
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
    let _ = tokio::time::timeout(settings.drain, drained).await;
}

async fn connection<S, B>(stream: Box<dyn Stream>, peer: Peer, service: S, mut shutdown: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = tower::ServiceBuilder::new()
        .map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        })
        .service(service);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        result = &mut connection => return finished(&result),
        _ = shutdown.wait_for(|&down| down) => connection.as_mut().graceful_shutdown(),
    }
    finished(&connection.await);
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
