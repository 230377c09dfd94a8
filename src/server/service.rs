//! The service that hyper calls for each request of one connection.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::admission::ConnectionLimit;
use super::connection::{ConnectionState, ExchangeBody};
use super::framing::strict::SUBSTITUTE_MARK;
use super::rejection::Rejection;
use super::shutdown::Shutdown;
use super::surface::Surface;

/// A surface, as one connection is served by it.
pub(super) struct ConnectionService<S: Surface> {
    pub(super) surface: Arc<S>,
    pub(super) facts: S::Connection,
    pub(super) state: Arc<ConnectionState>,
    pub(super) shutdown: watch::Receiver<Shutdown>,
    pub(super) limit: ConnectionLimit,
}

impl<S: Surface> ConnectionService<S> {
    /// The rejection that a substitute request stands for. A client that forges the mark is rejected for it.
    fn take_rejection(&self, request: &mut Request<Incoming>) -> Option<Rejection> {
        request.headers_mut().remove(SUBSTITUTE_MARK)?;
        Some(self.state.take_rejection().unwrap_or(Rejection::BadRequest("x-pixy-refused is not for clients")))
    }
}

impl<S: Surface> hyper::service::Service<Request<Incoming>> for ConnectionService<S> {
    type Response = Response<ExchangeBody<S::Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let is_pipelined = self.state.is_pipelined();
        let exchange = self.state.begin_exchange();
        let rejection = self.take_rejection(&mut request);
        // While others wait, a connection serves one request: a client with many would keep its place.
        let closes = rejection.is_some() || *self.shutdown.borrow() != Shutdown::No || self.limit.is_contended();
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(self.state.upgrade(self.shutdown.clone()));
        }
        let (surface, facts) = (Arc::clone(&self.surface), self.facts.clone());
        Box::pin(async move {
            if is_pipelined {
                // Otherwise hyper serves up to sixteen of them before another connection has its turn.
                tokio::task::yield_now().await;
            }
            let mut response = match rejection {
                Some(rejection) => surface.reject(rejection),
                None => surface.call(facts, request).await,
            };
            if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| exchange.into_body(body)))
        })
    }
}
