//! The body of an upstream's response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::h1::Http1;
use super::h2::StreamPermit;
use super::{AmbiguousFraming, BoxError};

/// A response's body. Dropping it before its end aborts the stream: RST_STREAM over HTTP/2, the end of the connection over
/// HTTP/1.1.
pub struct Incoming {
    body: hyper::body::Incoming,
    connection: BodyConnection,
    ambiguous: AmbiguousFraming,
}

/// The connection of a body: returned at the body's end, dropped if the body is not read to its end.
pub(super) enum BodyConnection {
    /// Already returned, or not needed any more.
    None,
    /// Returned to the pool after a clean end alone: otherwise the next request would read the rest of this response.
    Http1(Http1),
    Http2(#[expect(dead_code, reason = "held to be dropped")] Arc<StreamPermit>),
    /// A connection of its own, which ends when this is dropped.
    Exclusive(#[expect(dead_code, reason = "held to be dropped")] oneshot::Sender<()>),
}

impl Incoming {
    pub(super) fn new(body: hyper::body::Incoming, connection: BodyConnection, ambiguous: AmbiguousFraming) -> Self {
        Self { body, connection, ambiguous }
    }

    /// A body that no pool's connection belongs to.
    #[cfg(test)]
    pub(crate) fn for_tests(body: hyper::body::Incoming, is_ready_when_polled: bool) -> Self {
        let connection =
            if is_ready_when_polled { BodyConnection::None } else { BodyConnection::Exclusive(oneshot::channel().0) };
        Self { body, connection, ambiguous: AmbiguousFraming::Refuse }
    }

    /// Whether a poll returns all that has arrived. Otherwise another task has to run first.
    pub fn is_ready_when_polled(&self) -> bool {
        matches!(self.connection, BodyConnection::Http1(_) | BodyConnection::None)
    }

    fn return_connection(&mut self) {
        if let BodyConnection::Http1(connection) = std::mem::replace(&mut self.connection, BodyConnection::None) {
            connection.give_back();
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, connection, ambiguous } = &mut *self;
        let frame = ready!(match connection {
            BodyConnection::Http1(connection) => {
                connection.poll(context, |context| Pin::new(&mut *body).poll_frame(context))
            }
            _ => Pin::new(&mut *body).poll_frame(context),
        });
        // hyper ends a body also after RST_STREAM or GOAWAY with NO_ERROR, complete or not (RFC 9113 §8.1 means a complete one).
        let is_cut = frame.is_none() && matches!(connection, BodyConnection::Http2(_)) && !body.is_end_stream();
        if is_cut && *ambiguous == AmbiguousFraming::Refuse {
            self.connection = BodyConnection::None;
            return Poll::Ready(Some(Err("the upstream ended the HTTP/2 stream before the response's end".into())));
        }
        match &frame {
            None => self.return_connection(),
            Some(Err(_)) => self.connection = BodyConnection::None,
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
    /// A reader that has the last byte need not poll for the end.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.return_connection();
        }
    }
}
