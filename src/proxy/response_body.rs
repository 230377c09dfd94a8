//! The body of a response to an agent: coalesced, counted and scrubbed while it streams, never buffered as a whole.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::agent::AgentGrant;
use super::coalesce::{Coalesced, StreamPiece};
use super::response_scrub::ResponseScrub;
use crate::account::UsageMeter;
use crate::metrics::OpenStream;
use crate::upstream::{BoxError, Incoming};

/// The body of a response to an agent.
pub enum ResponseBody {
    /// Text of Pixy's own.
    Fixed(Full<Bytes>),
    /// The upstream's body.
    Streaming(Box<StreamingBody>),
}

/// The upstream's body and the resources of the request: dropping it, because the agent disconnected, ends the upstream's stream and
/// releases the agent's limits.
pub struct StreamingBody {
    upstream: UpstreamBody,
    /// Before scrubber and counter, which also cost less for one piece than for many.
    coalesced: Coalesced<BoxError>,
    scrub: ResponseScrub,
    usage: UsageMeter,
    grant: AgentGrant,
    _open: OpenStream,
}

/// The upstream's body with its idle timeout.
struct UpstreamBody {
    body: Incoming,
    idle_timeout: Duration,
    last_activity: Instant,
    timer: Pin<Box<Sleep>>,
}

impl ResponseBody {
    /// A complete text.
    pub fn fixed(text: impl Into<Bytes>) -> Self {
        Self::Fixed(Full::new(text.into()))
    }

    /// The upstream's body.
    pub fn streaming(
        body: Incoming,
        idle_timeout: Duration,
        grant: AgentGrant,
        scrub: ResponseScrub,
        usage: UsageMeter,
        open: OpenStream,
    ) -> Self {
        let coalesced = Coalesced::new(body.is_ready_when_polled());
        let (last_activity, timer) = (Instant::now(), Box::pin(tokio::time::sleep(idle_timeout)));
        let upstream = UpstreamBody { body, idle_timeout, last_activity, timer };
        Self::Streaming(Box::new(StreamingBody { upstream, coalesced, scrub, usage, grant, _open: open }))
    }
}

impl Body for ResponseBody {
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
            Self::Streaming(streaming) => streaming.held() == 0 && streaming.upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(body) => body.size_hint(),
            Self::Streaming(streaming) => streaming.size_hint(),
        }
    }
}

impl Drop for StreamingBody {
    /// Also after a disconnect: the tokens reported until then are used.
    fn drop(&mut self) {
        self.grant.count_tokens(self.usage.count().total());
    }
}

impl StreamingBody {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { upstream, coalesced, scrub, usage, .. } = self;
        loop {
            let scrubbed = match ready!(coalesced.poll(context, |context| upstream.poll(context))) {
                Some(Ok(piece)) => {
                    usage.feed(&piece);
                    let last = coalesced.len() == 0 && upstream.body.is_end_stream();
                    let scrubbed = scrub.piece(piece, last);
                    if scrubbed.is_empty() {
                        continue;
                    }
                    scrubbed
                }
                // What the scrubber holds back is dropped: it may be most of a secret, and the response is incomplete anyway.
                Some(Err(error)) => {
                    scrub.log_cut(&error);
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    let rest = scrub.piece(Bytes::new(), true);
                    if rest.is_empty() {
                        return Poll::Ready(None);
                    }
                    rest
                }
            };
            return Poll::Ready(Some(Ok(Frame::data(scrubbed))));
        }
    }

    /// Bytes received from the upstream and not yet returned.
    fn held(&self) -> usize {
        self.scrub.held() + self.coalesced.len()
    }

    /// The upstream's size hint plus the bytes held.
    fn size_hint(&self) -> SizeHint {
        let (hint, held) = (self.upstream.body.size_hint(), self.held() as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(held));
        }
        whole.set_lower(hint.lower().saturating_add(held));
        whole
    }
}

impl UpstreamBody {
    /// The next piece. Trailers are dropped: they could carry fields that headers may not (RFC 9110 §6.5.1).
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<StreamPiece, BoxError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return self.poll_timeout(context),
        };
        self.last_activity = Instant::now();
        let piece = frame.and_then(|frame| frame.map(Frame::into_data).map(Result::ok).transpose());
        Poll::Ready(piece.map(|piece| piece.map(|piece| (piece, self.body.is_end_stream()))))
    }

    /// Ready with an error after `idle_timeout` without data. The timer is reset when it fires, not with every chunk.
    fn poll_timeout<T>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, BoxError>>> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            let deadline = self.last_activity + self.idle_timeout;
            if Instant::now() >= deadline {
                return Poll::Ready(Some(Err("idle timeout: the upstream sent no data".into())));
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}
