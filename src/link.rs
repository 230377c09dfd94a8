//! Linking: how a person's login becomes a sealed record.
//!
//! The journey is [`Linker::begin`], [`Linker::paste`], [`Linker::confirm`]; for a device code `link/device` polls in place of
//! pasting. `link/api` serves it over HTTP, and `link/authentication` authenticates its callers. Nothing is stored before the person has
//! confirmed whose account it is.

mod account_status;
pub mod api;
mod attempt;
mod attempts;
mod authorization_request;
mod attempt_binding;
mod callback;
mod client_snippets;
mod code_exchange;
mod device;
pub mod authentication;
mod http;
pub mod loopback;
mod page;
pub(crate) mod paste;
mod problem;
mod redirect_target;
mod static_credential;
mod vault_admin;
mod vault_problem;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::account::{Account, Accounts, Login, RevocationOutcome};
use crate::api::Identified;
use crate::clock::Clock;
use crate::oauth::discovery;
use crate::oauth::profile::Flow;
use crate::server::Address;
use crate::upstream::Upstream;
use attempt::{Attempt, AttemptFlow, Stage};
use attempt_binding::AttemptBinding;
use attempts::{Attempts, Expiry};
use authorization_request::AuthorizationRequest;
use callback::CallbackReceiver;
pub use client_snippets::{AgentCredential, AgentEndpoint};
use code_exchange::{CodeExchange, revoke_unconfirmed};
use loopback::CallbackListeners;
pub use page::Facts;
pub use problem::Problem;
use vault_problem::Progress;

/// Links accounts; one for the page, the control socket and the terminal.
pub struct Linker {
    accounts: Accounts,
    upstream: Upstream,
    clock: Clock,
    page_address: Arc<ArcSwapOption<Address>>,
    attempts: Arc<Attempts>,
    exchange: Arc<CodeExchange>,
    callbacks: Arc<CallbackReceiver>,
    listeners: CallbackListeners,
}

impl Linker {
    /// A linker; loopback redirects go to `page_address` while the page is on, and `changes` is incremented with every change
    /// that a person could see.
    pub fn new(
        accounts: Accounts,
        upstream: Upstream,
        clock: Clock,
        page_address: Arc<ArcSwapOption<Address>>,
        changes: watch::Sender<u64>,
    ) -> Self {
        let attempts = Arc::new(Attempts::new(clock.clone(), changes));
        let exchange = Arc::new(CodeExchange {
            accounts: accounts.clone(),
            upstream: upstream.clone(),
            clock: clock.clone(),
            attempts: Arc::clone(&attempts),
        });
        let callbacks = Arc::new(CallbackReceiver::new(Arc::clone(&exchange)));
        let listeners = CallbackListeners::new(Arc::clone(&callbacks));
        Self { accounts, upstream, clock, page_address, attempts, exchange, callbacks, listeners }
    }

    /// Begins an attempt by `flow`, or by the profile's flow; it replaces an older one of the same account. Returns its id.
    pub async fn begin(self: &Arc<Self>, name: &str, flow: Option<&str>) -> Result<String, Problem> {
        let account = self.linkable(name)?;
        let flow = choose_flow(flow, account.profile().link.flow)?;
        let binding = self.bind(&account, flow).await?;
        let (attempt, polling) = match flow {
            Flow::AuthorizationCode => (self.begin_in_browser(&account, binding).await?, None),
            Flow::DeviceCode => {
                let (attempt, polling) = device::begin(&self.exchange, &account, binding).await?;
                (attempt, Some(polling))
            }
            Flow::ClientCredentials | Flow::ApiKey => return Err(Problem::other_flow(flow)),
        };
        let id = attempt.id().to_owned();
        if let Some(replaced) = self.attempts.begin(attempt) {
            self.discard(replaced);
        }
        self.expire_later(id.clone());
        if let Some(polling) = polling {
            tokio::spawn(polling.run());
        }
        Ok(id)
    }

    /// Exchanges the code of what the person pasted. The login waits for [`Linker::confirm`]; nothing is stored.
    pub async fn paste(&self, id: &str, text: &str) -> Result<Identified, Problem> {
        let redemption = self.attempts.take_code(id, text)?;
        self.exchange.redeem(redemption).await
    }

    /// Stores the login that the person has confirmed.
    ///
    /// Runs in a task of its own: a page that is closed now must not lose a login that could not be stored.
    pub async fn confirm(self: &Arc<Self>, id: &str) -> Result<(), Problem> {
        let (attempt, login) = self.attempts.take_to_confirm(id)?;
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.store(attempt, login).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Ends an attempt. A login that was to be confirmed is revoked.
    pub fn cancel(&self, id: &str) -> Result<(), Problem> {
        let attempt = self.attempts.take(id)?;
        self.discard(attempt);
        Ok(())
    }

    /// Revokes the login at the provider and removes it from the vault.
    pub async fn unlink(&self, name: &str) -> Result<RevocationOutcome, Problem> {
        let account = self.account(name)?;
        Ok(account.unlink().await?)
    }

    /// Stores an API key, or a client secret that has proved valid.
    pub async fn set_key(&self, name: &str, key: &str) -> Result<(), Problem> {
        let account = self.linkable(name)?;
        let login = static_credential::login(&account, key, &self.upstream, &self.clock).await?;
        Ok(account.adopt(login).await?)
    }

    /// Confirms that the login may be sent to the origins that are configured now.
    /// `seen` is the sentence that the person saw.
    pub async fn confirm_moved(&self, name: &str, seen: Option<String>) -> Result<Arc<Account>, Problem> {
        let account = self.account(name)?;
        let confirmed = account.confirm_moved(seen).await?;
        if confirmed { Ok(account) } else { Err(Problem::moved_again()) }
    }

    /// Accepts an older copy of a login that was put back on purpose.
    pub async fn accept_older_copy(&self, name: &str) -> Result<Arc<Account>, Problem> {
        let account = self.account(name)?;
        account.accept_older_copy().await?;
        Ok(account)
    }

    fn account(&self, name: &str) -> Result<Arc<Account>, Problem> {
        self.accounts.find(name).ok_or_else(|| Problem::no_account(name))
    }

    fn linkable(&self, name: &str) -> Result<Arc<Account>, Problem> {
        let account = self.account(name)?;
        if account.terms_accepted() { Ok(account) } else { Err(Problem::terms(name, &account.profile().terms)) }
    }

    async fn store(self: &Arc<Self>, attempt: Attempt, login: Login) -> Result<(), Problem> {
        let id = attempt.id().to_owned();
        let account = self.accounts.known(&attempt.binding.account).ok_or_else(Problem::no_attempt)?;
        let Err(error) = account.adopt(login).await else { return Ok(()) };
        // The login is good: the person may confirm again once the cause is fixed.
        let progress = match self.attempts.put_back(attempt) {
            Ok(()) => {
                self.expire_later(id);
                Progress::KeptInAttempt
            }
            Err(attempt) => {
                self.discard(*attempt);
                Progress::LoginDiscarded
            }
        };
        Err(Problem::vault(&error, progress))
    }

    /// Finds the provider's endpoints and binds an attempt to them.
    async fn bind(&self, account: &Account, flow: Flow) -> Result<AttemptBinding, Problem> {
        let profile = account.profile();
        let endpoints = discovery::endpoints(&self.upstream, &profile, flow).await;
        let endpoints = endpoints.map_err(|error| Problem::discovery(&error.to_string()))?;
        Ok(AttemptBinding::new(account.name().clone(), profile, flow, endpoints, account.view().client_id))
    }

    async fn begin_in_browser(&self, account: &Account, binding: AttemptBinding) -> Result<Attempt, Problem> {
        let page = match self.page_address.load().as_deref() {
            Some(Address::Tcp(address)) => Some(*address),
            Some(Address::Unix(_)) | None => None,
        };
        let profile = &binding.profile;
        let target = self.listeners.redirect_target(&profile.link.redirect, page).await?;
        let installation = account.services().vault.installation();
        let request = AuthorizationRequest::new(profile, &binding, target, &installation)?;
        let flow = AttemptFlow::AuthorizationCode(Box::new(request));
        Ok(Attempt::new(binding, flow, attempt::LIFETIME, &self.clock))
    }

    /// Revokes the login of an attempt that ended unconfirmed, if it has one.
    fn discard(&self, attempt: Attempt) {
        if let Stage::ToConfirm(login) = attempt.stage
            && let Some(account) = self.accounts.known(&attempt.binding.account)
        {
            revoke_unconfirmed(&account, *login);
        }
    }

    fn expire_later(self: &Arc<Self>, id: String) {
        // Weak: an open attempt must not keep a stopped Pixy, and the lock of its vault, alive.
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(remaining) = this.upgrade().and_then(|this| this.expire(&id)) {
                tokio::time::sleep(remaining).await;
            }
        });
    }

    /// Discards an expired attempt; returns how long one that is open remains so.
    fn expire(&self, id: &str) -> Option<Duration> {
        match self.attempts.expire(id) {
            Expiry::In(remaining) => return Some(remaining),
            Expiry::Now(attempt) => self.discard(*attempt),
            Expiry::Gone => {}
        }
        None
    }
}

/// The requested flow where the profile has a choice, else the configured one.
fn choose_flow(requested: Option<&str>, configured: Flow) -> Result<Flow, Problem> {
    match (requested.map(Flow::parse), configured) {
        (Some(None), _) => Err(Problem::no_flow()),
        (_, Flow::ClientCredentials | Flow::ApiKey) => Err(Problem::other_flow(configured)),
        (Some(Some(requested)), _) => Ok(requested),
        (None, configured) => Ok(configured),
    }
}
