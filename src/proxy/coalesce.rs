//! Pieces of a stream that are there at the same time leave together: one write instead of one for each.
//!
//! hyper hands a body on piece by piece, so a burst of events that came in one packet would leave in as many packets as it has
//! events, each with its own system call. Here whatever is there is asked for before anything leaves. Nothing waits for anything
//! that is not there yet: no timer and no read lies between a lone piece and its way out.
//!
//! Over HTTP/1 asking is enough (`upstream::Incoming::comes_at_once`). Over HTTP/2 the connection has a task of its own, which
//! must have its turn before it can have made the next piece: when nothing more is ready, the other tasks that are ready run
//! first, and then another look decides. But a piece that comes after a silence is most likely alone: it leaves at once, without
//! another look.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::time::{Duration, Instant};

/// What was gathered so far.
pub struct Coalesced<E> {
    /// A piece that is alone leaves as it came, uncopied.
    first: Bytes,
    more: BytesMut,
    looks: u8,
    most_looks: u8,
    /// When the last of it left.
    left: Option<Instant>,
    end: End<E>,
}

/// What came after the last piece, and is still to be told.
enum End<E> {
    None,
    Clean,
    /// Told one look later: with an error hyper drops what it has not written, and that may be what came just before.
    Breaks(E),
    Broken(E),
}

/// The next piece of a stream, and whether it is known to be the last.
pub type Piece = (Bytes, bool);

/// So much is worth a write of its own.
const ENOUGH: usize = 16 * 1024;

/// How often it is looked again before what was gathered leaves, where other tasks must run before. hyper asks a body twice each
/// time that its own task runs, hence two.
const LOOKS: u8 = 2;

/// What comes sooner than this after the last that left is part of a burst.
const SILENCE: Duration = Duration::from_millis(1);

impl<E> Coalesced<E> {
    /// `at_once`: what is there comes when it is asked for, without another task having run before.
    pub fn new(at_once: bool) -> Self {
        let most_looks = if at_once { 0 } else { LOOKS };
        Self { first: Bytes::new(), more: BytesMut::new(), looks: 0, most_looks, left: None, end: End::None }
    }

    /// So many bytes are here and have not left.
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    /// What there is, as one piece.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Piece, E>>>,
    ) -> Poll<Option<Result<Bytes, E>>> {
        match std::mem::replace(&mut self.end, End::None) {
            End::None => {}
            End::Clean => return Poll::Ready(None),
            End::Breaks(error) => {
                self.end = End::Broken(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            End::Broken(error) => return Poll::Ready(Some(Err(error))),
        }
        loop {
            match next(context) {
                Poll::Ready(Some(Ok((piece, last)))) => {
                    self.looks = if self.len() == 0 && self.was_silent() { self.most_looks } else { 0 };
                    self.add(piece);
                    if last || self.len() >= ENOUGH {
                        return Poll::Ready(Some(Ok(self.take())));
                    }
                }
                Poll::Ready(Some(Err(error))) if self.len() == 0 => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) if self.len() == 0 => return Poll::Ready(None),
                Poll::Ready(end) => {
                    self.end = end.and_then(Result::err).map_or(End::Clean, End::Breaks);
                    return Poll::Ready(Some(Ok(self.take())));
                }
                Poll::Pending if self.len() == 0 => return Poll::Pending,
                Poll::Pending if self.looks < self.most_looks => {
                    self.looks += 1;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Ready(Some(Ok(self.take()))),
            }
        }
    }

    fn was_silent(&self) -> bool {
        self.left.is_none_or(|left| left.elapsed() > SILENCE)
    }

    fn add(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
        } else {
            if self.more.is_empty() {
                self.more.reserve(ENOUGH.min(8 * (self.first.len() + piece.len())));
                self.more.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.more.extend_from_slice(&piece);
        }
    }

    fn take(&mut self) -> Bytes {
        self.left = Some(Instant::now());
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

    /// What a stream gives when it is asked: pieces, or nothing yet.
    enum Gives {
        Piece(&'static str),
        Last(&'static str),
        Nothing,
        Broken,
        End,
    }
    use Gives::{Broken, End, Last, Nothing, Piece};

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What leaves in the middle of a burst.
    fn leaves(stream: impl IntoIterator<Item = Gives>) -> Vec<String> {
        let mut gather = Coalesced::new(false);
        gather.left = Some(Instant::now());
        leaves_from(gather, stream)
    }

    /// What leaves, looked at again for as long as a look was asked for; "-" where there is nothing for now.
    fn leaves_from(mut gather: Coalesced<&'static str>, stream: impl IntoIterator<Item = Gives>) -> Vec<String> {
        let mut stream: VecDeque<_> = stream.into_iter().collect();
        let count = Arc::new(Wakes::default());
        let waker = Arc::clone(&count).into();
        let mut context = Context::from_waker(&waker);
        let mut left = Vec::new();
        let mut seen = 0;
        loop {
            let polled = gather.poll(&mut context, |_| match stream.pop_front() {
                Some(Piece(text)) => Poll::Ready(Some(Ok((Bytes::from_static(text.as_bytes()), false)))),
                Some(Last(text)) => Poll::Ready(Some(Ok((Bytes::from_static(text.as_bytes()), true)))),
                Some(Broken) => Poll::Ready(Some(Err("broken"))),
                Some(End) => Poll::Ready(None),
                Some(Nothing) | None => Poll::Pending,
            });
            match polled {
                Poll::Ready(Some(Ok(piece))) => left.push(String::from_utf8(piece.to_vec()).unwrap()),
                Poll::Ready(Some(Err(error))) => left.push(format!("({error})")),
                Poll::Ready(None) => left.push("(end)".to_owned()),
                Poll::Pending => {
                    let woken = count.0.load(Ordering::Relaxed);
                    if woken == seen {
                        left.push("-".to_owned());
                    }
                    seen = woken;
                }
            }
            if stream.is_empty() && left.last().is_some_and(|last| last == "-" || last.starts_with('(')) {
                return left;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_ready_leaves_together_also_when_the_reader_needs_a_turn_for_each() {
        assert_eq!(leaves([Piece("a"), Piece("b"), Piece("c")]), ["abc", "-"]);
        assert_eq!(leaves([Piece("a"), Nothing, Nothing, Piece("b"), Nothing, Piece("c"), Nothing]), ["abc", "-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_piece_of_a_burst_leaves_after_two_looks_and_wakes_nobody_later() {
        assert_eq!(leaves([Piece("a"), Nothing, Nothing, Nothing, Nothing]), ["a", "-"]);
        assert_eq!(leaves([Nothing]), ["-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_silence_a_lone_piece_leaves_without_another_look() {
        let first = || {
            leaves_from(Coalesced::new(false), [Piece("a"), Nothing, Piece("b"), Nothing, Piece("c"), Nothing, Nothing])
        };
        assert_eq!(first(), ["a", "bc", "-"], "b comes at once: a burst has begun");
        let later = || Coalesced { left: Instant::now().checked_sub(2 * SILENCE), ..Coalesced::new(false) };
        assert_eq!(leaves_from(later(), [Piece("a"), Nothing, Nothing]), ["a", "-"]);
        assert_eq!(leaves_from(later(), [Piece("a"), Piece("b"), Nothing, Piece("c")]), ["abc", "-"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_piece_waits_for_no_look() {
        assert_eq!(leaves([Piece("a"), Last("b"), End]), ["ab", "(end)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_the_end_leaves_before_it() {
        assert_eq!(leaves([Piece("a"), Nothing, Piece("b"), End]), ["ab", "(end)"]);
        assert_eq!(leaves([Piece("a"), Broken]), ["a", "(broken)"]); // with a look between them, see `End`
        assert_eq!(leaves([Broken]), ["(broken)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_run_leaves_in_parts_and_a_large_piece_uncopied() {
        let text: &'static str = "x".repeat(1000).leak();
        let left = leaves((0..40).map(|_| Piece(text)));
        assert_eq!(left.iter().map(String::len).collect::<Vec<_>>(), [17_000, 17_000, 6000, 1]);
        let large = Bytes::from(vec![0; ENOUGH]);
        let mut gather = Coalesced::<()>::new(false);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let polled = gather.poll(&mut context, |_| Poll::Ready(Some(Ok((large.clone(), false)))));
        let Poll::Ready(Some(Ok(piece))) = polled else { panic!("it leaves at once") };
        assert_eq!(piece.as_ptr(), large.as_ptr());
    }
}
