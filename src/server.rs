//! Listeners: where Pixy is spoken to, and the loop that accepts.
//!
//! A connection speaks HTTP/1, behind `strict`, or HTTP/2 with prior knowledge. What is no request that means one thing only
//! reaches a surface as [`Rejection`], whatever else the request may look like.
//!
//! Places are bounded (`Limits::connections`), and nobody keeps all of them by being slow: see `crowd`.
//!
//! A listener may end before Pixy does ([`Shutdown`]). Its limits may change too: for the connections from then on.

mod admission;
mod body_timeout;
mod connection;
mod fd_limit;
mod framing;
mod http2;
mod listener;
mod reject;
mod service;
mod stall;

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::Service;

use admission::{ConnectionLimit, FreePermit, Permit};
use connection::ConnectionState;
use framing::strict::{Protocol, Strict};
use listener::Stream;
use service::Entry;
use stall::StallTracker;

pub use body_timeout::TimeoutBody;
pub use connection::{Upgrade, Upgraded};
pub use fd_limit::{Share, share};
pub use listener::{Access, Address, Listener, Peer};
pub use reject::Rejection;

/// After a failed accept (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client of HTTP/2 whose place another needs has so long to take our GOAWAY.
const FAREWELL: Duration = Duration::from_millis(100);

/// hyper's read buffer is never smaller than this, and by default it takes so many fields.
const HYPERS_LEAST: usize = 8 * 1024;
const HYPERS_FIELDS: usize = 100;

/// What a client may take of a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of agents at once; for a further one, whoever has waited longest for its client goes.
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

/// How far a listener is on its way to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// It accepts.
    #[default]
    No,
    /// It accepts no more. What it has accepted goes on to its own end, however long that takes: a request that is under way, or
    /// the first one of a connection that is new, is answered. Then the connection ends.
    Closed,
    /// Pixy goes down: open streams may go on for [`Limits::drain_time`].
    GoingDown,
}

/// How many connections, and requests under way, several listeners may have together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Capacity {
    connections: Arc<ConnectionLimit>,
    exchanges: Arc<ConnectionLimit>,
}

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
        Self { connections: ConnectionLimit::new(most), exchanges: ConnectionLimit::new(most) }
    }

    /// So many from now on. Who is too much by that stays for as long as nobody else needs the place.
    pub fn resize(&self, most: usize) {
        self.connections.resize(most);
        self.exchanges.resize(most);
    }

    /// A place for a connection that was accepted. One of those goes whose client is waited for: an idle connection, or a
    /// stream, after which its connection is idle.
    async fn place(&self) -> Option<(Arc<ConnectionState>, Permit)> {
        self.connections.room(Some(&self.exchanges)).await.map(taken)
    }
}

/// Accepts until `shutdown` says otherwise, then lets open streams go on as that says. A connection keeps the limits with which
/// it came.
pub async fn serve<S, B>(
    listener: Listener,
    limits: watch::Receiver<Limits>,
    capacity: Capacity,
    surface: S,
    shutdown: watch::Receiver<Shutdown>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    let attend = {
        let (limits, exchanges, shutdown) = (limits.clone(), Arc::clone(&capacity.exchanges), shutdown.clone());
        move |stream, peer, (pulse, place)| {
            let limits = *limits.borrow();
            connection(stream, peer, limits, pulse, place, Arc::clone(&exchanges), surface.clone(), shutdown.clone())
        }
    };
    // Whose place is still to be had.
    let queue = |stream, peer| {
        let (capacity, attend) = (capacity.clone(), attend.clone());
        async move {
            if let Some(place) = capacity.place().await {
                Box::pin(attend(stream, peer, place)).await;
            }
        }
    };
    let mut ends = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = ended(&mut ends) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, address = %listener.address(), "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            biased;
            place = capacity.place() => place,
            () = ended(&mut ends) => None,
        };
        match place {
            Some(place) => connections.spawn(attend(stream, peer, place)),
            None => connections.spawn(queue(stream, peer)),
        };
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let too_long = async {
        going_down(&mut ends).await;
        let time = limits.borrow().drain_time;
        tokio::time::sleep(time).await;
    };
    tokio::select! {
        () = drained => {}
        () = too_long => {}
    }
}

fn taken(room: FreePermit) -> (Arc<ConnectionState>, Permit) {
    let pulse = ConnectionState::new();
    let place = room.taken_by(Arc::clone(pulse.waits()));
    (pulse, place)
}

/// Resolves when no more is to be accepted. Whoever could say so is gone: as if it had been said.
async fn ended(shutdown: &mut watch::Receiver<Shutdown>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown != Shutdown::No).await;
}

/// Resolves when a connection is to end: one that is new may ask first.
async fn is_to_end(shutdown: &mut watch::Receiver<Shutdown>, waits: &StallTracker) {
    ended(shutdown).await;
    tokio::select! {
        () = going_down(shutdown) => {}
        () = waits.begun() => {}
    }
}

/// Resolves when Pixy goes down.
async fn going_down(shutdown: &mut watch::Receiver<Shutdown>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown == Shutdown::GoingDown).await;
}

#[expect(clippy::too_many_arguments, reason = "one task, and every future around it would have its room twice")]
async fn connection<S, B>(
    stream: Box<dyn Stream>,
    peer: Peer,
    limits: Limits,
    pulse: Arc<ConnectionState>,
    _place: Permit,
    exchanges: Arc<ConnectionLimit>,
    surface: S,
    mut shutdown: watch::Receiver<Shutdown>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let waits = Arc::clone(pulse.waits());
    let mut stream = Strict::new(stream, limits, Arc::clone(&pulse));
    let protocol = tokio::select! {
        protocol = stream.protocol() => protocol,
        () = waits.gone() => return,
        () = going_down(&mut shutdown) => return,
    };
    let Ok(protocol) = protocol else { return }; // it said nothing, or too little
    let entry =
        Entry { surface, peer, protocol, limits, pulse: Arc::clone(&pulse), exchanges, shutdown: shutdown.clone() };
    match protocol {
        Protocol::Http1 => {
            {
                let connection = http1(&limits).serve_connection(TokioIo::new(stream), entry).with_upgrades();
                let mut connection = std::pin::pin!(connection);
                let down = tokio::select! {
                    result = &mut connection => {
                        finished(&result);
                        false
                    }
                    () = waits.gone() => return gone(),
                    () = is_to_end(&mut shutdown, &waits) => true,
                };
                if down {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        result = &mut connection => finished(&result),
                        () = waits.gone() => return gone(),
                    }
                }
            }
            // Another protocol may go on on the same socket, in the hands of whoever began it.
            pulse.left().await;
        }
        Protocol::Http2 => {
            // Boxed, for it would make the future of every connection larger.
            let mut connection = Box::pin(http2::builder(&limits).serve_connection(TokioIo::new(stream), entry));
            let farewell = tokio::select! {
                result = &mut connection => return finished(&result),
                () = is_to_end(&mut shutdown, &waits) => None,
                () = waits.idle(limits.idle_time) => Some(limits.header_time),
                () = waits.gone() => Some(FAREWELL),
            };
            connection.as_mut().graceful_shutdown();
            if let Some(time) = farewell {
                // Nothing is under way; a client that does not even take our farewell is not waited for.
                drop(tokio::time::timeout(time, connection).await);
                return;
            }
            tokio::select! {
                result = &mut connection => finished(&result),
                () = waits.gone() => gone(),
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

fn gone() {
    tracing::debug!("a connection whose client was waited for gave its place to another");
}
