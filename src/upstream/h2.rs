//! HTTP/2: many streams on one connection, counted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::{Request, Response, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;

use super::body::{Held, Incoming, Outbound};
use super::dial::Stream;
use super::h2_settings::{Settings, Tap};
use super::pool::Origin;
use super::{Body, BoxError, Failure, Tuning, Unclear, head};

/// The right to one stream.
pub(super) struct Http2 {
    sender: http2::SendRequest<Outbound>,
    slot: Arc<Slot>,
    reused: bool,
}

/// A stream's place on its connection, free again when dropped.
pub(super) struct Slot {
    origin: Arc<Origin>,
    id: u64,
}

type Connection = http2::Connection<TokioIo<Tap<TokioIo<Stream>>>, Outbound, TokioExecutor>;

/// Begins HTTP/2 on a stream, for the pool, and waits until its server has said how many streams it allows: h2 would
/// queue those beyond the limit, behind streams that last for minutes.
pub(super) async fn open(origin: &Arc<Origin>, stream: Stream, patience: Duration) -> Result<(), BoxError> {
    let (tell, mut told) = watch::channel(Settings::default());
    let stream = TokioIo::new(Tap::new(TokioIo::new(stream), tell));
    let (sender, connection) = builder(&origin.tuning).handshake(stream).await?;
    let id = origin.number();
    tokio::spawn(drive(connection, told.clone(), Arc::downgrade(origin), id));
    origin.admit(id, sender);
    let first = told.wait_for(|told| told.streams.is_some());
    match tokio::time::timeout(patience, first).await.map(|told| told.map(|told| *told)) {
        Ok(Ok(Settings { streams: Some(streams), going_away: false })) if streams > 0 => {
            origin.opened(id, streams);
            Ok(())
        }
        _ => {
            origin.retire(id);
            Err("the upstream allows no stream on a new HTTP/2 connection".into())
        }
    }
}

impl Http2 {
    pub(super) fn new(sender: http2::SendRequest<Outbound>, slot: Slot, reused: bool) -> Self {
        Self { sender, slot: Arc::new(slot), reused }
    }

    /// Whether the connection carried a stream before: then its server may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        self,
        mut request: Request<Body>,
        unclear: Unclear,
    ) -> Result<Response<Incoming>, Failure> {
        let Self { mut sender, slot, .. } = self;
        // The authority is in the URI, and a second one could differ (RFC 9113 §8.3.1).
        request.headers_mut().remove(HOST);
        *request.version_mut() = Version::HTTP_2;
        let sent = sender.try_send_request(request.map(|body| Outbound::new(body, Some(Arc::clone(&slot)))));
        match sent.await {
            Ok(response) if unclear == Unclear::Refused && !head::is_clear(&response) => {
                Err(Failure::Broken(head::UNCLEAR.into()))
            }
            Ok(response) => Ok(response.map(|body| Incoming::new(body, Held::Http2(slot)))),
            Err(mut error) => {
                if sender.is_closed() {
                    slot.origin.retire(slot.id);
                }
                Err(match error.take_message() {
                    Some(request) => {
                        let mut request = request.map(Outbound::into_inner);
                        *request.version_mut() = Version::HTTP_11;
                        Failure::NeverSent(Box::new(request), error.into_error().into())
                    }
                    None => Failure::Broken(error.into_error().into()),
                })
            }
        }
    }
}

impl Slot {
    pub(super) fn new(origin: Arc<Origin>, id: u64) -> Self {
        Self { origin, id }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.origin.freed(self.id);
    }
}

/// Follows what the server says until the connection takes no new streams; those on it are moved by tasks of hyper's.
async fn drive(connection: Connection, mut told: watch::Receiver<Settings>, origin: Weak<Origin>, id: u64) {
    let mut connection = std::pin::pin!(connection);
    let Some(idle) = origin.upgrade().map(|origin| origin.tuning.idle) else { return };
    let mut look = std::pin::pin!(tokio::time::sleep(idle));
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => break,
            changed = told.changed() => {
                let now = *told.borrow_and_update();
                let Some(origin) = origin.upgrade().filter(|_| changed.is_ok() && !now.going_away) else { break };
                if let Some(streams) = now.streams {
                    origin.limited(id, streams);
                }
            }
            () = &mut look => {
                match origin.upgrade().map(|origin| origin.retired_idle(id)) {
                    Some(Err(again)) => look.as_mut().reset(again),
                    Some(Ok(())) | None => break,
                }
            }
        }
    }
    if let Some(origin) = origin.upgrade() {
        origin.retire(id);
    }
}

/// The values of the connection's SETTINGS, and its pulse.
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

/// What an agent that does not read can make us hold for it; in flight at 50 ms it is still 1.3 MB a second.
const STREAM_WINDOW: u32 = 64 * 1024;

/// For the most streams we open: so those that nobody reads cannot hold up the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// What is read of an upload before the server takes it.
const SEND_BUFFER: usize = 64 * 1024;
