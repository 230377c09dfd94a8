//! A request's body on its way out, kept while it streams so that it can be sent a second time after a 401.
//!
//! Keeping delays nothing: a piece is handed on as it comes, and what is kept are further references to the same bytes, or
//! copies where they are few.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::Limits;
use super::refusal::Refusal;
use crate::server::TimeoutBody;
use crate::upstream::{Body, BoxError};

/// A request's body that can be sent again, as far as it was kept.
pub struct Kept(Arc<Mutex<Shared>>);

/// What the attempts of one request share; at any time one of them reads.
struct Shared {
    incoming: TimeoutBody<Incoming>,
    /// Everything that came, unless it was given up.
    pieces: Vec<Bytes>,
    /// No more is kept: it was too much, or the answer is there.
    given_up: bool,
    passed: u64,
    limits: Limits,
    too_large: bool,
    ended: bool,
    /// The attempt that may read.
    attempt: usize,
    /// It waits for more to come.
    waiting: Option<Waker>,
}

/// The body of one attempt.
struct Attempt {
    shared: Arc<Mutex<Shared>>,
    number: usize,
    /// How many pieces of `pieces` it has handed on.
    handed_on: usize,
    /// Bytes still to come, if the agent said how many.
    left: Option<u64>,
}

/// Takes a body over. One that says it is too large is refused before anything is sent.
pub fn keep(incoming: TimeoutBody<Incoming>, limits: Limits) -> Result<Kept, Refusal> {
    if incoming.size_hint().lower() > limits.body_bytes {
        return Err(Refusal::RequestTooLarge { limit: limits.body_bytes });
    }
    let shared = Shared {
        incoming,
        pieces: Vec::new(),
        // Not even a request without a body is sent twice then.
        given_up: limits.replay_bytes == 0,
        passed: 0,
        limits,
        too_large: false,
        ended: false,
        attempt: 0,
        waiting: None,
    };
    Ok(Kept(Arc::new(Mutex::new(shared))))
}

impl Kept {
    /// The body from its beginning; an attempt before ends. `None` when there was one and the beginning was not kept.
    pub fn attempt(&self) -> Option<Body> {
        let mut shared = lock(&self.0);
        if shared.given_up && shared.attempt > 0 {
            return None;
        }
        shared.attempt += 1;
        if let Some(waiting) = shared.waiting.take() {
            waiting.wake(); // so that it hears that it is over, and its connection is let go of
        }
        let kept: u64 = shared.pieces.iter().map(|piece| piece.len() as u64).sum();
        let left = shared.incoming.size_hint().exact().map(|left| kept + left);
        let attempt = Attempt { shared: Arc::clone(&self.0), number: shared.attempt, handed_on: 0, left };
        Some(attempt.boxed_unsync())
    }

    /// More came than may be sent; the attempt was broken off for it.
    pub fn too_large(&self) -> Option<Refusal> {
        let shared = lock(&self.0);
        shared.too_large.then_some(Refusal::RequestTooLarge { limit: shared.limits.body_bytes })
    }
}

impl Drop for Kept {
    /// The answer is there: no attempt will follow, so nothing need be kept. A first attempt has handed on all of it.
    fn drop(&mut self) {
        let mut shared = lock(&self.0);
        if shared.attempt <= 1 {
            shared.give_up();
        }
    }
}

impl Shared {
    fn give_up(&mut self) {
        self.given_up = true;
        self.pieces = Vec::new();
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
            // Trailers of a request could carry what its headers may not (RFC 9110 §6.5.1): none passes.
            let Ok(piece) = frame?.into_data() else { continue };
            self.passed += piece.len() as u64;
            if self.passed > self.limits.body_bytes {
                self.too_large = true;
                return Poll::Ready(Some(Err("the request's body is too large".into())));
            }
            let too_much = self.passed > self.limits.replay_bytes as u64;
            if !self.given_up && (too_much || self.pieces.len() > self.limits.replay_bytes / LEAST_PIECE) {
                self.give_up();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
    }
}

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut shared = lock(&this.shared);
        if shared.attempt != this.number {
            return Poll::Ready(Some(Err("the request is being sent again".into())));
        }
        let piece = match shared.pieces.get(this.handed_on) {
            Some(piece) => piece.clone(),
            None => match ready!(shared.poll_incoming(context)) {
                Some(Ok(piece)) => {
                    if !shared.given_up {
                        shared.pieces.push(kept(&piece));
                    }
                    piece
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            },
        };
        this.handed_on += 1;
        this.left = this.left.map(|left| left.saturating_sub(piece.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// What is kept of a piece. A body that drips would keep a whole buffer of hyper's alive with every few bytes.
fn kept(piece: &Bytes) -> Bytes {
    if piece.len() < SMALL_PIECE { Bytes::copy_from_slice(piece) } else { piece.clone() }
}

/// Smaller pieces are kept as copies. hyper reads into buffers of 8 KiB and more.
const SMALL_PIECE: usize = 4096;

/// A body in pieces that are smaller on the average is kept only in part: what is beside the bytes would be more than they.
const LEAST_PIECE: usize = 256;

/// A panic elsewhere leaves bytes that are still bytes.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bytes_do_not_keep_the_buffer_that_they_came_in() {
        let buffer = Bytes::from(vec![b'x'; 64 * 1024]);
        let drop = buffer.slice(100..166);
        assert_eq!(kept(&drop), drop);
        assert_ne!(kept(&drop).as_ptr(), drop.as_ptr(), "a copy");
        let piece = buffer.slice(100..8292);
        assert_eq!(kept(&piece).as_ptr(), piece.as_ptr(), "the same bytes");
    }
}
