//! Connections, kept and shared.
//!
//! For each origin (RFC 9110 §4.3.1) a line of waiting requests, and three rules: a request takes what is free, or waits; what
//! becomes free goes to whoever waits longest; connections are made for as many as wait, not for each. So 300 requests
//! at once open three connections that carry 100 streams each, or 300 that carry one each.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::{PathAndQuery, Scheme};
use hyper::client::conn::http2;
use hyper_util::client::legacy::connect::Connection as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::body::Outbound;
use super::dial::{self, Dialler};
use super::h1::{self, Http1};
use super::h2::{self, Http2, Slot};
use super::idle::{self, Idle};
use super::{BoxError, SendError, Tuning};

/// All origins.
pub(super) struct Pool {
    /// A handful: one for each host of a provider.
    origins: Mutex<Vec<Arc<Origin>>>,
    dialler: Arc<Dialler>,
    tuning: Tuning,
}

/// The right to send one request on a connection.
pub(super) enum Lease {
    Http1(Http1),
    Http2(Http2),
}

/// The connections to one origin, and who waits for one.
pub(super) struct Origin {
    me: Weak<Self>,
    uri: Uri,
    dialler: Arc<Dialler>,
    pub(super) tuning: Tuning,
    /// Held for moments, never across an await.
    line: Mutex<Line>,
}

struct Line {
    waiting: VecDeque<oneshot::Sender<Result<Lease, SendError>>>,
    shared: Vec<Shared>,
    /// HTTP/1.1 connections that nobody uses.
    idle: Idle,
    dialling: usize,
    /// How many requests one connection is expected to carry.
    each: usize,
    next_id: u64,
}

/// An HTTP/2 connection.
struct Shared {
    id: u64,
    sender: http2::SendRequest<Outbound>,
    open: usize,
    limit: usize,
    used: bool,
    idle_since: Instant,
}

impl Pool {
    pub(super) fn new(dialler: Arc<Dialler>, tuning: Tuning) -> Self {
        Self { origins: Mutex::default(), dialler, tuning }
    }

    /// The origin of a URI, if it may be dialled: that is judged once, when it is first asked for.
    pub(super) fn origin(&self, uri: &Uri) -> Result<Arc<Origin>, SendError> {
        let no_host = || SendError::Unreachable("no host".into());
        let (scheme, authority) = (uri.scheme().ok_or_else(no_host)?, uri.authority().ok_or_else(no_host)?);
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |origin: &&Arc<Origin>| origin.uri.authority() == Some(authority) && origin.uri.scheme() == Some(scheme);
        if let Some(known) = origins.iter().find(is_it) {
            return Ok(Arc::clone(known));
        }
        dial::check(uri)?;
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        let uri = Uri::from_parts(parts).expect("scheme, authority and path are there");
        let new = Origin::new(uri, Arc::clone(&self.dialler), self.tuning.clone());
        origins.push(Arc::clone(&new));
        Ok(new)
    }
}

impl Origin {
    fn new(uri: Uri, dialler: Arc<Dialler>, tuning: Tuning) -> Arc<Self> {
        // Over TLS a server may speak HTTP/2, and most do: the first connection is expected to.
        let each = if uri.scheme() == Some(&Scheme::HTTPS) { MAX_STREAMS } else { 1 };
        let (waiting, shared, idle) = (VecDeque::new(), Vec::new(), Idle::default());
        let line = Mutex::new(Line { waiting, shared, idle, dialling: 0, each, next_id: 0 });
        Arc::new_cyclic(|me| Self { me: Weak::clone(me), uri, dialler, tuning, line })
    }

    /// A connection with room for a request, as soon as there is one.
    pub(super) async fn lease(&self) -> Result<Lease, SendError> {
        let (waiting, dials) = {
            let mut line = self.line();
            if let Some(lease) = line.take(self) {
                return Ok(lease);
            }
            let (sender, receiver) = oneshot::channel();
            line.waiting.push_back(sender);
            (receiver, line.dials_to_begin())
        };
        self.dial(dials);
        waiting.await.unwrap_or_else(|_| Err(SendError::Unreachable("the pool was taken down".into())))
    }

    /// Whoever waits gets what is free; what is still missing is dialled.
    fn serve(&self) {
        let mut served = Vec::new();
        let dials = {
            let mut line = self.line();
            while let Some(first) = line.waiting.pop_front() {
                if first.is_closed() {
                    continue;
                }
                let Some(lease) = line.take(self) else {
                    line.waiting.push_front(first);
                    break;
                };
                served.push((first, lease));
            }
            line.dials_to_begin()
        };
        for (first, lease) in served {
            // Gone in this moment: an HTTP/2 slot frees itself, a connection goes back.
            if let Err(Ok(Lease::Http1(connection))) = first.send(Ok(lease)) {
                self.park(connection);
            }
        }
        self.dial(dials);
    }

    /// Connections belong to all who wait, so no request's end cancels one that is being made.
    fn dial(&self, count: usize) {
        for _ in 0..count {
            let Some(origin) = self.me.upgrade() else { return };
            tokio::spawn(async move {
                if let Err(error) = origin.connect().await {
                    origin.failed(error);
                }
            });
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<(), BoxError> {
        let stream = self.dialler.dial(&self.uri).await?;
        if stream.connected().is_negotiated_h2() {
            h2::open(self, stream, self.dialler.timeout).await
        } else {
            let connection = h1::open(self, stream).await?;
            {
                let mut line = self.line();
                line.dialling -= 1;
                line.each = 1;
            }
            self.park(connection);
            Ok(())
        }
    }

    /// So many of those who wait have lost what they waited for.
    fn failed(&self, error: BoxError) {
        let error = Arc::new(error);
        let failed: Vec<_> = {
            let mut line = self.line();
            line.dialling -= 1;
            let count = line.each.min(line.waiting.len());
            line.waiting.drain(..count).collect()
        };
        for waiting in failed {
            let _ = waiting.send(Err(SendError::Unreachable(Box::new(OneForMany(Arc::clone(&error))))));
        }
        self.serve();
    }

    /// A number for a connection.
    pub(super) fn number(&self) -> u64 {
        let mut line = self.line();
        line.next_id += 1;
        line.next_id
    }

    /// An HTTP/1.1 connection is free.
    pub(super) fn park(&self, connection: Http1) {
        if self.line().idle.put(connection) {
            tokio::spawn(idle::keep(Weak::clone(&self.me)));
        }
        self.serve();
    }

    /// Looks at the HTTP/1.1 connections that nobody uses; `Pending` while there are some.
    pub(super) fn poll_idle(&self, context: &mut Context<'_>) -> Poll<()> {
        self.line().idle.poll(context)
    }

    /// An HTTP/2 connection is there. It carries one stream until its server has said how many it allows.
    pub(super) fn admit(&self, id: u64, sender: http2::SendRequest<Outbound>) {
        let new = Shared { id, sender, open: 0, limit: 1, used: false, idle_since: Instant::now() };
        self.line().shared.push(new);
        self.serve();
    }

    /// The server's first word on its limit: from now on the connection counts as made.
    pub(super) fn opened(&self, id: u64, streams: u32) {
        {
            let mut line = self.line();
            line.dialling -= 1;
            line.each = limit(streams).max(1);
        }
        self.limited(id, streams);
    }

    /// The server allows so many streams.
    pub(super) fn limited(&self, id: u64, streams: u32) {
        if let Some(shared) = self.line().shared.iter_mut().find(|shared| shared.id == id) {
            shared.limit = limit(streams);
        }
        self.serve();
    }

    /// A stream has ended.
    pub(super) fn freed(&self, id: u64) {
        let wanted = {
            let mut line = self.line();
            if let Some(shared) = line.shared.iter_mut().find(|shared| shared.id == id) {
                shared.open -= 1;
                shared.idle_since = Instant::now();
            }
            !line.waiting.is_empty()
        };
        if wanted {
            self.serve();
        }
    }

    /// An HTTP/2 connection takes no new streams; those on it may end.
    pub(super) fn retire(&self, id: u64) {
        let gone = {
            let mut line = self.line();
            let index = line.shared.iter().position(|shared| shared.id == id);
            index.map(|index| line.shared.swap_remove(index))
        };
        drop(gone);
    }

    /// Whether an HTTP/2 connection was unused for too long and is retired; otherwise when to ask again.
    pub(super) fn retired_idle(&self, id: u64) -> Result<(), Instant> {
        let now = Instant::now();
        let mut line = self.line();
        match line.shared.iter().position(|shared| shared.id == id) {
            Some(index) if line.shared[index].open > 0 => Err(now + self.tuning.idle),
            Some(index) if line.shared[index].idle_since + self.tuning.idle > now => {
                Err(line.shared[index].idle_since + self.tuning.idle)
            }
            Some(index) => {
                line.shared.swap_remove(index);
                Ok(())
            }
            None => Err(now + self.tuning.idle),
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn take(&mut self, origin: &Origin) -> Option<Lease> {
        let free = |shared: &&mut Shared| shared.open < shared.limit && !shared.sender.is_closed();
        if let Some(shared) = self.shared.iter_mut().find(free) {
            shared.open += 1;
            let reused = std::mem::replace(&mut shared.used, true);
            let slot = Slot::new(origin.me.upgrade()?, shared.id);
            return Some(Lease::Http2(Http2::new(shared.sender.clone(), slot, reused)));
        }
        self.idle.take().map(Lease::Http1)
    }

    /// How many connections are missing for those who wait; they count as being dialled from now on.
    fn dials_to_begin(&mut self) -> usize {
        if self.waiting.len() > self.dialling * self.each {
            self.waiting.retain(|waiting| !waiting.is_closed());
        }
        let missing = self.waiting.len().div_ceil(self.each).saturating_sub(self.dialling);
        self.dialling += missing;
        missing
    }
}

fn limit(streams: u32) -> usize {
    usize::try_from(streams).map_or(MAX_STREAMS, |streams| streams.min(MAX_STREAMS))
}

/// Why a connection could not be made, told to each that waited for it.
#[derive(Debug)]
struct OneForMany(Arc<BoxError>);

impl fmt::Display for OneForMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OneForMany {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The most streams on one connection, whatever its server allows: what real servers allow, and as much as one broken
/// connection may take down.
const MAX_STREAMS: usize = 100;

/// When a connection that nobody uses is closed: below the usual 60 s of load balancers, so that we close first.
pub(super) const IDLE: Duration = Duration::from_secs(50);
