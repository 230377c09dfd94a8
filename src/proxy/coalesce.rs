//! Coalesces pieces of a stream that are ready at the same time: one write instead of one per piece.
//!
//! hyper yields a body piece by piece, so a burst of events that arrived in one packet would leave in as many packets as it has
//! events, each with its own system call. Here the body is polled for all that is ready before anything is written. A piece
//! never waits for data that has not arrived: no timer and no read delays it.
//!
//! Over HTTP/1 polling is enough (`upstream::Incoming::is_ready_when_polled`). Over HTTP/2 the connection's own task must run
//! before the next piece can be ready: on `Pending` the task yields to the other runnable tasks and polls once more. But a piece
//! after a pause is most likely alone: it is written at once, without a second poll.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, Instant};

/// The pieces coalesced so far.
pub struct Coalesced<E> {
    /// A lone piece is forwarded without a copy.
    first: Bytes,
    more: BytesMut,
    yields: u8,
    max_yields: u8,
    /// When the last piece was returned.
    returned_at: Option<Instant>,
    end: End<E>,
}

/// The end of the stream, to be returned after the last piece.
enum End<E> {
    NotReached,
    Clean,
    /// Returned after one more yield: on an error hyper drops what it has not written, which may be the head or the last piece.
    DelayedError(E),
    Error(E),
}

/// The next piece of a stream, and whether it is known to be the last.
pub type StreamPiece = (Bytes, bool);

/// In bytes: enough for a write of its own.
const WRITE_SIZE: usize = 16 * 1024;

/// Yields before coalesced pieces are returned, where other tasks must run first. hyper polls a body twice each time that its own
/// task runs, hence two.
const YIELDS: u8 = 2;

/// A piece that follows the last one sooner than this is part of a burst.
const BURST_GAP: Duration = Duration::from_millis(1);

impl<E> Coalesced<E> {
    /// `ready_when_polled`: a poll returns all that has arrived, without another task having to run.
    pub fn new(ready_when_polled: bool) -> Self {
        let max_yields = if ready_when_polled { 0 } else { YIELDS };
        let (first, more) = (Bytes::new(), BytesMut::new());
        Self { first, more, yields: 0, max_yields, returned_at: None, end: End::NotReached }
    }

    /// Bytes received and not yet returned.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    /// Polls `next` for all that is ready and returns it as one piece.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<StreamPiece, E>>>,
    ) -> Poll<Option<Result<Bytes, E>>> {
        match std::mem::replace(&mut self.end, End::NotReached) {
            End::NotReached => {}
            End::Clean => return Poll::Ready(None),
            End::DelayedError(error) => {
                self.end = End::Error(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            End::Error(error) => return Poll::Ready(Some(Err(error))),
        }
        loop {
            match next(context) {
                Poll::Ready(Some(Ok((piece, last)))) => {
                    self.yields = if self.len() == 0 && self.is_after_pause() { self.max_yields } else { 0 };
                    self.add(piece);
                    if last || self.len() >= WRITE_SIZE {
                        return Poll::Ready(Some(Ok(self.take())));
                    }
                }
                Poll::Ready(Some(Err(error))) if self.len() == 0 => {
                    self.end = End::Error(error);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) if self.len() == 0 => return Poll::Ready(None),
                Poll::Ready(end) => {
                    self.end = end.and_then(Result::err).map_or(End::Clean, End::DelayedError);
                    return Poll::Ready(Some(Ok(self.take())));
                }
                Poll::Pending if self.len() == 0 => return Poll::Pending,
                Poll::Pending if self.yields < self.max_yields => {
                    self.yields += 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(Some(Ok(self.take()))),
            }
        }
    }

    fn is_after_pause(&self) -> bool {
        self.returned_at.is_none_or(|at| at.elapsed() > BURST_GAP)
    }

    fn add(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
        } else {
            if self.more.is_empty() {
                self.more.reserve(WRITE_SIZE.min(8 * (self.first.len() + piece.len())));
                self.more.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.more.extend_from_slice(&piece);
        }
    }

    fn take(&mut self) -> Bytes {
        self.returned_at = Some(Instant::now());
        if self.more.is_empty() { std::mem::take(&mut self.first) } else { std::mem::take(&mut self.more).freeze() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// What a poll of the stream returns.
    enum Polled {
        Piece(&'static str),
        Last(&'static str),
        NotReady,
        Error,
        End,
    }
    use Polled::{End, Error, Last, NotReady, Piece};

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The pieces that are returned in the middle of a burst.
    fn written(stream: impl IntoIterator<Item = Polled>) -> Vec<String> {
        let mut coalesced = Coalesced::new(false);
        coalesced.returned_at = Some(Instant::now());
        written_by(coalesced, stream)
    }

    /// The pieces that are returned; "-" where a poll is pending and has not woken its task.
    fn written_by(mut coalesced: Coalesced<&'static str>, stream: impl IntoIterator<Item = Polled>) -> Vec<String> {
        let mut stream: VecDeque<_> = stream.into_iter().collect();
        let count = Arc::new(WakeCount::default());
        let waker = Arc::clone(&count).into();
        let mut context = Context::from_waker(&waker);
        let mut written = Vec::new();
        let mut seen = 0;
        loop {
            let polled = coalesced.poll(&mut context, |_| match stream.pop_front() {
                Some(Piece(text)) => Poll::Ready(Some(Ok((Bytes::from_static(text.as_bytes()), false)))),
                Some(Last(text)) => Poll::Ready(Some(Ok((Bytes::from_static(text.as_bytes()), true)))),
                Some(Error) => Poll::Ready(Some(Err("broken"))),
                Some(End) => Poll::Ready(None),
                Some(NotReady) | None => Poll::Pending,
            });
            match polled {
                Poll::Ready(Some(Ok(piece))) => written.push(String::from_utf8(piece.to_vec()).unwrap()),
                Poll::Ready(Some(Err(error))) => written.push(format!("({error})")),
                Poll::Ready(None) => written.push("(end)".to_owned()),
                Poll::Pending => {
                    let woken = count.0.load(Ordering::Relaxed);
                    if woken == seen {
                        written.push("-".to_owned());
                    }
                    seen = woken;
                }
            }
            if stream.is_empty() && written.last().is_some_and(|last| last == "-" || last.starts_with('(')) {
                return written;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_that_become_ready_after_a_yield_are_coalesced() {
        assert_eq!(written([Piece("a"), Piece("b"), Piece("c")]), ["abc", "-"]);
        assert_eq!(written([Piece("a"), NotReady, NotReady, Piece("b"), NotReady, Piece("c"), NotReady]), ["abc", "-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_piece_of_a_burst_is_written_after_two_yields() {
        assert_eq!(written([Piece("a"), NotReady, NotReady, NotReady, NotReady]), ["a", "-"]);
        assert_eq!(written([NotReady]), ["-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_piece_after_a_pause_is_written_without_a_yield() {
        let first = || {
            written_by(
                Coalesced::new(false),
                [Piece("a"), NotReady, Piece("b"), NotReady, Piece("c"), NotReady, NotReady],
            )
        };
        assert_eq!(first(), ["a", "bc", "-"], "b follows at once: a burst has begun");
        let later = || Coalesced { returned_at: Instant::now().checked_sub(2 * BURST_GAP), ..Coalesced::new(false) };
        assert_eq!(written_by(later(), [Piece("a"), NotReady, NotReady]), ["a", "-"]);
        assert_eq!(written_by(later(), [Piece("a"), Piece("b"), NotReady, Piece("c")]), ["abc", "-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_piece_is_written_without_a_yield() {
        assert_eq!(written([Piece("a"), Last("b"), End]), ["ab", "(end)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_before_the_end_are_written_before_it() {
        assert_eq!(written([Piece("a"), NotReady, Piece("b"), End]), ["ab", "(end)"]);
        assert_eq!(written([Piece("a"), Error]), ["a", "(broken)"]); // with a yield between them, see `End`
        assert_eq!(written([Error]), ["(broken)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_run_is_split_and_a_large_piece_is_not_copied() {
        let text: &'static str = "x".repeat(1000).leak();
        let written = written((0..40).map(|_| Piece(text)));
        assert_eq!(written.iter().map(String::len).collect::<Vec<_>>(), [17_000, 17_000, 6000, 1]);
        let large = Bytes::from(vec![0; WRITE_SIZE]);
        let mut coalesced = Coalesced::<()>::new(false);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = coalesced.poll(&mut context, |_| Poll::Ready(Some(Ok((large.clone(), false)))));
        let Poll::Ready(Some(Ok(piece))) = polled else { panic!("not written at once") };
        assert_eq!(piece.as_ptr(), large.as_ptr());
    }
}
