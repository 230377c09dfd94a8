//! HTTP/2: concurrent streams on one connection, within the server's limit.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use super::dial::Stream;
use super::h2_peer_settings::{self, PeerSettings};
use super::request_body::RequestBody;
use super::{AmbiguousFraming, AttemptError, Body, BoxError, Tuning};

/// The right to open one stream.
pub(super) struct Http2 {
    pub(super) sender: Sender,
    pub(super) permit: Arc<StreamPermit>,
    /// The connection carried a stream before: the server may have closed it since.
    pub(super) reused: bool,
}

/// Counts one stream of a connection until it is dropped.
pub(super) struct StreamPermit {
    pub(super) pool: Arc<dyn Http2Pool>,
    pub(super) connection: u64,
}

/// The sender of requests on one connection.
pub(super) type Sender = http2::SendRequest<RequestBody>;

/// The pool of a connection, which has a number there.
pub(super) trait Http2Pool: Send + Sync {
    /// The number of a new connection.
    fn next_id(&self) -> u64;
    /// Adds a connection. It carries one stream until `confirm`.
    fn add(&self, id: u64, sender: Sender);
    /// The server's first limit of concurrent streams: the connection counts as opened.
    fn confirm(&self, id: u64, max_streams: u32);
    /// The server changed its limit of concurrent streams.
    fn set_limit(&self, id: u64, max_streams: u32);
    /// A stream has ended.
    fn release(&self, id: u64);
    /// The connection takes no new streams; open ones may end.
    fn retire(&self, id: u64);
    /// Retires the connection if it was idle for too long; otherwise returns when to ask again.
    fn retire_if_idle(&self, id: u64) -> Result<(), Instant>;
}

/// Opens an HTTP/2 connection on a stream, for a pool. Waits for the server's first limit of concurrent streams, at most `timeout`:
/// h2 would queue streams over the limit behind streams that last for minutes.
pub(super) async fn open(
    pool: Arc<dyn Http2Pool>,
    stream: Stream,
    tuning: &Tuning,
    timeout: Duration,
) -> Result<(), BoxError> {
    let (observed, mut settings) = watch::channel(PeerSettings::default());
    let stream = TokioIo::new(h2_peer_settings::observe(TokioIo::new(stream), observed));
    let (sender, connection) = builder(tuning).handshake(stream).await?;
    let id = pool.next_id();
    tokio::spawn(drive(connection, settings.clone(), Arc::downgrade(&pool), id, tuning.idle));
    pool.add(id, sender);
    let first = settings.wait_for(|settings| settings.max_streams.is_some());
    match tokio::time::timeout(timeout, first).await.map(|first| first.map(|first| *first)) {
        Ok(Ok(PeerSettings { max_streams: Some(max_streams), going_away: false })) if max_streams > 0 => {
            pool.confirm(id, max_streams);
            Ok(())
        }
        _ => {
            pool.retire(id);
            Err("the upstream allows no stream on a new HTTP/2 connection".into())
        }
    }
}

impl Http2 {
    /// Sends a request and waits for the head of its response, which is returned with the permit of its stream.
    pub(super) async fn send(
        self,
        mut request: Request<Body>,
        ambiguous: AmbiguousFraming,
    ) -> Result<(Response<hyper::body::Incoming>, Arc<StreamPermit>), AttemptError> {
        let Self { mut sender, permit, .. } = self;
        // `:authority` comes from the URI, and `Host` could differ (RFC 9113 §8.3.1).
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
        let held: Arc<dyn Send + Sync> = Arc::<StreamPermit>::clone(&permit);
        match sender.try_send_request(request.map(|body| RequestBody { body, permit: Some(held) })).await {
            Ok(response) if ambiguous == AmbiguousFraming::Refuse && !is_unambiguous(response.headers()) => {
                Err(AttemptError::MaybeSent("the upstream's response has ambiguous framing".into()))
            }
            Ok(response) => Ok((response, permit)),
            Err(mut error) => {
                if sender.is_closed() {
                    permit.pool.retire(permit.connection);
                }
                Err(match error.take_message() {
                    Some(request) => {
                        let mut request = request.map(|request| request.body);
                        *request.version_mut() = Version::HTTP_11;
                        AttemptError::NotSent(Box::new(request), error.into_error().into())
                    }
                    None => AttemptError::MaybeSent(error.into_error().into()),
                })
            }
        }
    }
}

/// Whether a head allows one reading also over HTTP/1.1: no coding (RFC 9113 §8.2.2), and one length, which is forwarded to the agent.
/// h2 compares the length with the body.
fn is_unambiguous(headers: &HeaderMap) -> bool {
    headers.get(TRANSFER_ENCODING).is_none() && headers.get_all(CONTENT_LENGTH).iter().count() <= 1
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.pool.release(self.connection);
    }
}

/// Drives a connection and reports the server's settings to the pool, until it takes no new streams; tasks of hyper drive its open
/// streams.
async fn drive(
    connection: impl Future,
    mut settings: watch::Receiver<PeerSettings>,
    pool: Weak<dyn Http2Pool>,
    id: u64,
    max_idle: Duration,
) {
    let mut connection = std::pin::pin!(connection);
    let mut idle_check = std::pin::pin!(tokio::time::sleep(max_idle));
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => break,
            changed = settings.changed() => {
                let now = *settings.borrow_and_update();
                let Some(pool) = pool.upgrade().filter(|_| changed.is_ok() && !now.going_away) else { break };
                if let Some(max_streams) = now.max_streams {
                    pool.set_limit(id, max_streams);
                }
            }
            () = &mut idle_check => {
                match pool.upgrade().map(|pool| pool.retire_if_idle(id)) {
                    Some(Err(again)) => idle_check.as_mut().reset(again),
                    Some(Ok(())) | None => break,
                }
            }
        }
    }
    if let Some(pool) = pool.upgrade() {
        pool.retire(id);
    }
}

/// The connection's SETTINGS and keep-alive pings.
fn builder(tuning: &Tuning) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(tuning.ping_interval)
        .keep_alive_timeout(tuning.ping_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// In bytes. Limits the memory that an agent which does not read can make Pixy hold; with a round trip of 50 ms it still allows
/// 1.3 MB a second.
const STREAM_WINDOW: u32 = 64 * 1024;

/// In bytes, for the most streams on a connection: streams that are not read cannot stall the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// In bytes: how much of an upload is read before the server accepts it.
const SEND_BUFFER: usize = 64 * 1024;
