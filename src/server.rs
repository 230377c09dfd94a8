//! Listeners, and the loop that accepts and serves their connections.
//!
//! A connection carries HTTP/1.1, and another protocol only after an upgrade. `framing` checks every byte before hyper parses it:
//! a request that is malformed or has two readings becomes a [`Rejection`], which the [`Surface`] answers, and the connection
//! closes. The preface of HTTP/2 is such a request.
//!
//! The number of connections is limited ([`ConnectionLimit`]), and slow clients cannot keep all of them: see `admission`. What they
//! keep in memory is limited too: see `memory`.
//!
//! A listener may shut down before the process does ([`Shutdown`]). Its limits may change: for connections that it accepts later.

mod admission;
mod body_timeout;
mod buffers;
mod capacity;
mod connection;
mod fd_limit;
mod framing;
mod host;
mod limits;
mod listener;
mod rejection;
mod service;
mod shutdown;
mod stall;
mod surface;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use admission::Permit;
use buffers::Buffers;
use connection::ConnectionState;
use framing::strict::Strict;
use listener::Stream;
use service::ConnectionService;

pub use admission::{ConnectionLimit, ConnectionMemory, Transfers};
pub use body_timeout::TimeoutBody;
pub use capacity::{BASELINE, Bound, Capacity, LEAST_MEMORY};
pub use connection::{Upgrade, Upgraded};
pub use host::{HostChecked, HostNames};
pub use limits::ServerLimits;
pub use listener::{Access, Address, Listener, PassedSocket, Peer};
pub use rejection::Rejection;
pub use shutdown::Shutdown;
pub use surface::Surface;

/// The pause after an error of accept(2), such as EMFILE.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// hyper's minimum size of the read buffer, and its default maximum of fields.
const HYPER_MIN_BUFFER: usize = 8 * 1024;
const HYPER_DEFAULT_FIELDS: usize = 100;

/// Accepts connections and serves them until `shutdown`, then lets open exchanges end as [`Shutdown`] says. A connection keeps the
/// limits that were current when it was accepted.
pub async fn serve<S: Surface>(
    listener: Listener,
    surface: S,
    limits: watch::Receiver<ServerLimits>,
    connection_limit: ConnectionLimit,
    shutdown: watch::Receiver<Shutdown>,
) {
    let mut server = Server { surface: Arc::new(surface), limits, connection_limit, shutdown };
    let mut connections = JoinSet::new();
    while let Some((stream, peer)) = server.accept(&listener, &mut connections).await {
        let connection = server.connection(stream, peer);
        match server.permit().await {
            Some(permit) => connections.spawn(connection.run(permit)),
            None => connections.spawn(connection.run_when_permitted(server.connection_limit.clone())),
        };
    }
    drop(listener);
    server.drain(connections).await;
}

/// What the connections of one listener share.
struct Server<S> {
    surface: Arc<S>,
    limits: watch::Receiver<ServerLimits>,
    connection_limit: ConnectionLimit,
    shutdown: watch::Receiver<Shutdown>,
}

/// One accepted connection.
struct Connection<S> {
    stream: Box<dyn Stream>,
    peer: Peer,
    limits: ServerLimits,
    surface: Arc<S>,
    shutdown: watch::Receiver<Shutdown>,
}

impl<S: Surface> Server<S> {
    /// The next connection; `None` once the listener shuts down. Meanwhile reaps the tasks of connections that have ended.
    async fn accept(&mut self, listener: &Listener, connections: &mut JoinSet<()>) -> Option<(Box<dyn Stream>, Peer)> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown::of_listener(&mut self.shutdown) => return None,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(error) => {
                    tracing::warn!(%error, address = %listener.address(), "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// A permit for a connection; `None` if the listener shuts down first.
    async fn permit(&mut self) -> Option<Permit> {
        tokio::select! {
            biased;
            permit = self.connection_limit.acquire() => Some(permit),
            () = shutdown::of_listener(&mut self.shutdown) => None,
        }
    }

    fn connection(&self, stream: Box<dyn Stream>, peer: Peer) -> Connection<S> {
        let (surface, shutdown) = (Arc::clone(&self.surface), self.shutdown.clone());
        Connection { stream, peer, limits: *self.limits.borrow(), surface, shutdown }
    }

    /// Waits for all connections to end, for `drain_time` once the process shuts down. Those that are left are aborted.
    async fn drain(mut self, mut connections: JoinSet<()>) {
        let all_ended = async { while connections.join_next().await.is_some() {} };
        let timeout = async {
            shutdown::of_process(&mut self.shutdown).await;
            let drain_time = self.limits.borrow().drain_time;
            tokio::time::sleep(drain_time).await;
        };
        tokio::select! {
            () = all_ended => {}
            () = timeout => {}
        }
    }
}

impl<S: Surface> Connection<S> {
    async fn run_when_permitted(self, connection_limit: ConnectionLimit) {
        let permit = connection_limit.acquire().await;
        Box::pin(self.run(permit)).await; // boxed, for the outer future would contain it twice
    }

    /// Serves the connection to its end, and holds its permit as long.
    async fn run(self, permit: Permit) {
        let Self { stream, peer, limits, surface, mut shutdown } = self;
        let stall = permit.stall();
        // Before hyper, which allocates its buffer for the first read: a silent connection costs little.
        tokio::select! {
            biased;
            () = first_byte(stream.as_ref()) => {}
            () = stall.evicted() => return,
            () = shutdown::of_process(&mut shutdown) => return,
            () = tokio::time::sleep(limits.header_time) => return,
        }
        let state = ConnectionState::new(Arc::clone(stall));
        let facts = surface.connect(peer).await;
        let memory = Buffers::new(permit.limit().clone());
        let stream = TokioIo::new(Strict::new(stream, limits, Arc::clone(&state), memory));
        let service = ConnectionService {
            surface,
            facts,
            state: Arc::clone(&state),
            shutdown: shutdown.clone(),
            limit: permit.limit().clone(),
        };
        {
            let mut http = std::pin::pin!(http1(&limits).serve_connection(stream, service).with_upgrades());
            let mut drains = false;
            loop {
                tokio::select! {
                    result = &mut http => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "a connection ended early"); // the client left, or a framing error
                        }
                        break;
                    }
                    () = stall.evicted() => {
                        tracing::debug!("a stalled connection was evicted for a new one");
                        return;
                    }
                    () = shutdown::of_connection(&mut shutdown, stall), if !drains => {
                        drains = true;
                        http.as_mut().graceful_shutdown();
                    }
                }
            }
        }
        // The task that upgraded the connection still uses it, and evicts it.
        state.upgrade_ended().await;
    }
}

/// Resolves when the first byte can be read; also at the end of the connection, which the first read then returns.
async fn first_byte(stream: &dyn Stream) {
    let _ = std::future::poll_fn(|context| stream.poll_readable(context)).await;
}

/// `Strict` applies the limits and timeouts of heads; hyper's own must not be lower.
fn http1(limits: &ServerLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(limits.header_bytes.max(HYPER_MIN_BUFFER) + HYPER_MIN_BUFFER);
    if limits.header_fields > HYPER_DEFAULT_FIELDS {
        builder.max_headers(limits.header_fields); // costs an allocation for every request, so only then
    }
    builder
}
