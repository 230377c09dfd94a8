//! State that the socket's side and the service's side of a connection share.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::rejection::Rejection;
use super::shutdown::{self, Shutdown};
use super::stall::StallTracker;
use crate::lock::lock;

/// State of one connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    stall: Arc<StallTracker>,
    upgraded: AtomicBool,
    rejection: Mutex<Option<Rejection>>,
    /// The task that waits for the end of an exchange.
    exchange_end: AtomicWaker,
    /// An exchange has ended, and since then nothing has waited for the client.
    has_just_served: AtomicBool,
    /// Bytes of responses that hyper has queued and the socket has not accepted. Changed by the connection's own task alone.
    queued: AtomicUsize,
    /// The body was not polled, because so much was queued.
    is_held: AtomicBool,
}

/// An open exchange: from a request's head to the last byte of its response, or to the end of an upgraded connection.
#[derive(Debug)]
pub(super) struct Exchange(Arc<ConnectionState>);

/// The body of a response, which ends its exchange when it is dropped.
pub(super) struct ExchangeBody<B> {
    body: B,
    exchange: Exchange,
}

/// Permission to upgrade the connection to another protocol. In the extensions of each request that asks for an upgrade.
#[derive(Debug, Clone)]
pub struct Upgrade {
    connection: Arc<ConnectionState>,
    shutdown: watch::Receiver<Shutdown>,
}

/// An upgraded connection: until this is dropped, it counts as an open exchange, for which a drain waits.
#[derive(Debug)]
pub struct Upgraded {
    exchange: Exchange,
    shutdown: watch::Receiver<Shutdown>,
}

/// A deadline that moves often and passes seldom: its timer is reset only when it fires too early.
#[derive(Debug, Default)]
pub(super) struct IdleTimer {
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// In bytes: of a response, how much hyper may queue before it is written. hyper's own limit is that of the longest head.
const MAX_QUEUED: usize = 32 * 1024;

impl ConnectionState {
    pub(super) fn new(stall: Arc<StallTracker>) -> Arc<Self> {
        Arc::new(Self {
            stall,
            upgraded: AtomicBool::new(false),
            rejection: Mutex::new(None),
            exchange_end: AtomicWaker::new(),
            has_just_served: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            is_held: AtomicBool::new(false),
        })
    }

    pub(super) fn stall(&self) -> &StallTracker {
        &self.stall
    }

    pub(super) fn begin_exchange(self: &Arc<Self>) -> Exchange {
        self.stall.begin_exchange();
        Exchange(Arc::clone(self))
    }

    /// Whether the request that begins now had arrived before the last response was written: the client sends several at once.
    pub(super) fn is_pipelined(&self) -> bool {
        self.has_just_served.load(Ordering::Relaxed)
    }

    /// The client has sent nothing more yet.
    pub(super) fn waits_for_request(&self) {
        self.has_just_served.store(false, Ordering::Relaxed);
    }

    /// Whether an exchange is open. Wakes the task when the exchange ends: hyper does not read again by itself after a read that
    /// was pending.
    pub(super) fn poll_busy(&self, context: &mut Context<'_>) -> bool {
        self.exchange_end.register(context.waker());
        self.stall.is_busy()
    }

    /// The socket has accepted so many bytes. Some are not of a body: then the queue counts as shorter than it is. Wakes the
    /// connection's task where it can poll the body again.
    pub(super) fn record_written(&self, bytes: usize, context: &Context<'_>) {
        let queued = self.queued.load(Ordering::Relaxed);
        if queued == 0 {
            return;
        }
        let queued = queued.saturating_sub(bytes);
        self.queued.store(queued, Ordering::Relaxed);
        if queued < MAX_QUEUED && self.is_held.load(Ordering::Relaxed) {
            self.is_held.store(false, Ordering::Relaxed);
            context.waker().wake_by_ref();
        }
    }

    /// Stores why the next request is rejected, for [`Self::take_rejection`].
    pub(super) fn reject(&self, rejection: Rejection) {
        *lock(&self.rejection) = Some(rejection);
    }

    pub(super) fn take_rejection(&self) -> Option<Rejection> {
        lock(&self.rejection).take()
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    pub(super) fn upgrade(self: &Arc<Self>, shutdown: watch::Receiver<Shutdown>) -> Upgrade {
        Upgrade { connection: Arc::clone(self), shutdown }
    }

    /// Resolves when the upgraded connection has ended; at once where there was no upgrade.
    pub(super) async fn upgrade_ended(&self) {
        if self.is_upgraded() {
            std::future::poll_fn(|context| if self.poll_busy(context) { Poll::Pending } else { Poll::Ready(()) }).await;
        }
    }
}

impl Exchange {
    pub(super) fn into_body<B>(self, body: B) -> ExchangeBody<B> {
        ExchangeBody { body, exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.stall.end_exchange();
        self.0.has_just_served.store(true, Ordering::Relaxed);
        self.0.exchange_end.wake();
    }
}

impl Upgrade {
    /// Declares that what the client sends from now on is not HTTP. Must be called before hyper gets the 101: otherwise the bytes
    /// after the request are parsed as the next one.
    #[must_use]
    pub fn accept(self) -> Upgraded {
        let exchange = self.connection.begin_exchange();
        self.connection.upgraded.store(true, Ordering::Release);
        let upgraded = Upgraded { exchange, shutdown: self.shutdown };
        upgraded.waits_for_client();
        upgraded
    }
}

impl Upgraded {
    /// Resolves when the process shuts down. The shutdown of the listener alone does not end an upgraded connection.
    pub async fn process_shutdown(&self) {
        shutdown::of_process(&mut self.shutdown.clone()).await;
    }

    /// The client has to send something: it is stalled until it does. So it is after the upgrade.
    pub fn waits_for_client(&self) {
        self.exchange.0.stall.reading.start();
    }

    /// The client has sent what the upstream can respond to.
    pub fn waits_for_upstream(&self) {
        self.exchange.0.stall.reading.reset();
    }

    /// Resolves when the connection must close for a new one: its client has been stalled longest. Only one task may wait for it.
    pub async fn evicted(&self) {
        self.exchange.0.stall.evicted().await;
    }
}

impl<B: Body + Unpin> Body for ExchangeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, exchange } = self.get_mut();
        let queued = &exchange.0.queued;
        if queued.load(Ordering::Relaxed) >= MAX_QUEUED {
            exchange.0.is_held.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        let frame = Pin::new(body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            queued.store(queued.load(Ordering::Relaxed) + data.remaining(), Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl IdleTimer {
    /// The next poll sets a new deadline.
    pub(super) fn reset(&mut self) {
        self.deadline = None;
    }

    /// Ready when `timeout` has passed since the first poll after a reset.
    pub(super) fn poll_elapsed(&mut self, timeout: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
