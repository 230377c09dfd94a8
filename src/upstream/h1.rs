//! HTTP/1.1: one request at a time; a connection is reused only after a clean end of both messages.
//!
//! A connection has no task of its own: the task that waits for its response drives it (`Http1::poll`). So one task moves an exchange
//! from the agent's socket to the upstream's and back, and received bytes are forwarded in the same poll. A task of the pool drives
//! idle connections (`idle`).

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::checked_stream::CheckedStream;
use super::dial::Stream;
use super::request_body::RequestBody;
use super::response_framer::{RequestKind, ResponseFramer};
use super::{AmbiguousFraming, AttemptError, Body, BoxError};
use crate::lock::lock;

/// A connection, in use or idle. Dropping it closes the connection.
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Connection>>>,
    framer: Arc<Mutex<ResponseFramer>>,
    wakeup: Arc<ConnectionWaker>,
    /// Wakes `wakeup`.
    waker: Waker,
    /// It carried a request before: the server may have closed it since.
    pub(super) reused: bool,
    /// It must not carry another request.
    is_last: bool,
    /// The longest time that it may be idle.
    pub(super) max_idle: Duration,
    pool: Weak<dyn Http1Pool>,
}

/// The pool that a connection returns to.
pub(super) trait Http1Pool: Send + Sync {
    /// Takes back an idle connection.
    fn park(&self, connection: Http1);
}

type Connection = http1::Connection<TokioIo<CheckedStream<TokioIo<Stream>>>, RequestBody>;

/// Wakes the task that holds a connection. Its socket and hyper's channels have this waker alone: they would wake the task that
/// polled last, which differs from request to request, or is the current one.
#[derive(Default)]
struct ConnectionWaker {
    task: AtomicWaker,
    is_woken: AtomicBool,
}

/// Opens an HTTP/1.1 connection on a stream, for a pool.
pub(super) async fn open(pool: Weak<dyn Http1Pool>, stream: Stream, max_idle: Duration) -> Result<Http1, BoxError> {
    let (stream, framer) = CheckedStream::new(TokioIo::new(stream));
    let (sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
    let wakeup = Arc::<ConnectionWaker>::default();
    let waker = Waker::from(Arc::clone(&wakeup));
    let connection = Some(Box::pin(connection));
    Ok(Http1 { sender, connection, framer, wakeup, waker, reused: false, is_last: false, max_idle, pool })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER);
    builder
}

/// In bytes. Limits a response's head, and what is read ahead for an agent that does not read: hyper's default is 400 KiB.
const BUFFER: usize = 64 * 1024;

/// Sends a request that asks for another protocol (RFC 9110 §7.8), on a connection of its own. Without a 101 the connection ends
/// when the sender that is returned is dropped.
pub(super) async fn upgrade(
    stream: Stream,
    request: Request<Body>,
) -> Result<(Response<hyper::body::Incoming>, Option<oneshot::Sender<()>>), BoxError> {
    let (stream, framer) = CheckedStream::new(TokioIo::new(stream));
    lock(&framer).announce(RequestKind::Upgrade, AmbiguousFraming::Refuse);
    let (mut sender, connection) = builder().handshake(TokioIo::new(stream)).await?;
    let (upgraded, mut released) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            _ = &mut connection => {}
            outcome = &mut released => if outcome.is_ok() {
                // Ends once hyper has handed over the stream.
                let _ = connection.await;
            }
        }
    });
    let response = sender.send_request(outgoing(request)).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let _ = upgraded.send(());
        return Ok((response, None));
    }
    Ok((response, Some(upgraded)))
}

/// Yields once to the tasks that are ready. Of requests that arrived together, all are then read before the first is sent, and of
/// responses all before the first is forwarded: the peer is woken once for several, which is most of the system's cost of a write
/// (with 32 connections to one upstream a sixth of all CPU time).
async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Http1 {
    /// Drives the connection until `outcome` is ready. `outcome` must depend on nothing but the connection; it is ready when the
    /// connection has ended.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // `outcome` needs no waker: it is polled again after the connection.
        let mut no_wake = Context::from_waker(Waker::noop());
        if let Poll::Ready(outcome) = outcome(&mut no_wake) {
            return Poll::Ready(outcome);
        }
        for _ in 0..MAX_POLLS {
            self.wakeup.is_woken.store(false, Ordering::Relaxed);
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
            {
                self.connection = None;
            }
            if let Poll::Ready(outcome) = outcome(&mut no_wake) {
                return Poll::Ready(outcome);
            }
            self.wakeup.task.register(context.waker());
            // Woken before the task was registered.
            if !self.wakeup.is_woken.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// For an idle connection: ready when the server has closed it, or sends data without a request.
    pub(super) fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let _ = self.poll(context, |_| Poll::<()>::Pending);
        if self.connection.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Sends a request and waits for the head of its response, which is returned with the connection.
    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        ambiguous: AmbiguousFraming,
    ) -> Result<(Response<hyper::body::Incoming>, Self), AttemptError> {
        let uri = request.uri().clone();
        lock(&self.framer).announce(RequestKind::of(request.method()), ambiguous);
        yield_once().await;
        let mut response = std::pin::pin!(self.sender.try_send_request(outgoing(request)));
        let response = poll_fn(|context| self.poll(context, |context| response.as_mut().poll(context))).await;
        // Token responses are not delayed: until one is stored, a crash may lose a login.
        if ambiguous == AmbiguousFraming::Refuse {
            yield_once().await;
        }
        match response {
            Ok(response) => {
                self.apply_keep_alive(response.headers());
                Ok((response, self))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => {
                    let mut request = request.map(|request| request.body);
                    *request.uri_mut() = uri;
                    AttemptError::NotSent(Box::new(request), error.into_error().into())
                }
                None => AttemptError::MaybeSent(error.into_error().into()),
            }),
        }
    }

    /// Applies the idle timeout that a server may announce. When it expires the server closes the connection, and a request that is
    /// being sent at that moment is lost: it may have been processed, so a POST cannot be sent again (RFC 9112 §9.3.1). So Pixy
    /// closes first. The shortest timeout applies.
    fn apply_keep_alive(&mut self, headers: &HeaderMap) {
        let Some(timeout) = keep_alive_timeout(headers) else { return };
        self.max_idle = self.max_idle.min(timeout.saturating_sub(MARGIN));
        self.is_last |= self.max_idle.is_zero();
    }

    /// Returns the connection to the pool after a clean end of the response. It is free once the request has ended too, which is
    /// nearly always so.
    pub(super) fn give_back(mut self) {
        self.reused = true;
        if self.is_last || self.connection.is_none() || !lock(&self.framer).is_idle() {
            return;
        }
        let Some(pool) = self.pool.upgrade() else { return };
        if self.sender.is_ready() {
            pool.park(self);
        } else {
            tokio::spawn(async move {
                let is_free = poll_fn(|context| {
                    let is_closed = self.poll_closed(context).is_ready();
                    if is_closed || self.sender.is_ready() { Poll::Ready(!is_closed) } else { Poll::Pending }
                });
                if let Ok(true) = tokio::time::timeout(CLOSE_TIMEOUT, is_free).await {
                    pool.park(self);
                }
            });
        }
    }

    /// Closes with TLS close_notify, which hyper sends once the sender is dropped.
    pub(super) fn close(self) {
        let Self { connection: Some(connection), .. } = self else { return };
        tokio::spawn(tokio::time::timeout(CLOSE_TIMEOUT, connection));
    }
}

/// The timeout in `Keep-Alive: timeout=SECONDS`. RFC 2068 (§19.7.1.1) defines the field but no parameters; Node, Apache and others
/// send them.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all("keep-alive").iter().filter_map(|value| value.to_str().ok());
    let parameters = fields.flat_map(|field| field.split([',', ';'])).filter_map(|parameter| parameter.split_once('='));
    let timeouts =
        parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout")).filter_map(|(_, value)| {
            let value = value.trim().trim_start_matches('"');
            let digits = value.bytes().take_while(u8::is_ascii_digit).count();
            (digits > 0).then(|| value[..digits].parse().unwrap_or(u64::MAX)) // an overflow means no limit
        });
    timeouts.min().map(Duration::from_secs)
}

/// The request in origin-form (RFC 9112 §3.2.1), with `Host`.
fn outgoing(mut request: Request<Body>) -> Request<RequestBody> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(host) = host(&uri) {
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    request.map(|body| RequestBody { body, permit: None })
}

/// The value of `Host`: the authority without a default port (RFC 9110 §7.2).
fn host(uri: &Uri) -> Option<HeaderValue> {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    let host = uri.host()?;
    match uri.port_u16() {
        Some(port) if port != default => HeaderValue::try_from(format!("{host}:{port}")).ok(),
        _ => HeaderValue::from_str(host).ok(),
    }
}

/// How often a connection that stays ready is polled before other tasks run.
const MAX_POLLS: usize = 4;

/// How long a request may continue after its response, and how long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pixy closes an idle connection this long before its server does: for the round trip, and for rounded seconds.
const MARGIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_valid_keep_alive_timeout_applies() {
        let cases: [(&[&str], Option<u64>); 11] = [
            (&["timeout=5"], Some(5)),
            (&["timeout=5, max=1000"], Some(5)),
            (&["max=1000 ,\tTimeout = 75"], Some(75)),
            (&["timeout=\"5\"; max=1"], Some(5)),
            (&["timeout=60", "timeout=7", "x"], Some(7)),
            (&["timeout=0"], Some(0)),
            (&["timeout=4.9"], Some(4)),
            (&["timeout=99999999999999999999"], Some(u64::MAX)),
            (&["timeout=-5", "timeout=", "timeout", "=5", "timeout=x5"], None),
            (&["max=5", "mytimeout=5", "5"], None),
            (&[], None),
        ];
        for (fields, expected) in cases {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("keep-alive", HeaderValue::from_str(field).unwrap());
            }
            assert_eq!(keep_alive_timeout(&headers), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
