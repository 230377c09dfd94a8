//! What a connection's parts must know of each other: the socket's side, the requests under way, and who waits for whom.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Shutdown;
use super::admission::Permit;
use super::reject::Rejection;
use super::stall::{STREAM, StallTracker};
use crate::lock::lock;

/// One connection's life.
#[derive(Debug)]
pub(super) struct ConnectionState {
    waits: Arc<StallTracker>,
    switched: AtomicBool,
    refused: Mutex<Option<Rejection>>,
    /// Whoever waits for the end of an exchange.
    waiting: AtomicWaker,
}

/// A request and its answer under way: from the request's head to the last byte that its answer has.
#[derive(Debug)]
struct Exchange(Arc<ConnectionState>);

/// An answer's body, with what must live exactly as long.
pub(super) struct Answer<B> {
    body: B,
    /// Bytes of the last frame.
    handed_on: usize,
    _exchange: Exchange,
    _place: Option<Permit>,
}

/// Begun with the request, and handed on to the body of the answer.
pub(super) struct Begun(Exchange);

/// Says that the other protocol begins: in the extensions of an HTTP/1 request that asks for one.
#[derive(Debug, Clone)]
pub struct Upgrade {
    pulse: Arc<ConnectionState>,
    shutdown: watch::Receiver<Shutdown>,
}

/// The other protocol, for as long as it lasts: until this is dropped, its connection counts, and a drain waits for it.
#[derive(Debug)]
pub struct Upgraded {
    _exchange: Exchange,
    shutdown: watch::Receiver<Shutdown>,
}

/// A deadline that moves often and fires seldom: the timer behind it is set anew only when it fires too early.
#[derive(Debug, Default)]
pub(super) struct IdleTimer {
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ConnectionState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            waits: StallTracker::new(),
            switched: AtomicBool::new(false),
            refused: Mutex::new(None),
            waiting: AtomicWaker::new(),
        })
    }

    /// What the connection waits for.
    pub(super) fn waits(&self) -> &Arc<StallTracker> {
        &self.waits
    }

    /// An exchange begins.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.waits.begin();
        Begun(Exchange(Arc::clone(self)))
    }

    /// Whether something is under way. Wakes the socket's side when that changes: hyper, having heard that nothing is there to be
    /// read, would not ask again.
    pub(super) fn poll_busy(&self, context: &mut Context<'_>) -> bool {
        self.waiting.register(context.waker());
        self.waits.is_busy()
    }

    /// The socket's side refuses a request; the request that stands in for it will ask why.
    pub(super) fn refuse(&self, refused: Rejection) {
        *lock(&self.refused) = Some(refused);
    }

    /// Why the request that stands here was refused.
    pub(super) fn refused(&self) -> Option<Rejection> {
        lock(&self.refused).take()
    }

    pub(super) fn switched(&self) -> bool {
        self.switched.load(Ordering::Acquire)
    }

    pub(super) fn switch(self: &Arc<Self>, shutdown: watch::Receiver<Shutdown>) -> Upgrade {
        Upgrade { pulse: Arc::clone(self), shutdown }
    }

    /// Resolves when the other protocol is over; at once where none began.
    pub(super) async fn left(&self) {
        if self.switched() {
            std::future::poll_fn(|context| if self.poll_busy(context) { Poll::Pending } else { Poll::Ready(()) }).await;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.waits.end();
        self.0.waiting.wake();
    }
}

impl Begun {
    pub(super) fn answer<B>(self, body: B, place: Option<Permit>) -> Answer<B> {
        Answer { body, handed_on: 0, _exchange: self.0, _place: place }
    }
}

impl Upgrade {
    /// What the agent sends from now on is no HTTP. To be said before the 101 is given to hyper; without it, whatever
    /// follows the request is judged as the next one.
    #[must_use]
    pub fn switch(self) -> Upgraded {
        let Begun(exchange) = self.pulse.begin();
        self.pulse.switched.store(true, Ordering::Release);
        Upgraded { _exchange: exchange, shutdown: self.shutdown }
    }
}

impl Upgraded {
    /// Resolves when Pixy is going down; that its listener was closed does not end it.
    pub async fn going_down(&mut self) {
        super::going_down(&mut self.shutdown).await;
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    /// Over HTTP/2, being asked for more means that there was room for what came before.
    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        // Over HTTP/1 there is none: the socket's side sees by itself what is not taken.
        let _ = STREAM.try_with(|waits| {
            waits.writing.moved(this.handed_on);
            this.handed_on = 0;
            if let Poll::Ready(Some(Ok(frame))) = &frame {
                this.handed_on = frame.data_ref().map_or(0, Buf::remaining);
                waits.writing.begin();
            }
        });
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
    /// The next wait starts anew.
    pub(super) fn renew(&mut self) {
        self.deadline = None;
    }

    /// Ready when the wait has lasted for so long.
    pub(super) fn poll(&mut self, time: Duration, context: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + time);
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
