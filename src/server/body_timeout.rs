//! Request bodies with an idle timeout.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};

use super::connection::IdleTimer;

/// The body of a request, with an idle timeout and without its trailers: they could carry what headers may not
/// (RFC 9110 §6.5.1), and no profile lists any.
pub struct TimeoutBody<B> {
    body: B,
    idle_time: Duration,
    timer: IdleTimer,
}

impl<B> TimeoutBody<B> {
    /// Fails when no byte of `body` arrives for `idle_time` while the body is polled.
    pub fn new(body: B, idle_time: Duration) -> Self {
        Self { body, idle_time, timer: IdleTimer::default() }
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if frame.data_ref().is_some_and(Buf::has_remaining) {
                    this.timer.reset();
                }
                if frame.is_trailers() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(frame))) }
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.timer.poll_elapsed(this.idle_time, context) {
                Poll::Ready(()) => Poll::Ready(Some(Err("the request body timed out".into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
