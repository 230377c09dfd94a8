//! The gateway: a request's way from the agent to the one upstream of its account, and the answer's way back.
//!
//! `Proxy::pass` is the whole journey; each step lives in a file of its own, and the types between them
//! (`Route`, `Stripped`, `Grant`, `Outgoing`) are made
//! by their own step alone, so that a step cannot be left out.

pub mod agent;
mod attach;
mod forward;
mod reply;
mod route;
mod stream;
mod strip;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::header::UPGRADE;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::account::{Account, Book};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::oauth::profile::ErrorShape;
use crate::upstream::Upstream;
use agent::Agents;
use reply::Refusal;
use route::Purpose;
pub use stream::ReplyBody;

/// The agent surface, as one listener serves it; cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    parts: Arc<Parts>,
    /// The account that the listener is bound to; then paths have no account prefix.
    bound: Option<AccountName>,
}

/// What all agent listeners share.
pub struct Parts {
    /// The accounts.
    pub book: Book,
    /// Who may ask.
    pub agents: Agents,
    /// The way out.
    pub upstream: Upstream,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Proxy {
    /// A surface for one listener.
    pub fn new(parts: Arc<Parts>, bound: Option<AccountName>) -> Self {
        Self { parts, bound }
    }

    /// Passes a request on, or says why not.
    async fn handle(self, request: Request<Incoming>) -> Response<ReplyBody> {
        let account = route::account(&self.parts.book, self.bound.as_ref(), request.uri()).cloned();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let name = account.as_ref().map(|account| account.name().clone());
        let result = match &account {
            Some(account) => self.pass(account, request).await,
            None => Err(Refusal::NoRoute),
        };
        let code = result.as_ref().err().map_or("", Refusal::code);
        let response = result.unwrap_or_else(|refusal| {
            let shape = account.as_ref().map_or(ErrorShape::OpenAi, |account| account.profile().api.errors);
            refusal.into_response(shape, name.as_ref())
        });
        self.parts.metrics.request(name.as_ref(), response.status().as_u16(), code);
        // The query may hold a key, so it is not shown; neither are headers and bodies.
        tracing::info!(%method, path, account = name.as_ref().map(AccountName::as_str), status = response.status().as_u16(), code, "request");
        response
    }

    /// The journey.
    async fn pass(&self, account: &Arc<Account>, request: Request<Incoming>) -> Result<Response<ReplyBody>, Refusal> {
        let (head, body) = request.into_parts();
        if !strip::has_one_host(&head.headers) {
            return Err(Refusal::BadRequest("a request must carry exactly one Host"));
        }
        agent::refuse_browser(&head.headers)?;
        // Before the list of methods: a client falls back to plain requests at once on this answer, and on no other.
        if head.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
            return Err(Refusal::NoWebSocket);
        }
        let route = route::find(account, self.bound.is_some(), &head.method, &head.uri)?;
        let stripped = strip::strip(head.headers, &route);
        let grant = self.parts.agents.authorize(&stripped, account.name())?;
        if route.purpose() == Purpose::Hello {
            return Ok(Response::new(ReplyBody::fixed("")));
        }
        let bearer = account.bearer().await.map_err(Refusal::Token)?;
        let body = body.map_err(Into::into).boxed_unsync();
        let outgoing = attach::attach(&grant, &route, &stripped, &bearer, head.method, body)?;
        let open = self.parts.metrics.open_stream();
        let response = forward::forward(&self.parts.upstream, outgoing).await?;
        if response.status() == http::StatusCode::UNAUTHORIZED {
            account.rejected(&bearer);
        }
        let idle = self.parts.upstream.idle_timeout();
        Ok(response.map(|body| ReplyBody::streaming(body, idle, grant, open)))
    }
}

impl tower::Service<Request<Incoming>> for Proxy {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request).await) })
    }
}
