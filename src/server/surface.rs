//! What a listener serves.

use std::error::Error;
use std::future::Future;

use http::{Request, Response};
use hyper::body::{Body, Incoming};

use super::listener::Peer;
use super::rejection::Rejection;

/// An HTTP interface of Pixy, served by one or more listeners.
pub trait Surface: Send + Sync + 'static {
    /// The body of its responses.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;

    /// What it knows about one connection. Cloned for each request.
    type Connection: Clone + Send + 'static;

    /// Called once per connection, before its first request is read.
    fn connect(&self, peer: Peer) -> impl Future<Output = Self::Connection> + Send;

    /// Answers a request.
    fn call(
        &self,
        connection: Self::Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// The response to a request that never becomes a [`Request`]: its head was rejected. The connection closes after it.
    fn reject(&self, rejection: Rejection) -> Response<Self::Body>;
}
