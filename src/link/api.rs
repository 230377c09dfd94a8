//! The link surface over HTTP: the page, the JSON API and the callbacks of loopback redirects.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderValue, Method, Request, Response};
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;

use super::authentication::{self, Authenticated, Guard};
use super::client_snippets::{self, AgentEndpoint};
use super::http::{self, LinkBody, RequestBody};
use super::page::{self, Facts};
use super::problem::Problem;
use super::{Linker, account_status, vault_admin};
use crate::account::{Account, DroppedNames, RevocationOutcome};
use crate::api::{
    self, Access, AccountState, AccountStateAnswer, AccountStatus, Cancelled, CancelledAnswer, Closed, ClosedSession,
    ConfigurationStatus, OpenApiDocument, Operation, PageUrl, PendingRevocation, Revocation, RevocationAnswer, Route,
    SecretText, Session,
};
use crate::secret::Secret;
use crate::server::{self, Address, Peer, Rejection};
use crate::upstream::BoxError;

/// Several changes within this become one event.
const EVENT_PAUSE: Duration = Duration::from_millis(150);

/// Idle event streams carry a comment this often, so that a dead connection is detected.
const EVENT_HEARTBEAT: Duration = Duration::from_secs(20);

/// The link surface; cheap to clone.
#[derive(Clone)]
pub struct LinkApi {
    services: Arc<LinkServices>,
    surface: LinkSurface,
}

/// What the page and the control socket share.
pub struct LinkServices {
    /// Links accounts.
    pub linker: Arc<Linker>,
    /// Authenticates calls on the page.
    pub guard: Guard,
    /// Where agents reach an account.
    pub endpoint_of: Box<dyn Fn(&Account) -> AgentEndpoint + Send + Sync>,
    /// The page's footer.
    pub facts: Arc<ArcSwap<Facts>>,
    /// The page's own address, while it is on.
    pub page: Arc<ArcSwapOption<Address>>,
    /// Incremented with every change that the page shows.
    pub changes: watch::Receiver<u64>,
    /// Why the last change of the configuration was not applied.
    pub problem: watch::Receiver<Option<String>>,
}

/// Where the API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSurface {
    /// TCP: the page; every call needs a secret.
    Page,
    /// The control socket: the kernel reports the peer's user.
    Control,
}

/// The largest body of a call that anybody may make.
const MAX_SESSION_BYTES: usize = 4096;

impl LinkApi {
    /// The API on this surface.
    pub fn new(services: Arc<LinkServices>, surface: LinkSurface) -> Self {
        Self { services, surface }
    }

    async fn answer(&self, peer: Peer, request: Request<RequestBody>) -> Result<Response<LinkBody>, Problem> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if self.surface == LinkSurface::Page {
            let is_callback = self.services.linker.callbacks.is_callback_path(&path);
            authentication::check_origin(&method, request.headers(), is_callback)?;
            if !path.starts_with("/api/") {
                return self.page(&method, &path, request.uri().query().unwrap_or_default()).await;
            }
        }
        let route = api::find_route(&method, &path);
        if self.surface == LinkSurface::Page && route.is_some_and(|(route, _)| route.access == Access::Open) {
            let code = http::read_at_most::<api::OpenSession>(MAX_SESSION_BYTES, request).await?.setup_code;
            return match self.services.guard.open_session(code.0.expose()) {
                Ok(session) => http::answer::<api::OpenSession>(&Session { session: SecretText(session) }),
                Err(denied) => Err(self.services.guard.refuse(denied).await),
            };
        }
        let person = match self.surface {
            LinkSurface::Page => match self.services.guard.authenticate(request.headers()) {
                Ok(person) => person,
                Err(denied) => return Err(self.services.guard.refuse(denied).await),
            },
            LinkSurface::Control => authentication::authenticate_peer(peer.uid)?,
        };
        match route {
            Some((route, parameter))
                if self.surface == LinkSurface::Control || route.access != Access::ControlSocket =>
            {
                self.call(person, route, parameter, request).await
            }
            _ => Err(Problem::no_call()),
        }
    }

    /// What needs no session: it holds nothing of an account.
    async fn page(&self, method: &Method, path: &str, query: &str) -> Result<Response<LinkBody>, Problem> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Problem::no_call());
        }
        if path == "/" {
            return Ok(http::html_response(page::index(&self.services.facts.load())));
        }
        if let Some(asset) = page::asset(path) {
            return Ok(http::response(asset.content_type, asset.body));
        }
        if self.services.linker.callbacks.is_callback_path(path) {
            let outcome = self.services.linker.callbacks.receive(path, query).await;
            return Ok(http::html_response(page::callback(&outcome)));
        }
        Err(Problem::no_call())
    }

    /// The calls of an authenticated person.
    async fn call(
        &self,
        person: Authenticated,
        route: &Route,
        parameter: &str,
        request: Request<RequestBody>,
    ) -> Result<Response<LinkBody>, Problem> {
        let linker = &self.services.linker;
        match route.operation {
            Operation::OpenSession => Err(Problem::no_call()), // answered on the page before authentication
            Operation::ListAccounts => http::answer::<api::ListAccounts>(&self.accounts()),
            Operation::CloseSession => {
                self.services.guard.close_session(&person);
                http::answer::<api::CloseSession>(&ClosedSession { state: Closed::Closed })
            }
            Operation::StreamAccounts => Ok(self.events(person)),
            Operation::DescribeApi => http::answer::<api::DescribeApi>(&OpenApiDocument(api::openapi::document())),
            Operation::ShowSnippets => {
                let account = linker.account(parameter)?;
                let endpoint = (self.services.endpoint_of)(&account);
                http::answer::<api::ShowSnippets>(&client_snippets::snippets(&account, &endpoint))
            }
            Operation::BeginAttempt => {
                let flow = http::read::<api::BeginAttempt>(request).await?.and_then(|options| options.flow);
                let id = linker.begin(parameter, flow.as_deref()).await?;
                let started = linker.started_attempt(parameter, &id).ok_or_else(Problem::no_attempt)?;
                http::answer::<api::BeginAttempt>(&started)
            }
            Operation::Paste => {
                let text = http::read::<api::Paste>(request).await?.text;
                http::answer::<api::Paste>(&linker.paste(parameter, text.0.expose()).await?)
            }
            Operation::ConfirmAttempt => {
                linker.confirm(parameter).await?;
                http::answer::<api::ConfirmAttempt>(&AccountStateAnswer { state: AccountState::Linked })
            }
            Operation::CancelAttempt => {
                linker.cancel(parameter)?;
                http::answer::<api::CancelAttempt>(&CancelledAnswer { state: Cancelled::Cancelled })
            }
            Operation::SetStaticCredential => {
                let key = http::read::<api::SetStaticCredential>(request).await?.key;
                linker.set_key(parameter, key.0.expose()).await?;
                http::answer::<api::SetStaticCredential>(&AccountStateAnswer { state: AccountState::Linked })
            }
            Operation::RefreshAccount => {
                let account = linker.account(parameter)?;
                account.refresh_soon();
                http::answer::<api::RefreshAccount>(&state_of(&account))
            }
            Operation::ConfirmMoved => {
                let seen = http::read::<api::ConfirmMoved>(request).await?.and_then(|confirmation| confirmation.seen);
                let account = linker.confirm_moved(parameter, seen).await?;
                http::answer::<api::ConfirmMoved>(&state_of(&account))
            }
            Operation::UnlinkAccount => {
                let revoked = revocation(linker.unlink(parameter).await?);
                http::answer::<api::UnlinkAccount>(&RevocationAnswer { revoked })
            }
            Operation::AcceptOlderCopy => {
                let account = linker.accept_older_copy(parameter).await?;
                http::answer::<api::AcceptOlderCopy>(&state_of(&account))
            }
            Operation::ShowDropped => {
                let DroppedNames { fields, query_keys } = linker.account(parameter)?.dropped();
                let (fields, query_keys) = (Vec::from(fields), Vec::from(query_keys));
                http::answer::<api::ShowDropped>(&api::DroppedNames { fields, query_keys })
            }
            Operation::ReadConfiguration => http::answer::<api::ReadConfiguration>(&ConfigurationStatus {
                file: self.services.facts.load().file.clone(),
                problem: self.services.problem.borrow().clone(),
            }),
            Operation::SetupUrl => http::answer::<api::SetupUrl>(&self.setup()?),
            Operation::RotateVaultKey => {
                http::answer::<api::RotateVaultKey>(&vault_admin::rotate_key(&linker.accounts).await?)
            }
            Operation::ExportVault => {
                let request = http::read::<api::ExportVault>(request).await?;
                http::answer::<api::ExportVault>(&vault_admin::export(&linker.accounts, &request).await?)
            }
            Operation::ImportVault => {
                let request = http::read::<api::ImportVault>(request).await?;
                http::answer::<api::ImportVault>(&vault_admin::import(&linker.accounts, &request).await?)
            }
        }
    }

    /// The page's address with a fresh setup code in the fragment, which browsers send to no server.
    fn setup(&self) -> Result<PageUrl, Problem> {
        let address = self.services.page.load_full().ok_or_else(Problem::page_off)?;
        let host = match &*address {
            Address::Tcp(address) if address.ip().is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
            Address::Tcp(address) => format!("http://{address}"),
            Address::Unix(_) => "http://localhost".to_owned(),
        };
        let url = format!("{host}/#{}", self.services.guard.setup_code().expose());
        Ok(PageUrl { url: SecretText(Secret::new(url)) })
    }

    fn accounts(&self) -> Vec<AccountStatus> {
        self.services.linker.account_statuses(|account| (self.services.endpoint_of)(account))
    }

    /// Server-sent events: all accounts, at once and after every change, until the session of `person` ends.
    fn events(&self, person: Authenticated) -> Response<LinkBody> {
        let start = (self.clone(), self.services.changes.clone(), person, true);
        let events = futures_util::stream::unfold(start, |(api, mut changes, person, first)| async move {
            let text = tokio::select! {
                biased;
                () = api.services.guard.ended(&person) => return None,
                text = api.next_event(&mut changes, first) => text?,
            };
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(text))), (api, changes, person, false)))
        });
        let mut response = Response::new(StreamBody::new(events).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    /// `None` while Pixy shuts down.
    async fn next_event(&self, changes: &mut watch::Receiver<u64>, first: bool) -> Option<String> {
        if !first {
            match tokio::time::timeout(EVENT_HEARTBEAT, changes.changed()).await {
                Ok(result) => result.ok()?,
                Err(_) => return Some(": keep-alive\n\n".to_owned()),
            }
            tokio::time::sleep(EVENT_PAUSE).await;
        }
        changes.mark_unchanged();
        Some(format!("event: accounts\ndata: {}\n\n", serde_json::json!(self.accounts())))
    }
}

impl server::Surface for LinkApi {
    type Body = LinkBody;
    type Connection = Peer;

    async fn connect(&self, peer: Peer) -> Peer {
        peer
    }

    fn call(&self, peer: Peer, request: Request<Incoming>) -> impl Future<Output = Response<LinkBody>> + Send {
        http::serve(request, move |request| self.answer(peer, request))
    }

    fn reject(&self, rejection: Rejection) -> Response<LinkBody> {
        http::reject(rejection)
    }
}

fn state_of(account: &Account) -> AccountStateAnswer {
    AccountStateAnswer { state: account_status::state(account.view().state) }
}

fn revocation(unlinked: RevocationOutcome) -> Revocation {
    match unlinked {
        RevocationOutcome::Revoked => Revocation::Done(true),
        RevocationOutcome::NotRevoked => Revocation::Done(false),
        RevocationOutcome::Pending => Revocation::Pending(PendingRevocation::Pending),
    }
}
