//! A request's body that is kept while it streams, so that it can be sent a second time after a 401.
//!
//! Keeping adds no delay: a piece is forwarded as it arrives, and what is kept are further references to the same bytes, or copies
//! of small pieces.
//!
//! Memory is reserved before it is used: at the start for what may be on its way to the upstream, and while the body streams for what
//! is kept. Without room a request is refused, and a body is not kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::refusal::Refusal;
use crate::lock::lock;
use crate::memory::{MemoryBudget, Reservation};
use crate::server::TimeoutBody;
use crate::upstream::{Body, BoxError};

/// Limits of request bodies.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// The longest body, in bytes.
    pub body_bytes: u64,
    /// The longest body that is kept for a second attempt after a 401, in bytes; 0: no request is sent twice.
    pub replay_bytes: usize,
    /// The longest wait for the next byte of a body.
    pub idle_time: Duration,
}

/// A request's body that can be sent again, as far as it was kept.
pub struct ReplayBody(Arc<Mutex<ReplayState>>);

/// What the attempts of one request share; one of them reads at any time.
struct ReplayState {
    incoming: TimeoutBody<Incoming>,
    /// All pieces so far, unless `discarded`.
    pieces: Vec<Bytes>,
    /// Nothing is kept: the body is too long, or a response has arrived.
    discarded: bool,
    /// Bytes read so far.
    read: u64,
    limits: BodyLimits,
    memory: Reservation,
    /// Bytes of `memory` that `pieces` occupy or may occupy; the first of them are those on their way.
    occupied: usize,
    too_large: bool,
    ended: bool,
    /// The attempt that may read, counted from 1.
    attempt: usize,
    /// Its task, while it waits for the next piece.
    waiting: Option<Waker>,
}

/// The body of one attempt.
struct AttemptBody {
    state: Arc<Mutex<ReplayState>>,
    number: usize,
    /// The next index in `pieces`.
    next: usize,
    /// Bytes still to come, if the length is known.
    remaining: Option<u64>,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { body_bytes: 64 << 20, replay_bytes: 1 << 20, idle_time: Duration::from_mins(2) }
    }
}

impl ReplayBody {
    /// Refuses a body whose declared length is over the limit, or for which no memory is free, before anything is sent.
    pub fn new(incoming: Incoming, limits: BodyLimits, memory: &MemoryBudget) -> Result<Self, Refusal> {
        let length = incoming.size_hint();
        if length.lower() > limits.body_bytes {
            return Err(Refusal::RequestTooLarge { limit: limits.body_bytes });
        }
        let length = usize::try_from(length.upper().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let on_its_way = if length <= FREE_BODY { 0 } else { length.min(ON_ITS_WAY) };
        let memory = memory.reserve(on_its_way).ok_or(Refusal::Overloaded)?;
        let state = ReplayState {
            incoming: TimeoutBody::new(incoming, limits.idle_time),
            pieces: Vec::new(),
            // With 0 not even a request without a body is sent twice.
            discarded: limits.replay_bytes == 0,
            read: 0,
            limits,
            memory,
            occupied: 0,
            too_large: false,
            ended: false,
            attempt: 0,
            waiting: None,
        };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// The body from its first byte; ends the attempt before. `None` if it is a second attempt and the body was not kept.
    pub fn attempt(&self) -> Option<Body> {
        let mut state = lock(&self.0);
        if state.discarded && state.attempt > 0 {
            return None;
        }
        state.attempt += 1;
        if let Some(waiting) = state.waiting.take() {
            waiting.wake(); // it fails with an error, which frees its connection
        }
        let kept: u64 = state.pieces.iter().map(|piece| piece.len() as u64).sum();
        let remaining = state.incoming.size_hint().exact().map(|left| kept + left);
        let attempt = AttemptBody { state: Arc::clone(&self.0), number: state.attempt, next: 0, remaining };
        Some(attempt.boxed_unsync())
    }

    /// The refusal if the body exceeded the limit, which aborted the attempt.
    pub fn too_large(&self) -> Option<Refusal> {
        let state = lock(&self.0);
        state.too_large.then_some(Refusal::RequestTooLarge { limit: state.limits.body_bytes })
    }
}

impl Drop for ReplayBody {
    /// The response has arrived, so there will be no further attempt. A first attempt has forwarded all pieces; a second one
    /// still reads them.
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        if state.attempt <= 1 {
            state.discard();
        }
    }
}

impl ReplayState {
    fn discard(&mut self) {
        self.discarded = true;
        self.pieces = Vec::new();
        self.memory.shrink(self.memory.bytes().saturating_sub(ON_ITS_WAY));
    }

    /// Keeps the piece, unless nothing is kept or no memory is free for it.
    fn keep(&mut self, piece: &Bytes) {
        if self.discarded {
            return;
        }
        self.occupied += if piece.len() < SMALL_PIECE { piece.len() + PIECE_OVERHEAD } else { piece.len().max(BUFFER) };
        let missing = self.occupied.saturating_sub(self.memory.bytes().max(FREE_BODY));
        if missing > 0 && !self.memory.grow(missing) {
            return self.discard();
        }
        self.pieces.push(keep(piece));
    }

    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Ready(Some(frame)) => frame,
                Poll::Ready(None) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    self.waiting = Some(context.waker().clone());
                    return Poll::Pending;
                }
            };
            // Request trailers could carry fields that headers may not (RFC 9110 §6.5.1): none is forwarded.
            let Ok(piece) = frame?.into_data() else { continue };
            self.read += piece.len() as u64;
            if self.read > self.limits.body_bytes {
                self.too_large = true;
                return Poll::Ready(Some(Err("the request's body is too large".into())));
            }
            let too_long = self.read > self.limits.replay_bytes as u64;
            if !self.discarded && (too_long || self.pieces.len() > self.limits.replay_bytes / MIN_AVERAGE_PIECE) {
                self.discard();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
    }
}

impl HttpBody for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut state = lock(&this.state);
        if state.attempt != this.number {
            return Poll::Ready(Some(Err("the request is being sent again".into())));
        }
        let piece = match state.pieces.get(this.next) {
            Some(piece) => piece.clone(),
            None => match ready!(state.poll_incoming(context)) {
                Some(Ok(piece)) => {
                    state.keep(&piece);
                    piece
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            },
        };
        this.next += 1;
        this.remaining = this.remaining.map(|remaining| remaining.saturating_sub(piece.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A reference to the piece, or a copy if it is small: a reference to a few bytes keeps a whole buffer of hyper's alive.
fn keep(piece: &Bytes) -> Bytes {
    if piece.len() < SMALL_PIECE { Bytes::copy_from_slice(piece) } else { piece.clone() }
}

/// In bytes. Smaller pieces are copied; larger ones occupy hyper's buffer, of 8 or 16 KiB.
const SMALL_PIECE: usize = 8 * 1024;

/// In bytes: hyper's buffer.
const BUFFER: usize = 16 * 1024;

/// In bytes: of a kept copy, beyond its data.
const PIECE_OVERHEAD: usize = 64;

/// In bytes. A body that is no longer is covered by the fixed part of its connection.
const FREE_BODY: usize = 16 * 1024;

/// In bytes: the most of a body that was read and that the upstream has not accepted, in the buffers of hyper (64 KiB and a piece)
/// and of TLS (64 KiB).
const ON_ITS_WAY: usize = 144 * 1024;

/// In bytes. A body whose pieces are smaller on average is not kept: the overhead per piece would exceed the data.
const MIN_AVERAGE_PIECE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_is_copied_and_a_large_one_is_not() {
        let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
        let small = buffer.slice(100..166);
        assert_eq!(keep(&small), small);
        assert_ne!(keep(&small).as_ptr(), small.as_ptr(), "a copy");
        let large = buffer.slice(100..8293);
        assert_eq!(keep(&large).as_ptr(), large.as_ptr(), "the same bytes");
    }
}
