//! The body of an upstream's response.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
    /// Read by [`Incoming::look_ahead`] and not yet returned.
    ahead: VecDeque<Result<Frame<Bytes>, BoxError>>,
    ended: bool,
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
        Self { body, connection, ambiguous, ahead: VecDeque::new(), ended: false }
    }

    /// Reads the beginning of the body, at most `limit` bytes and for at most `timeout`, and returns it. It stays in the body.
    pub async fn look_ahead(&mut self, limit: usize, timeout: Duration) -> Vec<u8> {
        let mut beginning = Vec::new();
        let read = async {
            while beginning.len() < limit {
                let Some(frame) = poll_fn(|context| self.poll_connection(context)).await else { return };
                let is_error = frame.is_err();
                if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                    beginning.extend_from_slice(&data[..data.len().min(limit - beginning.len())]);
                }
                self.ahead.push_back(frame);
                if is_error {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(timeout, read).await; // what was read until then
        beginning
    }

    /// A body that no pool's connection belongs to.
    #[cfg(test)]
    pub(crate) fn for_tests(body: hyper::body::Incoming, is_ready_when_polled: bool) -> Self {
        let connection =
            if is_ready_when_polled { BodyConnection::None } else { BodyConnection::Exclusive(oneshot::channel().0) };
        Self { body, connection, ambiguous: AmbiguousFraming::Refuse, ahead: VecDeque::new(), ended: false }
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
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.poll_connection(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.ended || self.body.is_end_stream())
    }

    /// What is left on the connection plus what was read ahead.
    fn size_hint(&self) -> SizeHint {
        let ahead: usize = self.ahead.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (hint, ahead) = (self.body.size_hint(), ahead as u64);
        let mut whole = SizeHint::new();
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(ahead));
        }
        whole.set_lower(hint.lower().saturating_add(ahead));
        whole
    }
}

impl Incoming {
    fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Self { body, connection, ambiguous, .. } = self;
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
            None => {
                self.ended = true;
                self.return_connection();
            }
            Some(Err(_)) => self.connection = BodyConnection::None,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
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
