//! Bodies, and what must live exactly as long as they do.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::BoxError;
use super::h1::Http1;
use super::h2::Slot;

/// An answer's body. Dropping it before its end tells the upstream: RST_STREAM over HTTP/2, the connection's end over
/// HTTP/1.1.
pub struct Incoming {
    body: hyper::body::Incoming,
    held: Held,
}

/// What is given back at the body's end, and let go of when there is none.
pub(super) enum Held {
    Nothing,
    /// Goes back to the pool after a clean end, and only then: otherwise the rest of this answer would be the next
    /// request's.
    Http1(Http1),
    Http2(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Slot>),
    /// A connection of its own, which ends with this.
    Own(#[expect(dead_code, reason = "it is there to be dropped")] oneshot::Sender<()>),
}

/// A request's body on its way out, with the stream that it keeps open: an answer may end before its request does.
pub(super) struct Outbound {
    body: super::Body,
    slot: Option<Arc<Slot>>,
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, held: Held) -> Self {
        Self { body, held }
    }

    /// What is there comes as soon as it is asked for: no other task has to run before.
    pub fn is_ready_when_polled(&self) -> bool {
        matches!(self.held, Held::Http1(_) | Held::Nothing)
    }

    fn ended(&mut self) {
        if let Held::Http1(connection) = std::mem::replace(&mut self.held, Held::Nothing) {
            connection.give_back();
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, held } = &mut *self;
        let frame = ready!(match held {
            Held::Http1(connection) => connection.poll(context, |context| Pin::new(&mut *body).poll_frame(context)),
            _ => Pin::new(body).poll_frame(context),
        });
        match &frame {
            None => self.ended(),
            Some(Err(_)) => self.held = Held::Nothing,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Incoming {
    /// Who has read the last byte need not ask for the end.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}

impl Outbound {
    pub(super) fn new(body: super::Body, slot: Option<Arc<Slot>>) -> Self {
        Self { body, slot }
    }

    pub(super) fn into_inner(self) -> super::Body {
        self.body
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.slot = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
