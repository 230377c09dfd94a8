//! A fake upstream: sends the replies that the test queues and records its requests.

mod http1;
mod http2;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::reply::Reply;
use super::tls::{Authority, Protocols, Validity};
use super::wire::{Fields, values};

/// A fake upstream. Stops, with all its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

/// One request as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The method, in its case.
    pub(crate) method: String,
    /// The request target: origin or absolute form, as received. Over HTTP/2, `:path`.
    pub(crate) target: String,
    /// `HTTP/1.1`, `HTTP/2.0`, …
    pub(crate) version: String,
    /// Every header field, in order. Over HTTP/2 `:scheme` and `:authority` come first and equal names are adjacent.
    pub(crate) headers: Fields,
    /// The body's bytes, without framing.
    pub(crate) body: Vec<u8>,
    /// Trailer fields.
    pub(crate) trailers: Fields,
    /// `false` if the client closed, or broke the framing, within the body. Such a request is not answered.
    pub(crate) complete: bool,
    /// The index of its connection, from 0.
    pub(crate) connection: usize,
}

/// Settings of an [`Upstream`].
pub(crate) struct Builder {
    handler: Box<Handler>,
    tls: Option<TlsAcceptor>,
    max_streams: Option<u32>,
}

type Handler = dyn FnMut(&Seen) -> Reply + Send;

struct Shared {
    handler: Mutex<Box<Handler>>,
    queued: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    counts: watch::Sender<Counts>,
    max_streams: Option<u32>,
    /// How many times GOAWAY was sent on every HTTP/2 connection.
    going_away: watch::Sender<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    connections: usize,
    requests: usize,
    disconnects: usize,
}

impl Upstream {
    /// Plain HTTP/1.1; answers `200` with the text `upstream` unless a reply is queued.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// Plain HTTP/1.1, answered by `handler`.
    pub(crate) async fn answering(handler: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        Self::builder().handler(handler).start().await
    }

    /// For TLS, HTTP/2 and stream limits.
    pub(crate) fn builder() -> Builder {
        let handler = |_: &Seen| Reply::new(200).header("content-type", "text/plain").body("upstream");
        Builder { handler: Box::new(handler), tls: None, max_streams: None }
    }

    /// `http://127.0.0.1:PORT`, or with TLS `https://localhost:PORT`; no slash at the end.
    pub(crate) fn url(&self) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.address.port())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues a reply; queued replies are used in order, before the handler.
    pub(crate) fn answer(&self, reply: Reply) {
        lock(&self.shared.queued).push_back(reply);
    }

    /// Every request so far, in the order in which they were complete.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.counts.borrow().connections
    }

    /// Sends GOAWAY on every open HTTP/2 connection; open streams may end.
    pub(crate) fn go_away(&self) {
        self.shared.going_away.send_modify(|times| *times += 1);
    }

    /// Resolves when there are at least so many requests.
    pub(crate) async fn until_requests(&self, count: usize) -> Vec<Seen> {
        self.until(|counts| counts.requests >= count).await;
        self.requests()
    }

    /// Resolves when a client has closed before the end of its response.
    pub(crate) async fn until_disconnected(&self) {
        self.until_disconnects(1).await;
    }

    /// As [`Upstream::until_disconnected`], for so many clients.
    pub(crate) async fn until_disconnects(&self, count: usize) {
        self.until(|counts| counts.disconnects >= count).await;
    }

    /// How many clients hung up so far.
    pub(crate) fn disconnects(&self) -> usize {
        self.shared.counts.borrow().disconnects
    }

    async fn until(&self, reached: impl FnMut(&Counts) -> bool) {
        self.shared.counts.subscribe().wait_for(reached).await.expect("the sender lives in self");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Builder {
    /// Answers when nothing is queued.
    pub(crate) fn handler(mut self, handler: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        self.handler = Box::new(handler);
        self
    }

    /// TLS with a valid certificate for `localhost` and 127.0.0.1.
    pub(crate) fn tls(self, authority: &Authority, protocols: Protocols) -> Self {
        self.tls_for(authority, protocols, &["localhost", "127.0.0.1"], Validity::Now)
    }

    /// TLS with a certificate for these names, which may have expired.
    pub(crate) fn tls_for(
        mut self,
        authority: &Authority,
        protocols: Protocols,
        names: &[&str],
        validity: Validity,
    ) -> Self {
        self.tls = Some(authority.acceptor(protocols, names, validity));
        self
    }

    /// Most concurrent streams of an HTTP/2 connection; further ones are refused.
    pub(crate) fn max_streams(mut self, limit: u32) -> Self {
        self.max_streams = Some(limit);
        self
    }

    pub(crate) async fn start(self) -> Upstream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            handler: Mutex::new(self.handler),
            queued: Mutex::default(),
            seen: Mutex::default(),
            counts: watch::Sender::default(),
            max_streams: self.max_streams,
            going_away: watch::Sender::default(),
        });
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let accepting = tokio::spawn(accept(listener, self.tls, Arc::clone(&shared))).abort_handle();
        Upstream { address, scheme, shared, accepting }
    }
}

/// Accepts until dropped; dropping it aborts all connections.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Nagle's algorithm would delay a second small write.
        let _ = stream.set_nodelay(true);
        let number = shared.counts.borrow().connections;
        shared.counts.send_modify(|counts| counts.connections += 1);
        connections.spawn(serve(stream, tls.clone(), Arc::clone(&shared), number));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>, number: usize) {
    let Some(tls) = tls else { return http1::serve(stream, &shared, number).await };
    // A client that rejects the certificate ends here; the test sees no request.
    let Ok(stream) = tls.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, shared, number).await;
    } else {
        http1::serve(stream, &shared, number).await;
    }
}

impl Shared {
    /// Records the request and returns its reply.
    fn reply_to(&self, seen: Seen) -> Reply {
        let queued = lock(&self.queued).pop_front();
        let reply = queued.unwrap_or_else(|| lock(&self.handler)(&seen));
        self.record(seen);
        reply
    }

    fn record(&self, seen: Seen) {
        lock(&self.seen).push(seen);
        self.counts.send_modify(|counts| counts.requests += 1);
    }

    fn count_disconnect(&self) {
        self.counts.send_modify(|counts| counts.disconnects += 1);
    }
}

impl Seen {
    /// The values of a header field; the name is case-insensitive.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name).collect()
    }

    /// The target's path.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body as JSON; `null` if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("counts", &*self.counts.borrow()).finish_non_exhaustive()
    }
}

/// Ignores poisoning: a handler that panicked fails its test anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
