//! The gateway: forwards a request of an agent to the upstream of its account, and streams the response back.
//!
//! `Proxy::pass` shows all steps in order; each step is a file. The types between the steps (`Route`, `Stripped`, `AgentGrant`,
//! `Outgoing`) are made by their own step alone, so that no step can be left out.

pub mod agent;
pub(crate) mod attach;
mod coalesce;
mod forward;
mod comma_lists;
mod refusal;
mod reject_response;
mod replay_body;
mod representation;
mod request_id;
mod response_body;
mod response_scrub;
pub(crate) mod route;
pub(crate) mod strip;
mod token_refused;
mod websocket_frames;
mod websocket_handshake;
mod websocket_relay;
#[cfg(test)]
mod non_interference;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::account::{Account, Accounts, Bearer, LONGEST_WAIT, TokenRefusal, Unusable};
use crate::hardening::PeerAudit;
use crate::memory::MemoryBudget;
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::oauth::profile::ErrorShape;
use crate::server::{Peer, Rejection, Surface};
use crate::upstream::{self, Upstream};
use agent::{AgentGrant, Agents};
use refusal::Refusal;
use reject_response::{reject_response, without_retry};
use replay_body::ReplayBody;
use request_id::RequestId;
use response_scrub::ResponseScrub;
use route::{Purpose, Route};
use strip::Stripped;
use websocket_handshake::Handshake;
use websocket_relay::WebSocketRelay;

pub use replay_body::BodyLimits;
pub use response_body::ResponseBody;

/// The agent surface of one listener.
pub struct Proxy {
    services: Arc<ProxyServices>,
    /// The account that the listener is bound to; then paths have no account prefix.
    bound: Option<AccountName>,
    /// The listener is reachable from this machine, or by Pixy's own user and group, alone.
    local: bool,
}

/// Shared by all agent listeners.
pub struct ProxyServices {
    /// The accounts.
    pub accounts: Accounts,
    /// Authenticates and authorizes agents.
    pub agents: Agents,
    /// Connections to the providers.
    pub upstream: Upstream,
    /// Request counters.
    pub metrics: Arc<Metrics>,
    /// Reports agents that run as Pixy's own user.
    pub peer_audit: Arc<PeerAudit>,
    /// Limits of request bodies.
    pub limits: ArcSwap<BodyLimits>,
    /// For request bodies.
    pub memory: MemoryBudget,
}

/// A request that passed every check, ready to be sent with a token.
struct CheckedRequest {
    id: RequestId,
    grant: AgentGrant,
    route: Route,
    stripped: Stripped,
    method: Method,
    body: ReplayBody,
    /// The request asks for a WebSocket.
    handshake: Option<Handshake>,
}

/// The upstream's response, and the scrubber for the secrets of the token that it was requested with.
struct UpstreamResponse {
    response: Response<upstream::Incoming>,
    /// Whether the provider refused the token.
    refusal: Option<TokenRefusal>,
    scrub: ResponseScrub,
}

impl Proxy {
    /// A surface for one listener. Unless it is `local`, every request needs an agent key, also while there are none: connections
    /// of a removed listener outlive the keys that were configured with it.
    pub fn new(services: Arc<ProxyServices>, bound: Option<AccountName>, local: bool) -> Self {
        Self { services, bound, local }
    }

    /// Forwards a request, or responds with the refusal; counts and logs it.
    async fn handle(&self, peer: Peer, request: Request<Incoming>) -> Response<ResponseBody> {
        self.services.peer_audit.check(peer, &self.services.metrics).await;
        let id = RequestId::next();
        let account = route::account(&self.services.accounts, self.bound.as_ref(), request.uri());
        let method = cut(request.method().as_str(), LOGGED_METHOD);
        let path = cut(request.uri().path(), LOGGED_PATH);
        let asks_for_websocket = websocket_handshake::is_requested(request.headers());
        let result = match &account {
            Some(account) => self.pass(id, account, request).await,
            None => Err(Refusal::NoRoute),
        };
        let result =
            result.map_err(|refusal| if asks_for_websocket { websocket_handshake::refuse(refusal) } else { refusal });
        let (response, code) = self.finish(id, account.as_deref(), result);
        let account = account.as_ref().map(|account| account.name().as_str());
        let status = response.status();
        // Without the query, which may hold a key, and without headers and bodies.
        if is_probe(&response) {
            // Without `code`, it may be suppressed: a provider bounds the number of other requests.
            tracing::info!(request_id = %id, %method, path, account, status = status.as_u16(), "request");
        } else {
            tracing::info!(request_id = %id, %method, path, account, status = status.as_u16(), code, "request");
        }
        response
    }

    /// The response to the agent, with its request id, and the code of the refusal or "". Counts it.
    fn finish(
        &self,
        id: RequestId,
        account: Option<&Account>,
        result: Result<Response<ResponseBody>, Refusal>,
    ) -> (Response<ResponseBody>, &'static str) {
        let name = account.map(Account::name);
        let code = result.as_ref().err().map_or("", Refusal::code);
        let mut response = result.unwrap_or_else(|refusal| {
            let shape = account.map_or(ErrorShape::OpenAi, |account| account.profile().api.errors);
            reject_response(&refusal, shape, name, id)
        });
        response.headers_mut().insert(request_id::FIELD, id.to_value());
        self.services.metrics.record_request(name, response.status().as_u16(), code);
        (response, code)
    }

    /// All steps of a request, in order.
    async fn pass(
        &self,
        id: RequestId,
        account: &Arc<Account>,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let (mut head, body) = request.into_parts();
        if !strip::has_one_host(&head.headers) {
            return Err(Refusal::BadRequest("a request must carry exactly one Host"));
        }
        agent::refuse_browser(&head.headers)?;
        let asks_for_websocket = websocket_handshake::is_requested(&head.headers);
        let find = if asks_for_websocket { route::find_websocket } else { route::find };
        let route = find(account, self.bound.is_some(), &head.method, &head.uri)?;
        let handshake = asks_for_websocket.then(|| Handshake::take(&mut head, &body)).transpose()?;
        let stripped = strip::strip(head.headers, &route);
        let grant = self.services.agents.authorize(&stripped, account.name())?;
        if grant.agent().is_none() && !self.local {
            return Err(Refusal::AgentKeyMissing);
        }
        if route.purpose() == Purpose::ConnectivityProbe {
            return Ok(Response::new(ResponseBody::fixed("")));
        }
        stripped.report_dropped(account);
        let deadline = Instant::now() + LONGEST_WAIT;
        let body = ReplayBody::new(body, **self.services.limits.load(), &self.services.memory)?;
        let checked = CheckedRequest { id, grant, route, stripped, method: head.method, body, handshake };
        let bearer = account.bearer(deadline).await.map_err(Refusal::Token)?;
        let open = self.services.metrics.count_open_stream();
        let mut received = self.send(&checked, &bearer).await?;
        if received.refusal.is_some() {
            // Boxed: it is rare, and would make the future of every request larger.
            received = Box::pin(self.retry_with_newer_token(received, &checked, &bearer, deadline)).await?;
        } else if received.is_accepted() {
            account.accepted(&bearer);
        }
        received.refuse_unreadable()?;
        let idle_timeout = self.services.upstream.idle_timeout();
        let UpstreamResponse { response, scrub, .. } = received;
        let usage = account.answered(response.headers());
        let CheckedRequest { grant, handshake, .. } = checked;
        match handshake {
            Some(handshake) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let account = account.name().clone();
                let relay = WebSocketRelay { id, account, grant, scrub, usage, idle_timeout, open };
                Ok(websocket_relay::start(handshake, response, relay))
            }
            Some(_) if response.status() == StatusCode::UNAUTHORIZED => Err(Refusal::NoWebSocket),
            _ => Ok(response.map(|body| ResponseBody::streaming(body, idle_timeout, grant, scrub, usage, open))),
        }
    }

    /// One attempt.
    async fn send(&self, checked: &CheckedRequest, bearer: &Bearer) -> Result<UpstreamResponse, Refusal> {
        let CheckedRequest { id, grant, route, stripped, method, body, handshake } = checked;
        // The token is good, but the body was not kept: the agent can retry.
        let retry = Unusable::Unavailable { retry_after: Duration::from_secs(1) };
        let attempt = body.attempt().ok_or(Refusal::Token(retry))?;
        let outgoing = attach::attach(grant, route, stripped, bearer, method.clone(), attempt, handshake.as_ref())?;
        let mut scrub = ResponseScrub::new(*id, bearer.patterns(), route.account().name(), &self.services.metrics);
        let sent = forward::forward(*id, &self.services.upstream, outgoing, &mut scrub).await;
        let mut response = sent.map_err(|refusal| body.too_large().unwrap_or(refusal))?;
        let refusal = token_refused::refusal(&bearer.profile().api.token_refused, &mut response, &scrub).await;
        Ok(UpstreamResponse { response, refusal, scrub })
    }

    /// The upstream refused the token before it expired (RFC 6750 §3.1): sends the request once more with a newer token. Without
    /// one, returns the upstream's response.
    async fn retry_with_newer_token(
        &self,
        refused: UpstreamResponse,
        checked: &CheckedRequest,
        bearer: &Bearer,
        deadline: Instant,
    ) -> Result<UpstreamResponse, Refusal> {
        let (account, metrics) = (checked.route.account(), &self.services.metrics);
        let Some(refusal) = refused.refusal.clone() else { return Ok(refused) };
        let Some(successor) = account.successor(bearer, refusal, deadline).await else {
            metrics.record_repair(account.name(), "no_newer_token");
            return Ok(UpstreamResponse { response: without_retry(refused.response), ..refused });
        };
        drop(refused);
        let received = self.send(checked, &successor.bearer).await;
        metrics.record_repair(account.name(), if received.is_ok() { "sent_again" } else { "failed" });
        match &received {
            Ok(UpstreamResponse { refusal: Some(refusal), .. }) => account.refused_again(&successor, refusal.clone()),
            Ok(received) if received.is_accepted() => account.accepted_again(&successor),
            Ok(_) | Err(_) => {}
        }
        received
    }
}

/// Whether Pixy answered by itself, without a refusal.
fn is_probe(response: &Response<ResponseBody>) -> bool {
    response.status().is_success() && matches!(response.body(), ResponseBody::Fixed(_))
}

/// A client's text as it is logged: at most `length` bytes, with a mark if there were more.
fn cut(text: &str, length: usize) -> String {
    if text.len() <= length {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(length)])
}

impl UpstreamResponse {
    /// Whether the upstream served the request with its token.
    fn is_accepted(&self) -> bool {
        self.refusal.is_none() && self.response.status().as_u16() < 400
    }

    /// Refuses a 401 that cannot be searched for secrets; `forward` has checked every other response.
    fn refuse_unreadable(&self) -> Result<(), Refusal> {
        let (status, headers) = (self.response.status(), self.response.headers());
        if status != StatusCode::UNAUTHORIZED || hyper::body::Body::is_end_stream(self.response.body()) {
            return Ok(());
        }
        representation::check(status, headers).map_err(|_| Refusal::TokenRefusedEncoded)
    }
}

impl Surface for Proxy {
    type Body = ResponseBody;
    type Connection = Peer;

    async fn connect(&self, peer: Peer) -> Peer {
        peer
    }

    // Not an `async fn`: its future would contain the request twice.
    fn call(&self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Response<ResponseBody>> + Send {
        self.handle(peer, request)
    }

    fn reject(&self, rejection: Rejection) -> Response<ResponseBody> {
        let id = RequestId::next();
        let account = self.bound.as_ref().and_then(|name| self.services.accounts.find(name.as_str()));
        let (response, code) = self.finish(id, account.as_deref(), Err(Refusal::Rejected(rejection)));
        let account = account.as_ref().map(|account| account.name().as_str());
        tracing::info!(request_id = %id, account, status = response.status().as_u16(), code, "malformed request");
        response
    }
}

/// Bytes of a method that are logged.
const LOGGED_METHOD: usize = 32;

/// Bytes of a path that are logged: a model's name fits.
const LOGGED_PATH: usize = 200;
