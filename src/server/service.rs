//! Between hyper and a surface: what each request is given, and what is taken from it.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;
use tower::{Service, ServiceExt as _};

use super::admission::ConnectionLimit;
use super::connection::{Answer, ConnectionState};
use super::framing::strict::{Protocol, REFUSED};
use super::reject::Rejection;
use super::stall::STREAM;
use super::{Limits, Peer, Shutdown, http2};

/// A surface, as one connection serves it.
pub(super) struct Entry<S> {
    pub(super) surface: S,
    pub(super) peer: Peer,
    pub(super) protocol: Protocol,
    pub(super) limits: Limits,
    pub(super) pulse: Arc<ConnectionState>,
    /// Held by each exchange, so that many streams are no way around the limit of connections.
    pub(super) exchanges: Arc<ConnectionLimit>,
    pub(super) shutdown: watch::Receiver<Shutdown>,
}

impl<S> Entry<S> {
    /// Gives the request what it needs, and says whether it is refused.
    fn prepare(&self, request: &mut Request<Incoming>) -> Option<Rejection> {
        let marked = request.headers_mut().remove(REFUSED).is_some();
        let refused = match self.protocol {
            // Who sends the mark without having been refused is refused now.
            _ if marked => {
                Some(self.pulse.refused().unwrap_or(Rejection::BadRequest("x-pixy-refused is not for clients")))
            }
            Protocol::Http1 => None,
            Protocol::Http2 => http2::normalise(request, &self.limits).err(),
        };
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        if let Some(refused) = refused {
            extensions.insert(refused);
        } else if self.protocol == Protocol::Http1 && request.headers().contains_key(UPGRADE) {
            let switch = self.pulse.switch(self.shutdown.clone());
            request.extensions_mut().insert(switch);
        }
        refused
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Entry<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Answer<B>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let begun = self.pulse.begin();
        let is_last = self.prepare(&mut request).is_some() || *self.shutdown.borrow() != Shutdown::No;
        let closes = is_last && self.protocol == Protocol::Http1;
        let (mut surface, exchanges) = (self.surface.clone(), Arc::clone(&self.exchanges));
        let waits = Arc::clone(self.pulse.waits());
        Box::pin(async move {
            // Over HTTP/1, what the exchange waits for is what the connection waits for.
            let waits = STREAM.try_with(Arc::clone).unwrap_or(waits);
            let place = exchanges.room(None).await.map(|room| room.taken_by(waits));
            let mut response = surface.ready().await?.call(request).await?;
            if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| begun.answer(body, place)))
        })
    }
}
