//! Linking: a person's way from "not linked" to a login that is sealed and stored.
//!
//! The journey is [`Linker::begin`], [`Linker::paste`], [`Linker::confirm`]; on a device `link/device` asks the provider in
//! place of pasting. `link/api` is its HTTP face, `link/guard` says who may use it. Nothing is stored before the person has
//! confirmed whose account it is.

pub mod api;
mod attempt;
mod callback;
mod device;
mod code_exchange;
mod usage_view;
pub mod guard;
mod http;
mod vault_admin;
mod account_status;
mod static_credential;
mod loopback;
mod page;
pub(crate) mod paste;
mod problem;
mod client_snippets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::account::{Account, Accounts, RevocationOutcome};
use crate::api::Identified;
use crate::clock::Clock;
use crate::name::AccountName;
use crate::oauth::discovery;
use crate::oauth::profile::Flow;
use crate::secret::Secret;
use crate::server::Address;
use crate::upstream::Upstream;
use attempt::{Attempt, Bound, Browser, Failed, Spending, Stage, Way};
pub use client_snippets::{AgentEndpoint, Key};
use code_exchange::Exchange;
use loopback::CallbackListeners;
pub use page::Facts;
pub use problem::Problem;

/// Links accounts; one for the page, the control socket and the terminal.
pub struct Linker {
    accounts: Accounts,
    upstream: Upstream,
    clock: Clock,
    link_port: Arc<ArcSwapOption<Address>>,
    attempts: Mutex<HashMap<AccountName, Attempt>>,
    doors: CallbackListeners,
    changes: tokio::sync::watch::Sender<u64>,
}

impl Linker {
    /// A linker; `link_port` is where loopback redirects come back to, while the page is on.
    pub fn new(
        accounts: Accounts,
        upstream: Upstream,
        clock: Clock,
        link_port: Arc<ArcSwapOption<Address>>,
        changes: tokio::sync::watch::Sender<u64>,
    ) -> Self {
        let (attempts, doors) = (Mutex::default(), CallbackListeners::default());
        Self { accounts, upstream, clock, link_port, attempts, doors, changes }
    }

    /// Starts an attempt by the profile's flow, or by `flow`; an older one of the same account is over. Answers its id.
    pub async fn begin(self: &Arc<Self>, name: &str, flow: Option<&str>) -> Result<String, Problem> {
        let account = self.linkable(name)?;
        let profile = account.profile();
        let flow = match (flow.map(Flow::parse), profile.link.flow) {
            (Some(None), _) => return Err(Problem::no_flow()),
            (_, keyed @ (Flow::ClientCredentials | Flow::ApiKey)) => return Err(Problem::other_flow(keyed)),
            (Some(Some(asked)), _) => asked,
            (None, usual) => usual,
        };
        let endpoints = discovery::endpoints(&self.upstream, &profile, flow).await;
        let endpoints = endpoints.map_err(|error| Problem::discovery(&error.to_string()))?;
        let bound = Bound::new(account.name().clone(), &profile, flow, endpoints, account.view().client_id);
        let (attempt, polls) = match flow {
            Flow::AuthorizationCode => (self.begin_in_browser(&account, bound).await?, None),
            Flow::DeviceCode => {
                let (attempt, polls) = self.begin_on_device(&account, bound).await?;
                (attempt, Some(polls))
            }
            Flow::ClientCredentials | Flow::ApiKey => return Err(Problem::other_flow(profile.link.flow)),
        };
        let id = attempt.id().to_owned();
        let replaced = self.attempts().insert(account.name().clone(), attempt);
        self.end_later(id.clone());
        self.changed();
        if let Some(replaced) = replaced {
            self.put_away(replaced);
        }
        if let Some(polls) = polls {
            tokio::spawn(polls.go_on());
        }
        Ok(id)
    }

    /// Takes what the person pasted (or the browser brought back) and exchanges the code. Not stored yet.
    pub async fn paste(self: &Arc<Self>, id: &str, text: &str) -> Result<Identified, Problem> {
        let (exchange, code, spending) = self.take_code(id, text)?;
        self.changed();
        // In a task of its own: a page that is closed now must not lose a code that is already on its way.
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.spend(exchange, code, spending).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// The person has said that it is them: sealed, stored, announced.
    pub async fn confirm(&self, id: &str) -> Result<(), Problem> {
        let attempt = self.take_attempt(id, |stage| matches!(stage, Stage::Exchanged(_)))?;
        let account = self.account(attempt.bound.account.as_str())?;
        let Stage::Exchanged(login) = &attempt.stage else { return Err(Problem::no_attempt()) };
        let adopted = account.adopt((**login).clone()).await;
        if let Err(error) = adopted {
            // The grant is good: kept, so that the person can confirm again when the disk is mended.
            self.attempts().insert(attempt.bound.account.clone(), attempt);
            return Err(Problem::not_stored(&error.to_string()));
        }
        self.changed();
        Ok(())
    }

    /// The person has thought better of it. A grant that was exchanged is revoked.
    pub fn cancel(self: &Arc<Self>, id: &str) -> Result<(), Problem> {
        let attempt = self.take_attempt(id, |_| true)?;
        self.changed();
        self.put_away(attempt);
        Ok(())
    }

    /// Ends the login at the provider and forgets it.
    pub async fn unlink(&self, name: &str) -> Result<RevocationOutcome, Problem> {
        let account = self.account(name)?;
        account.unlink().await.map_err(|error| Problem::not_stored(&error.to_string()))
    }

    /// All accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    fn account(&self, name: &str) -> Result<Arc<Account>, Problem> {
        self.accounts.find(name).ok_or_else(|| Problem::no_account(name))
    }

    fn linkable(&self, name: &str) -> Result<Arc<Account>, Problem> {
        let account = self.account(name)?;
        if account.terms_accepted() { Ok(account) } else { Err(Problem::terms(name, &account.profile().terms)) }
    }

    async fn begin_in_browser(self: &Arc<Self>, account: &Account, bound: Bound) -> Result<Attempt, Problem> {
        let landing = self.landing(&account.profile().link.redirect).await?;
        let installation = account.services().vault.installation();
        let browser = Browser::new(&account.profile(), &bound, landing, &installation)?;
        Ok(Attempt::new(bound, Way::Browser(Box::new(browser)), attempt::LIFETIME, &self.clock))
    }

    /// Checks the text against the attempt, and takes the verifier out: from here on the code counts as spent.
    fn take_code(&self, id: &str, text: &str) -> Result<(Exchange, Secret, Spending), Problem> {
        let mut attempts = self.attempts();
        let attempt = attempts.values_mut().find(|attempt| attempt.id() == id && !attempt.is_over(&self.clock));
        let attempt = attempt.ok_or_else(Problem::no_attempt)?;
        match attempt.stage {
            Stage::Waiting => {}
            Stage::Exchanging | Stage::Exchanged(_) => return Err(Problem::code_used()),
            Stage::Failed(_) => return Err(Problem::no_attempt()),
        }
        let expected = attempt.expected().ok_or_else(Problem::nothing_to_paste)?;
        let pasted = match paste::read(text, &expected) {
            Ok(pasted) => pasted,
            Err(not_it) => {
                let problem = Problem::paste(&not_it);
                if not_it.ends_the_attempt() {
                    attempt.fail(Failed::because(problem.clone()), &self.clock);
                    self.changed();
                }
                return Err(problem);
            }
        };
        let spending = attempt.spend().ok_or_else(Problem::code_used)?;
        let client_id = pasted.client_id.or_else(|| attempt.bound.client_id.clone());
        Ok((Exchange { bound: Arc::clone(&attempt.bound), client_id }, pasted.code, spending))
    }

    fn take_attempt(&self, id: &str, wanted: impl Fn(&Stage) -> bool) -> Result<Attempt, Problem> {
        let mut attempts = self.attempts();
        let found = attempts.iter().find(|(_, attempt)| attempt.id() == id && wanted(&attempt.stage));
        let name = found.map(|(name, _)| name.clone()).ok_or_else(Problem::no_attempt)?;
        let attempt = attempts.remove(&name).ok_or_else(Problem::no_attempt)?;
        if attempt.is_over(&self.clock) { Err(Problem::no_attempt()) } else { Ok(attempt) }
    }

    /// Nothing comes of the attempt any more, if it is still there.
    fn fail(&self, id: &str, failed: Failed) {
        if let Some(attempt) = self.attempts().values_mut().find(|attempt| attempt.id() == id) {
            attempt.fail(failed, &self.clock);
        }
        self.changed();
    }

    /// The attempt of an account, as the page and the terminal show it.
    fn with_attempt<T>(&self, account: &AccountName, look: impl FnOnce(&Attempt) -> T) -> Option<T> {
        let attempts = self.attempts();
        attempts.get(account).filter(|attempt| !attempt.is_over(&self.clock)).map(look)
    }

    fn put_away(&self, attempt: Attempt) {
        if let Stage::Exchanged(login) = attempt.stage
            && let Ok(account) = self.account(attempt.bound.account.as_str())
        {
            Self::give_back(&account, *login);
        }
    }

    fn end_later(self: &Arc<Self>, id: String) {
        // Weak: a Pixy that has gone down must not be kept alive, its vault locked, by an attempt that waits for its end.
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(remaining) = this.upgrade().and_then(|this| this.end_if_over(&id)) {
                tokio::time::sleep(remaining).await;
            }
        });
    }

    /// How long the attempt goes on; `None` once it is away.
    fn end_if_over(&self, id: &str) -> Option<Duration> {
        let over = {
            let mut attempts = self.attempts();
            let (name, attempt) = attempts.iter().find(|(_, attempt)| attempt.id() == id)?;
            if !attempt.is_over(&self.clock) {
                return Some(attempt.remaining(&self.clock));
            }
            let name = name.clone();
            attempts.remove(&name)?
        };
        self.put_away(over);
        self.changed();
        None
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A panic elsewhere leaves attempts that are still attempts.
    fn attempts(&self) -> MutexGuard<'_, HashMap<AccountName, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
