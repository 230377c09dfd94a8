//! HTTP/1.1: one request at a time, and the connection goes on only after a clean end of both messages.
//!
//! A connection has no task of its own: whoever waits for its answer moves its bytes (`Http1::poll`). So an exchange is one task's
//! work from the agent's socket to the upstream's and back, and what has come leaves in the same turn. While nobody uses it, the
//! pool's keeper looks after it (`idle`).

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::client::conn::http1;
use tokio::sync::oneshot;

use super::body::{Held, Incoming, Outbound};
use super::dial::Stream;
use super::pool::Origin;
use super::{Body, BoxError, Failure, Unclear, head};

/// A connection that somebody holds, or that lies in the pool. Dropping it closes the connection.
pub(super) struct Http1 {
    sender: http1::SendRequest<Outbound>,
    /// Nothing when it has ended.
    connection: Option<Pin<Box<Connection>>>,
    bell: Arc<ConnectionWaker>,
    /// Rings it.
    waker: Waker,
    reused: bool,
    /// It carries no other request.
    last: bool,
    /// How long it may lie unused.
    keep: Duration,
    origin: Weak<Origin>,
}

type Connection = http1::Connection<Stream, Outbound>;

/// Wakes whoever holds a connection. Its socket, and hyper's channels between it and the messages on it, know this alone: they
/// would wake whoever polled last, and that is another task from request to request, or the one that runs just now.
#[derive(Default)]
struct ConnectionWaker {
    holder: AtomicWaker,
    rung: AtomicBool,
}

/// Begins HTTP/1.1 on a stream, for the pool.
pub(super) async fn open(origin: &Arc<Origin>, stream: Stream) -> Result<Http1, BoxError> {
    let (sender, connection) = builder().handshake(stream).await?;
    let bell = Arc::<ConnectionWaker>::default();
    let waker = Waker::from(Arc::clone(&bell));
    let (keep, origin) = (origin.tuning.idle, Arc::downgrade(origin));
    let connection = Some(Box::pin(connection));
    Ok(Http1 { sender, connection, bell, waker, reused: false, last: false, keep, origin })
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER);
    builder
}

/// A head fits in, and so much of an answer is read ahead for an agent that does not take it: hyper would read 400 KiB.
const BUFFER: usize = 64 * 1024;

/// Sends a request on a connection of its own that may become another protocol (RFC 9110 §7.8).
pub(super) async fn upgrade(stream: Stream, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
    let (mut sender, connection) = builder().handshake(stream).await?;
    let (held, mut let_go) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            _ = &mut connection => {}
            switched = &mut let_go => if switched.is_ok() {
                // Ends as soon as the stream is handed over.
                let _ = connection.await;
            }
        }
    });
    let response = sender.send_request(outgoing(request)).await?;
    if !head::is_clear(&response) {
        return Err(head::UNCLEAR.into());
    }
    Ok(if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let _ = held.send(());
        response.map(|body| Incoming::new(body, Held::Nothing))
    } else {
        response.map(|body| Incoming::new(body, Held::Own(held)))
    })
}

/// Lets the tasks run that are ready now. Of requests that came together, all are then read before the first is sent, and of
/// answers all before the first goes on: whoever is at the other end is woken once for several, which is most of what a write
/// costs the system (with 32 connections to one upstream a sixth of all CPU time).
async fn others_first() {
    let mut asked = false;
    poll_fn(|context| {
        if std::mem::replace(&mut asked, true) {
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
        self.rung.store(true, Ordering::Release);
        self.holder.wake();
    }
}

impl Http1 {
    /// Whether it carried a request before: then its server may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// How long it may lie unused.
    pub(super) fn keep(&self) -> Duration {
        self.keep
    }

    /// Moves bytes until `outcome`, which is nothing but what the connection makes come true, is there. The connection's end
    /// makes every outcome come true.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // No outcome is to wake us: it is asked for again when the connection has moved.
        let mut unheard = Context::from_waker(Waker::noop());
        if let Poll::Ready(outcome) = outcome(&mut unheard) {
            return Poll::Ready(outcome);
        }
        for _ in 0..TURNS {
            self.bell.rung.store(false, Ordering::Relaxed);
            if let Some(connection) = &mut self.connection
                && connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
            {
                self.connection = None;
            }
            if let Poll::Ready(outcome) = outcome(&mut unheard) {
                return Poll::Ready(outcome);
            }
            self.bell.holder.register(context.waker());
            // Rung while nobody was there to hear it.
            if !self.bell.rung.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Resolves when its server has closed it, or sends what nobody asked for. For one that nobody uses.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let _ = self.poll(context, |_| Poll::<()>::Pending);
        if self.connection.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        unclear: Unclear,
    ) -> Result<Response<Incoming>, Failure> {
        let uri = request.uri().clone();
        others_first().await;
        let mut answer = std::pin::pin!(self.sender.try_send_request(outgoing(request)));
        let answer = poll_fn(|context| self.poll(context, |context| answer.as_mut().poll(context))).await;
        // Our own answers wait for nobody: until one is stored, a crash may lose a login.
        if unclear == Unclear::Refused {
            others_first().await;
        }
        match answer {
            Ok(response) => {
                // Nobody asked for another protocol (RFC 9110 §15.2.2).
                let clear = response.status() != StatusCode::SWITCHING_PROTOCOLS && head::is_clear(&response);
                if !clear && unclear == Unclear::Refused {
                    return Err(Failure::Broken(head::UNCLEAR.into()));
                }
                self.last |= !clear;
                self.heed(response.headers());
                Ok(response.map(|body| Incoming::new(body, Held::Http1(self))))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => {
                    let mut request = request.map(Outbound::into_inner);
                    *request.uri_mut() = uri;
                    Failure::NeverSent(Box::new(request), error.into_error().into())
                }
                None => Failure::Broken(error.into_error().into()),
            }),
        }
    }

    /// A server may say how long it keeps a connection that nobody uses. It closes then without another word, and a request that
    /// is on its way in this moment is lost: nobody knows whether it was acted on, so a POST cannot be sent again (RFC 9112
    /// §9.3.1). So we are the first to close. The least that was said holds.
    fn heed(&mut self, headers: &HeaderMap) {
        let Some(kept) = kept_for(headers) else { return };
        self.keep = self.keep.min(kept.saturating_sub(MARGIN));
        self.last |= self.keep.is_zero();
    }

    /// The answer has ended as it should. The connection is free as soon as the request has ended too, which it
    /// nearly always has.
    pub(super) fn give_back(mut self) {
        self.reused = true;
        if self.last || self.connection.is_none() {
            return;
        }
        let Some(origin) = self.origin.upgrade() else { return };
        if self.sender.is_ready() {
            origin.park(self);
        } else {
            tokio::spawn(async move {
                let free = poll_fn(|context| {
                    let ended = self.poll_ended(context).is_ready();
                    if ended || self.sender.is_ready() { Poll::Ready(!ended) } else { Poll::Pending }
                });
                if let Ok(true) = tokio::time::timeout(ENDING, free).await {
                    origin.park(self);
                }
            });
        }
    }

    /// Ends it with a goodbye (TLS close_notify): hyper says it when nobody can send any more.
    pub(super) fn say_goodbye(self) {
        let Self { connection: Some(connection), .. } = self else { return };
        tokio::spawn(tokio::time::timeout(ENDING, connection));
    }
}

/// What `Keep-Alive: timeout=SECONDS` says. RFC 2068 (§19.7.1.1) has the field, no RFC its parameters, and Node, Apache and others
/// send them.
fn kept_for(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all("keep-alive").iter().filter_map(|value| value.to_str().ok());
    let parameters = fields.flat_map(|field| field.split([',', ';'])).filter_map(|parameter| parameter.split_once('='));
    let timeouts =
        parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout")).filter_map(|(_, value)| {
            let value = value.trim().trim_start_matches('"');
            let digits = value.bytes().take_while(u8::is_ascii_digit).count();
            (digits > 0).then(|| value[..digits].parse().unwrap_or(u64::MAX)) // more than fits is for ever
        });
    timeouts.min().map(Duration::from_secs)
}

/// The request as HTTP/1.1 wants it: origin form (RFC 9112 §3.2.1) and the host in `Host`.
fn outgoing(mut request: Request<Body>) -> Request<Outbound> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(host) = host(&uri) {
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    request.map(|body| Outbound::new(body, None))
}

/// The authority without a default port (RFC 9110 §7.2).
fn host(uri: &Uri) -> Option<HeaderValue> {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    let host = uri.host()?;
    match uri.port_u16() {
        Some(port) if port != default => HeaderValue::try_from(format!("{host}:{port}")).ok(),
        _ => HeaderValue::from_str(host).ok(),
    }
}

/// So often a connection that has more to do at once is moved before other tasks have their turn.
const TURNS: usize = 4;

/// How long a request may go on after its answer has ended, and a closing connection after its end.
const ENDING: Duration = Duration::from_secs(1);

/// So much earlier than its server we close a connection: for the way there and back, and for seconds that are rounded.
const MARGIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_time_that_is_said_is_taken_and_nonsense_is_not() {
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
            assert_eq!(kept_for(&headers), expected.map(Duration::from_secs), "{fields:?}");
        }
    }
}
