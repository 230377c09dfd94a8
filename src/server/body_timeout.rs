//! The body of a request on its way on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};

use super::connection::IdleTimer;
use super::stall::{STREAM, StallTracker};

/// The body of a request, waited for only so long, and without its trailers: they could carry what headers may not
/// (RFC 9110 §6.5.1), and none is on a list.
pub struct TimeoutBody<B> {
    body: B,
    idle_time: Duration,
    patience: IdleTimer,
    /// Of an HTTP/2 stream; over HTTP/1, the socket's side sees by itself what does not come.
    waits: Option<Arc<StallTracker>>,
}

impl<B> TimeoutBody<B> {
    /// Fails when no byte of `body` comes for `idle_time` while one is waited for. To be made where the request is handled.
    pub fn new(body: B, idle_time: Duration) -> Self {
        Self { body, idle_time, patience: IdleTimer::default(), waits: STREAM.try_with(Arc::clone).ok() }
    }
}

impl<B> Drop for TimeoutBody<B> {
    fn drop(&mut self) {
        if let Some(waits) = &self.waits {
            waits.reading.end();
        }
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
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if let Some(waits) = &this.waits {
            match &frame {
                Poll::Pending => waits.reading.begin(),
                Poll::Ready(Some(Ok(frame))) => waits.reading.moved(frame.data_ref().map_or(0, Buf::remaining)),
                Poll::Ready(_) => waits.reading.end(),
            }
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if frame.data_ref().is_some_and(Buf::has_remaining) {
                    this.patience.renew();
                }
                if frame.is_trailers() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(frame))) }
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.patience.poll(this.idle_time, context) {
                Poll::Ready(()) => Poll::Ready(Some(Err("the body of a request stopped coming".into()))),
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
