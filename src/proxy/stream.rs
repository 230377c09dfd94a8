//! The body of an answer on its way to the agent: bytes leave as they come, those that came together in one piece, but for what
//! may be the start of a secret.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::agent::Grant;
use super::coalesce::{Coalesced, Piece};
use super::response_scrub::Scrub;
use crate::account::UsageMeter;
use crate::metrics::OpenStream;
use crate::upstream::{BoxError, Incoming};

/// An answer's body: fixed text of ours, or the upstream's stream.
pub enum ReplyBody {
    /// Ours.
    Fixed(Full<Bytes>),
    /// The upstream's.
    Streaming(Box<Streaming>),
}

/// The upstream's body, with what must live exactly as long: dropping it, because the agent hung up, ends the upstream's
/// stream and frees the agent's limits.
pub struct Streaming {
    source: Source,
    /// Before the scrubber and the counter: they, too, cost less for one piece than for many.
    gather: Coalesced<BoxError>,
    scrub: Scrub,
    spending: UsageMeter,
    grant: Grant,
    _open: OpenStream,
}

/// The upstream's body, which may be silent only for so long.
struct Source {
    body: Incoming,
    idle_timeout: Duration,
    last_activity: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ReplyBody {
    /// Text that is there as a whole.
    pub fn fixed(text: impl Into<Bytes>) -> Self {
        Self::Fixed(Full::new(text.into()))
    }

    /// What the upstream sends.
    pub fn streaming(
        body: Incoming,
        idle_timeout: Duration,
        grant: Grant,
        scrub: Scrub,
        spending: UsageMeter,
        open: OpenStream,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(idle_timeout));
        let last_activity = Instant::now();
        let source = Source { body, idle_timeout, last_activity, timer };
        let gather = Coalesced::new(source.body.comes_at_once());
        Self::Streaming(Box::new(Streaming { source, gather, scrub, spending, grant, _open: open }))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Fixed(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Streaming(streaming) => streaming.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(body) => body.is_end_stream(),
            Self::Streaming(streaming) => streaming.held() == 0 && streaming.source.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(body) => body.size_hint(),
            Self::Streaming(streaming) => streaming.size_hint(),
        }
    }
}

impl Drop for Streaming {
    /// Also when the agent hung up: what the model has said by then is spent.
    fn drop(&mut self) {
        self.grant.count_tokens(self.spending.count().total());
    }
}

impl Streaming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { source, gather, scrub, spending, .. } = self;
        loop {
            let passing = match ready!(gather.poll(context, |context| source.poll(context))) {
                Some(Ok(piece)) => {
                    spending.feed(&piece);
                    let last = gather.len() == 0 && source.body.is_end_stream();
                    let passing = scrub.piece(piece, last);
                    if passing.is_empty() {
                        continue;
                    }
                    passing
                }
                // What is held back stays: it may be the larger part of a secret, and the answer is broken anyway.
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = scrub.piece(Bytes::new(), true);
                    if rest.is_empty() {
                        return Poll::Ready(None);
                    }
                    rest
                }
            };
            return Poll::Ready(Some(Ok(Frame::data(passing))));
        }
    }

    /// So many bytes have come and not left.
    fn held(&self) -> usize {
        self.scrub.held() + self.gather.len()
    }

    /// What is held back is still to come.
    fn size_hint(&self) -> SizeHint {
        let (hint, held) = (self.source.body.size_hint(), self.held() as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(held));
        }
        whole.set_lower(hint.lower().saturating_add(held));
        whole
    }
}

impl Source {
    /// The next piece. Trailers could carry what headers may not (RFC 9110 §6.5.1): none is on a list, so none passes.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Piece, BoxError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return self.poll_silence(context),
        };
        self.last_activity = Instant::now();
        let piece = frame.and_then(|frame| frame.map(Frame::into_data).map(Result::ok).transpose());
        Poll::Ready(piece.map(|piece| piece.map(|piece| (piece, self.body.is_end_stream()))))
    }

    /// The timer is moved only when it fires, not with every chunk.
    fn poll_silence<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, BoxError>>> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let silent_until = self.last_activity + self.idle_timeout;
            if Instant::now() >= silent_until {
                return Poll::Ready(Some(Err("the upstream fell silent".into())));
            }
            self.timer.as_mut().reset(silent_until);
        }
    }
}
