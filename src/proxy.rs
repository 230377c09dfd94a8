//! The gateway: a request's way from the agent to the one upstream of its account, and the answer's way back.
//!
//! `Proxy::pass` is the whole journey; each step lives in a file of its own, and the types between them
//! (`Route`, `Stripped`, `Grant`, `Outgoing`) are made
//! by their own step alone, so that a step cannot be left out.

pub mod agent;
pub(crate) mod attach;
mod forward;
mod websocket_frames;
mod coalesce;
mod replay_body;
mod refusal;
mod request_id;
pub(crate) mod route;
mod response_scrub;
mod stream;
pub(crate) mod strip;
mod upgrade;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::account::{Account, Accounts, Bearer, LONGEST_WAIT, Unusable};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::oauth::profile::ErrorShape;
use crate::server::{Rejection, TimeoutBody};
use crate::upstream::{self, Upstream};
use agent::{Agents, Grant};
use refusal::Refusal;
use replay_body::Kept;
use request_id::RequestId;
use response_scrub::Scrub;
use route::{Purpose, Route};
pub use stream::ReplyBody;
use strip::Stripped;
use upgrade::{Handshake, Tunnel};

/// The agent surface, as one listener serves it; cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    parts: Arc<ProxyServices>,
    /// The account that the listener is bound to; then paths have no account prefix.
    bound: Option<AccountName>,
    /// Only this machine, or Pixy's own user and group, reach it.
    local: bool,
}

/// What all agent listeners share.
pub struct ProxyServices {
    /// The accounts.
    pub accounts: Accounts,
    /// Who may ask.
    pub agents: Agents,
    /// The way out.
    pub upstream: Upstream,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How much of a request is taken.
    pub limits: ArcSwap<Limits>,
}

/// How much of a request is taken.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A longer body is refused.
    pub body_bytes: u64,
    /// So much of a body is kept while it streams, for a second try after a 401; 0: no request is tried twice.
    pub replay_bytes: usize,
    /// No byte of a body for so long, while one is waited for, ends it.
    pub idle_time: Duration,
}

/// A request that passed every check, to be sent with whatever token is fresh.
struct Checked {
    id: RequestId,
    grant: Grant,
    route: Route,
    stripped: Stripped,
    method: Method,
    body: Kept,
    /// It asks for a WebSocket.
    handshake: Option<Handshake>,
}

/// An upstream's answer, and what watches it for the secrets of the token that it was asked with.
struct Answer {
    response: Response<upstream::Incoming>,
    scrub: Scrub,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 64 << 20, replay_bytes: 1 << 20, idle_time: Duration::from_mins(2) }
    }
}

impl Proxy {
    /// A surface for one listener. Where it is not `local`, nobody is served without a key, also while there is none: the
    /// connections of a listener that was closed outlive the keys that it came with.
    pub fn new(parts: Arc<ProxyServices>, bound: Option<AccountName>, local: bool) -> Self {
        Self { parts, bound, local }
    }

    /// Passes a request on, or says why not.
    async fn handle(self, request: Request<Incoming>) -> Response<ReplyBody> {
        let id = RequestId::next();
        let refused = request.extensions().get::<Rejection>().copied();
        let account = route::account(&self.parts.accounts, self.bound.as_ref(), request.uri());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let name = account.as_ref().map(|account| account.name().clone());
        let asks_for_socket = upgrade::is_asked(request.headers());
        let result = match (refused, &account) {
            (Some(refused), _) => Err(Refusal::Unread(refused)),
            (None, Some(account)) => self.pass(id, account, request).await,
            (None, None) => Err(Refusal::NoRoute),
        };
        let result = result.map_err(|refusal| if asks_for_socket { upgrade::as_heard(refusal) } else { refusal });
        let code = result.as_ref().err().map_or("", Refusal::code);
        let mut response = result.unwrap_or_else(|refusal| {
            let shape = account.as_ref().map_or(ErrorShape::OpenAi, |account| account.profile().api.errors);
            refusal.into_response(shape, name.as_ref(), id)
        });
        response.headers_mut().insert(request_id::FIELD, id.to_value());
        self.parts.metrics.record_request(name.as_ref(), response.status().as_u16(), code);
        // The query may hold a key, so it is not shown; neither are headers and bodies.
        tracing::info!(request_id = %id, %method, path, account = name.as_ref().map(AccountName::as_str), status = response.status().as_u16(), code, "request");
        response
    }

    /// The journey.
    async fn pass(
        &self,
        id: RequestId,
        account: &Arc<Account>,
        request: Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let (mut head, body) = request.into_parts();
        if !strip::has_one_host(&head.headers) {
            return Err(Refusal::BadRequest("a request must carry exactly one Host"));
        }
        agent::refuse_browser(&head.headers)?;
        let asks_for_socket = upgrade::is_asked(&head.headers);
        let find = if asks_for_socket { route::find_socket } else { route::find };
        let route = find(account, self.bound.is_some(), &head.method, &head.uri)?;
        let handshake = asks_for_socket.then(|| Handshake::take(&mut head, &body)).transpose()?;
        let stripped = strip::strip(head.headers, &route);
        let grant = self.parts.agents.authorize(&stripped, account.name())?;
        if grant.agent().is_none() && !self.local {
            return Err(Refusal::AgentKeyMissing);
        }
        if route.purpose() == Purpose::Hello {
            return Ok(Response::new(ReplyBody::fixed("")));
        }
        let until = Instant::now() + LONGEST_WAIT;
        let limits = **self.parts.limits.load();
        let body = replay_body::keep(TimeoutBody::new(body, limits.idle_time), limits)?;
        let checked = Checked { id, grant, route, stripped, method: head.method, body, handshake };
        let bearer = account.bearer(until).await.map_err(Refusal::Token)?;
        let open = self.parts.metrics.count_open_stream();
        let mut answer = self.send(&checked, &bearer).await?;
        if answer.response.status() == StatusCode::UNAUTHORIZED {
            // Boxed, for it is rare and would make every request's future larger.
            answer = Box::pin(self.repair(answer, &checked, &bearer, until)).await?;
        }
        let idle = self.parts.upstream.idle_timeout();
        let Answer { response, scrub } = answer;
        let spending = account.answered(response.headers());
        match checked.handshake {
            Some(handshake) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let account = account.name().clone();
                let tunnel = Tunnel { id, account, grant: checked.grant, scrub, spending, idle, open };
                Ok(handshake.complete(response, tunnel))
            }
            Some(_) if response.status() == StatusCode::UNAUTHORIZED => Err(Refusal::NoWebSocket),
            _ => Ok(response.map(|body| ReplyBody::streaming(body, idle, checked.grant, scrub, spending, open))),
        }
    }

    /// One attempt.
    async fn send(&self, checked: &Checked, bearer: &Bearer) -> Result<Answer, Refusal> {
        let Checked { id, grant, route, stripped, method, body, handshake } = checked;
        // The token is good, the request cannot be sent again: the agent can.
        let again = Unusable::Unavailable { retry_after: Duration::from_secs(1) };
        let attempt = body.attempt().ok_or(Refusal::Token(again))?;
        let outgoing = attach::attach(grant, route, stripped, bearer, method.clone(), attempt, handshake.as_ref())?;
        let mut scrub = Scrub::new(*id, bearer, route.account().name(), &self.parts.metrics);
        let sent = forward::forward(*id, &self.parts.upstream, outgoing, &mut scrub).await;
        let response = sent.map_err(|refusal| body.too_large().unwrap_or(refusal))?;
        Ok(Answer { response, scrub })
    }

    /// The upstream refused the token before its time (RFC 6750 §3.1): with a newer one, the same request once more. Without
    /// one the refusal is the answer.
    async fn repair(
        &self,
        refused: Answer,
        checked: &Checked,
        bearer: &Bearer,
        until: Instant,
    ) -> Result<Answer, Refusal> {
        let account = checked.route.account();
        let Some(newer) = account.successor(bearer, until).await else {
            self.parts.metrics.record_repair(account.name(), "no_newer_token");
            return Ok(Answer { response: refusal::final_refusal(refused.response), ..refused });
        };
        drop(refused);
        let answer = self.send(checked, &newer).await;
        self.parts.metrics.record_repair(account.name(), if answer.is_ok() { "sent_again" } else { "failed" });
        answer
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
