//! The connection pool.
//!
//! Each origin (RFC 9110 §4.3.1) has a queue of waiting requests, and three rules: a request takes free capacity, or waits; capacity
//! that becomes free goes to the request that has waited longest; connections are opened for the number of waiting requests, not one
//! for each. So 300 concurrent requests open three connections that carry 100 streams each, or 300 that carry one each.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::Poll;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::Connection as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::dial::{self, Dialer};
use super::h1::{self, Http1, Http1Pool};
use super::h2::{self, Http2, Http2Pool, StreamPermit};
use super::idle::IdleConnections;
use super::{BoxError, SendError, Tuning, innermost};
use crate::lock::lock;

/// All origins.
pub(super) struct Pool {
    /// Few: one for each host of a provider.
    origins: Mutex<Vec<Arc<Origin>>>,
    dialer: Arc<Dialer>,
    tuning: Tuning,
}

/// The right to send one request on a connection.
pub(super) enum Lease {
    Http1(Http1),
    Http2(Http2),
}

/// The connections to one origin, and the requests that wait for one.
pub(super) struct Origin {
    me: Weak<Self>,
    uri: Uri,
    dialer: Arc<Dialer>,
    tuning: Tuning,
    /// Never locked across an await.
    state: Mutex<OriginState>,
}

struct OriginState {
    /// Longest first.
    waiting: VecDeque<oneshot::Sender<Result<Lease, SendError>>>,
    http2: Vec<Http2Connection>,
    /// HTTP/1.1 connections.
    idle: IdleConnections,
    /// Connections that are being opened.
    dialing: usize,
    /// How many requests one connection is expected to carry.
    per_connection: usize,
    next_id: u64,
}

/// An HTTP/2 connection.
struct Http2Connection {
    id: u64,
    sender: h2::Sender,
    /// Streams in progress.
    open: usize,
    /// The most streams.
    limit: usize,
    used: bool,
    idle_since: Instant,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>, tuning: Tuning) -> Self {
        Self { origins: Mutex::default(), dialer, tuning }
    }

    /// The origin of a URI. Checks once, when it is first used, that it may be dialed.
    pub(super) fn origin(&self, uri: &Uri) -> Result<Arc<Origin>, SendError> {
        let no_host = || SendError::Unreachable("no host".into());
        let (scheme, authority) = (uri.scheme().ok_or_else(no_host)?, uri.authority().ok_or_else(no_host)?);
        let mut origins = lock(&self.origins);
        let is_same =
            |origin: &&Arc<Origin>| origin.uri.authority() == Some(authority) && origin.uri.scheme() == Some(scheme);
        if let Some(known) = origins.iter().find(is_same) {
            return Ok(Arc::clone(known));
        }
        dial::check(uri)?;
        let parts = Uri::builder().scheme(scheme.clone()).authority(authority.clone()).path_and_query("/");
        let uri = parts.build().expect("scheme, authority and path are there");
        let new = Origin::new(uri, Arc::clone(&self.dialer), self.tuning.clone());
        origins.push(Arc::clone(&new));
        Ok(new)
    }
}

impl Origin {
    fn new(uri: Uri, dialer: Arc<Dialer>, tuning: Tuning) -> Arc<Self> {
        // Over TLS most servers speak HTTP/2: the first connection is expected to.
        let per_connection = if uri.scheme() == Some(&Scheme::HTTPS) { MAX_STREAMS } else { 1 };
        let (waiting, http2, idle) = (VecDeque::new(), Vec::new(), IdleConnections::default());
        let state = Mutex::new(OriginState { waiting, http2, idle, dialing: 0, per_connection, next_id: 0 });
        Arc::new_cyclic(|me| Self { me: Weak::clone(me), uri, dialer, tuning, state })
    }

    /// Waits for a connection that can carry a request.
    pub(super) async fn lease(&self) -> Result<Lease, SendError> {
        let (waiting, dials) = {
            let mut state = self.state();
            if let Some(lease) = state.take(self) {
                return Ok(lease);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            (receiver, state.dials_to_begin())
        };
        self.dial(dials);
        waiting.await.unwrap_or_else(|_| Err(SendError::Unreachable("the pool was dropped".into())))
    }

    /// Gives free capacity to the waiting requests, and opens the connections that are still missing.
    fn serve(&self) {
        let mut served = Vec::new();
        let dials = {
            let mut state = self.state();
            while let Some(first) = state.waiting.pop_front() {
                if first.is_closed() {
                    continue;
                }
                let Some(lease) = state.take(self) else {
                    state.waiting.push_front(first);
                    break;
                };
                served.push((first, lease));
            }
            state.dials_to_begin()
        };
        for (first, lease) in served {
            // The request was cancelled just now: a stream permit frees itself, a connection returns.
            if let Err(Ok(Lease::Http1(connection))) = first.send(Ok(lease)) {
                self.park(connection);
            }
        }
        self.dial(dials);
    }

    /// Opens connections in tasks of their own: they serve any waiting request, so the end of one must not cancel them.
    fn dial(&self, count: usize) {
        for _ in 0..count {
            let Some(origin) = self.me.upgrade() else { return };
            tokio::spawn(async move {
                if let Err(error) = origin.connect().await {
                    origin.fail_waiters(&error);
                }
            });
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<(), BoxError> {
        let stream = self.dialer.dial(&self.uri).await?;
        if stream.connected().is_negotiated_h2() {
            h2::open(Arc::<Self>::clone(self), stream, &self.tuning, self.dialer.timeout).await
        } else {
            let connection = h1::open(Weak::<Self>::clone(&self.me), stream, self.tuning.idle).await?;
            {
                let mut state = self.state();
                state.dialing -= 1;
                state.per_connection = 1;
            }
            self.park(connection);
            Ok(())
        }
    }

    /// Fails the waiters of this dial.
    fn fail_waiters(&self, error: &BoxError) {
        let reason = innermost(error.as_ref()).to_string();
        let failed: Vec<_> = {
            let mut state = self.state();
            state.dialing -= 1;
            let count = state.per_connection.min(state.waiting.len());
            state.waiting.drain(..count).collect()
        };
        for waiting in failed {
            let _ = waiting.send(Err(SendError::Unreachable(reason.as_str().into())));
        }
        self.serve();
    }

    fn state(&self) -> MutexGuard<'_, OriginState> {
        lock(&self.state)
    }
}

impl Http1Pool for Origin {
    fn park(&self, connection: Http1) {
        if self.state().idle.put(connection) {
            tokio::spawn(poll_idle(Weak::clone(&self.me)));
        }
        self.serve();
    }
}

impl Http2Pool for Origin {
    fn next_id(&self) -> u64 {
        let mut state = self.state();
        state.next_id += 1;
        state.next_id
    }

    fn add(&self, id: u64, sender: h2::Sender) {
        let new = Http2Connection { id, sender, open: 0, limit: 1, used: false, idle_since: Instant::now() };
        self.state().http2.push(new);
        self.serve();
    }

    fn confirm(&self, id: u64, max_streams: u32) {
        {
            let mut state = self.state();
            state.dialing -= 1;
            state.per_connection = limit(max_streams).max(1);
        }
        self.set_limit(id, max_streams);
    }

    fn set_limit(&self, id: u64, max_streams: u32) {
        if let Some(connection) = self.state().http2.iter_mut().find(|connection| connection.id == id) {
            connection.limit = limit(max_streams);
        }
        self.serve();
    }

    fn release(&self, id: u64) {
        let is_wanted = {
            let mut state = self.state();
            if let Some(connection) = state.http2.iter_mut().find(|connection| connection.id == id) {
                connection.open -= 1;
                connection.idle_since = Instant::now();
            }
            !state.waiting.is_empty()
        };
        if is_wanted {
            self.serve();
        }
    }

    fn retire(&self, id: u64) {
        let retired = {
            let mut state = self.state();
            let index = state.http2.iter().position(|connection| connection.id == id);
            index.map(|index| state.http2.swap_remove(index))
        };
        drop(retired); // not within the lock
    }

    fn retire_if_idle(&self, id: u64) -> Result<(), Instant> {
        let now = Instant::now();
        let mut state = self.state();
        let index = state.http2.iter().position(|connection| connection.id == id);
        let idle_since = index.map(|index| &state.http2[index]).filter(|connection| connection.open == 0);
        let expires = idle_since.map_or(now, |connection| connection.idle_since) + self.tuning.idle;
        match index {
            Some(index) if expires <= now => {
                state.http2.swap_remove(index);
                Ok(())
            }
            _ => Err(expires),
        }
    }
}

/// Polls the idle HTTP/1.1 connections of an origin while there are some. A connection that was added since the last poll is not
/// polled yet: if its server closes it meanwhile, the next request on it notices.
async fn poll_idle(origin: Weak<Origin>) {
    loop {
        let idle = poll_fn(|context| match origin.upgrade() {
            Some(origin) => origin.state().idle.poll(context),
            None => Poll::Ready(()),
        });
        if tokio::time::timeout(IDLE_POLL_INTERVAL, idle).await.is_ok() {
            return;
        }
    }
}

impl OriginState {
    fn take(&mut self, origin: &Origin) -> Option<Lease> {
        let is_free =
            |connection: &&mut Http2Connection| connection.open < connection.limit && !connection.sender.is_closed();
        if let Some(connection) = self.http2.iter_mut().find(is_free) {
            connection.open += 1;
            let reused = std::mem::replace(&mut connection.used, true);
            let permit = Arc::new(StreamPermit { pool: origin.me.upgrade()?, connection: connection.id });
            return Some(Lease::Http2(Http2 { sender: connection.sender.clone(), permit, reused }));
        }
        self.idle.take().map(Lease::Http1)
    }

    /// How many connections must be opened for the waiting requests; counts them as being opened.
    fn dials_to_begin(&mut self) -> usize {
        if self.waiting.len() > self.dialing * self.per_connection {
            self.waiting.retain(|waiting| !waiting.is_closed());
        }
        let missing = self.waiting.len().div_ceil(self.per_connection).saturating_sub(self.dialing);
        self.dialing += missing;
        missing
    }
}

fn limit(streams: u32) -> usize {
    usize::try_from(streams).map_or(MAX_STREAMS, |streams| streams.min(MAX_STREAMS))
}

/// The most streams on one connection, whatever its server allows: real servers allow as many, and a broken connection must not
/// abort more.
const MAX_STREAMS: usize = 100;

/// How often the idle connections are polled anew, with those that were added since.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time that a connection is idle: below the usual 60 s of load balancers, so that Pixy closes first.
pub(super) const IDLE: Duration = Duration::from_secs(50);
