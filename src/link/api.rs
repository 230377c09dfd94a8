//! The link surface over HTTP: the page, the JSON API and the way back of loopback redirects.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::client_snippets::{self, AgentEndpoint};
use super::guard::{self, Guard, Person};
use super::http::{self, LinkBody, RequestBody};
use super::page::{self, Facts};
use super::problem::Problem;
use super::{Identified, Linker, vault_admin};
use crate::account::{Account, Unlinked};
use crate::server::{Address, Peer, Rejection};
use crate::upstream::BoxError;

/// Several changes within this become one event.
const EVENT_PAUSE: Duration = Duration::from_millis(150);

/// A comment on quiet event streams, so that a dead connection is noticed.
const EVENT_HEARTBEAT: Duration = Duration::from_secs(20);

/// The link surface; cheap to clone.
#[derive(Clone)]
pub struct LinkApi {
    parts: Arc<LinkServices>,
    surface: Surface,
}

/// What both faces of the link surface share.
pub struct LinkServices {
    /// The journey.
    pub linker: Arc<Linker>,
    /// Who may.
    pub guard: Guard,
    /// Where agents connect, for what is to be copied.
    pub door: Box<dyn Fn(&Account) -> AgentEndpoint + Send + Sync>,
    /// For the page's foot.
    pub facts: Arc<ArcSwap<Facts>>,
    /// The page's own address, while it is on.
    pub page: Arc<ArcSwapOption<Address>>,
    /// Goes up with every change that a person could see.
    pub changes: watch::Receiver<u64>,
    /// What was wrong with the configuration when it was read last, if it was not taken up.
    pub problem: watch::Receiver<Option<String>>,
}

/// The two faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    /// TCP: the page; every call needs a secret.
    Page,
    /// The control socket: the kernel says who it is.
    Control,
}

impl LinkApi {
    /// One face of the surface.
    pub fn new(parts: Arc<LinkServices>, surface: Surface) -> Self {
        Self { parts, surface }
    }

    async fn answer(&self, request: Request<RequestBody>) -> Result<Response<LinkBody>, Problem> {
        if let Some(refused) = request.extensions().get::<Rejection>() {
            return Err(Problem::refused(*refused));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if self.surface == Surface::Page {
            let is_callback = self.parts.linker.is_callback_path(&path);
            guard::check_origin(&method, request.headers(), is_callback)?;
            if !path.starts_with("/api/") {
                return self.page(&method, &path, request.uri().query().unwrap_or_default()).await;
            }
            if (&method, path.as_str()) == (&Method::POST, "/api/session") {
                let body: SetupCode = http::read(request).await?;
                let session = self.parts.guard.open_session(&body.setup_code)?;
                return Ok(http::json_response(&json!({ "session": session.expose() })));
            }
        }
        let person = match self.surface {
            Surface::Page => self.parts.guard.person(request.headers())?,
            Surface::Control => guard::socket_person(request.extensions().get::<Peer>().and_then(|peer| peer.uid))?,
        };
        self.call(&person, &method, &path, request).await
    }

    /// What needs no session: it tells nothing.
    async fn page(&self, method: &Method, path: &str, query: &str) -> Result<Response<LinkBody>, Problem> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Problem::no_call());
        }
        if path == "/" {
            return Ok(http::html_response(page::index(&self.parts.facts.load())));
        }
        if let Some(asset) = page::asset(path) {
            return Ok(http::response(asset.content_type, asset.body));
        }
        if self.parts.linker.is_callback_path(path) {
            let outcome = self.parts.linker.come_back(path, query).await;
            return Ok(http::html_response(page::callback(&outcome)));
        }
        Err(Problem::no_call())
    }

    /// The calls of a known person.
    async fn call(
        &self,
        _: &Person,
        method: &Method,
        path: &str,
        request: Request<RequestBody>,
    ) -> Result<Response<LinkBody>, Problem> {
        let linker = &self.parts.linker;
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let answer = match (method.as_str(), segments.as_slice()) {
            ("GET", ["api", "accounts"]) => json!(self.accounts()),
            ("GET", ["api", "events"]) => return Ok(self.events()),
            ("GET", ["api", "accounts", name, "env"]) => {
                let account = linker.account(name)?;
                json!(client_snippets::recipes(&account, &(self.parts.door)(&account)))
            }
            ("POST", ["api", "accounts", name, "attempts"]) => self.begin(name, request).await?,
            ("POST", ["api", "attempts", id, "paste"]) => {
                let body: Pasted = http::read(request).await?;
                identified_json(&linker.paste(id, &body.text).await?)
            }
            ("POST", ["api", "attempts", id, "confirm"]) => {
                linker.confirm(id).await?;
                json!({ "state": "linked" })
            }
            ("DELETE", ["api", "attempts", id]) => {
                linker.cancel(id)?;
                json!({ "state": "cancelled" })
            }
            ("POST", ["api", "accounts", name, "key"]) => {
                let body: Key = http::read(request).await?;
                linker.set_key(name, &body.key).await?;
                json!({ "state": "linked" })
            }
            ("POST", ["api", "accounts", name, "refresh"]) => {
                let account = linker.account(name)?;
                account.refresh_soon();
                json!({ "state": account.view().state.as_str() })
            }
            ("DELETE", ["api", "accounts", name]) => json!({ "revoked": revoked_json(linker.unlink(name).await?) }),
            ("POST", ["api", "accounts", name, "older-copy"]) if self.surface == Surface::Control => {
                let account = linker.account(name)?;
                let accepted = account.accept_older_copy().await;
                accepted.map_err(|error| Problem::not_stored(&error.to_string()))?;
                json!({ "state": account.view().state.as_str() })
            }
            ("GET", ["api", "configuration"]) if self.surface == Surface::Control => {
                json!({ "file": self.parts.facts.load().file, "problem": *self.parts.problem.borrow() })
            }
            ("POST", ["api", "setup"]) if self.surface == Surface::Control => self.setup()?,
            ("POST", ["api", "vault", call]) if self.surface == Surface::Control => {
                vault_admin::handle(self.parts.linker.book(), call, request).await?
            }
            _ => return Err(Problem::no_call()),
        };
        Ok(http::json_response(&answer))
    }

    /// The body may name a flow; there may be none.
    async fn begin(&self, name: &str, request: Request<RequestBody>) -> Result<Value, Problem> {
        let wanted: Option<Begin> = http::read_optional(request).await?;
        let flow = wanted.and_then(|wanted| wanted.flow);
        let id = self.parts.linker.begin(name, flow.as_deref()).await?;
        self.parts.linker.begun_json(name, &id).ok_or_else(Problem::no_attempt)
    }

    /// The page's address with a fresh setup code in the fragment, which no server ever sees.
    fn setup(&self) -> Result<Value, Problem> {
        let Some(address) = self.parts.page.load_full() else {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "page_off",
                "The page is off (`link.listen: off`).",
                "Link in the terminal: `pixy link NAME`.",
            ));
        };
        let host = match &*address {
            Address::Tcp(address) if address.ip().is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unix(_) => "http://localhost".to_owned(),
        };
        Ok(json!({ "url": format!("{host}/#{}", self.parts.guard.setup_code().expose()) }))
    }

    fn accounts(&self) -> Vec<super::json::AccountJson> {
        self.parts.linker.accounts(|account| (self.parts.door)(account))
    }

    /// Server-sent events: all accounts, at once and after every change.
    fn events(&self) -> Response<LinkBody> {
        let start = (self.clone(), self.parts.changes.clone(), true);
        let events = futures_util::stream::unfold(start, |(api, mut changes, first)| async move {
            let heard = if first {
                true
            } else {
                match tokio::time::timeout(EVENT_HEARTBEAT, changes.changed()).await {
                    Ok(Ok(())) => true,
                    Ok(Err(_)) => return None, // Pixy is going down
                    Err(_) => false,
                }
            };
            if heard && !first {
                tokio::time::sleep(EVENT_PAUSE).await;
            }
            let text = if heard {
                changes.mark_unchanged();
                format!("event: accounts\ndata: {}\n\n", json!(api.accounts()))
            } else {
                ": still here\n\n".to_owned()
            };
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(text))), (api, changes, false)))
        });
        let mut response = Response::new(StreamBody::new(events).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }
}

impl tower::Service<Request<Incoming>> for LinkApi {
    type Response = Response<LinkBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        http::serve(request, move |request| {
            let this = this.clone();
            async move { this.answer(request).await }
        })
    }
}

#[derive(Deserialize)]
struct SetupCode {
    setup_code: String,
}

#[derive(Deserialize)]
struct Begin {
    flow: Option<String>,
}

#[derive(Deserialize)]
struct Pasted {
    text: String,
}

#[derive(Deserialize)]
struct Key {
    key: String,
}

fn identified_json(identified: &Identified) -> Value {
    json!({
        "identity": identified.identity,
        "scopes": identified.scopes,
        "missing_scopes": identified.missing_scopes,
        "replaces": identified.replaces,
    })
}

fn revoked_json(unlinked: Unlinked) -> Value {
    match unlinked {
        Unlinked::Revoked => json!(true),
        Unlinked::NotRevoked => json!(false),
        Unlinked::Pending => json!("pending"),
    }
}
