//! Accounts: one login each, kept fresh. The only module that writes to the vault, and the only one that calls the token
//! endpoint for a stored login.
//!
//! `proxy` asks an [`Account`] for its [`Bearer`]; `link` hands it a confirmed login by [`Account::adopt`]. A refresh runs in
//! the account's own task, never in a request's: a client that disconnects cancels nothing.
//!
//! | file | what it does |
//! |---|---|
//! | `registry` | the accounts of the configuration, and their tasks |
//! | `lifecycle` | the one writer: load, adopt, refresh, unlink; stores, then publishes |
//! | `schedule`, `revocation` | when the lifecycle refreshes, and retries revocations |
//! | `token_request` | the call of the token endpoint |
//! | `published`, `view` | what requests and the page read |
//! | `state`, `login`, `pending_revocation` | the sealed record and its transitions; pure |
//! | `continuity` | whether a refresh continues the login that a person confirmed; pure |
//! | `origins`, `lifecycle/moved` | the origins that a login may be sent to, and what a person confirms when they change |
//! | `reports`, `refusals` | what requests report of tokens, and pauses after refused ones |
//! | `redaction` | the secrets that no response may contain |
//! | `usage_meter` | what agents use of an account |
//! | `dropped_names` | the names of fields and query keys that requests lost |

mod registry;
mod lifecycle;
mod revocation_retry;
mod token_request;
mod schedule;
mod published_token;
mod view;
mod continuity;
mod state;
mod origins;
mod pending_revocation;
mod login;
mod redaction;
mod refresh_timing;
mod refusals;
mod reports;
mod account_config;
mod usage_meter;
mod dropped_names;
mod services;
#[cfg(test)]
mod model_tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};
use tokio::time::Instant;

use crate::name::AccountName;
use crate::oauth::profile::Profile;
use crate::usage::{Hour, Quota};

pub use crate::vault::VaultError;
use account_config::Configured;
use dropped_names::DroppedLog;
pub use dropped_names::DroppedNames;
use lifecycle::Lifecycle;
pub use login::{Login, RefreshCredential};
pub use origins::Bound;
pub use published_token::Bearer;
use published_token::Published;
pub use refusals::TokenRefusal;
use refusals::TokenReport;
pub use registry::{AccountSettings, Accounts};
pub use reports::Successor;
use reports::{Report, Reports};
pub use revocation_retry::RevocationOutcome;
pub use services::AccountServices;
use usage_meter::AccountUsage;
pub use usage_meter::UsageMeter;
pub use view::{State, View};

/// A request waits no longer than this for a usable token: agents give up at about a minute.
pub const LONGEST_WAIT: Duration = Duration::from_secs(45);

/// `Retry-After` when the wait for a token took too long.
const RETRY_AFTER_WAIT: Duration = Duration::from_secs(5);

/// One account. There is one value per name for as long as Pixy runs, also while the name is not in the configuration, so
/// that its record has one writer.
pub struct Account {
    name: AccountName,
    services: AccountServices,
    configured: ArcSwap<Configured>,
    published: Arc<Published>,
    lifecycle: Mutex<Lifecycle>,
    /// Wakes the account's task.
    wake: Notify,
    reports: Reports,
    usage: Arc<AccountUsage>,
    dropped: DroppedLog,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// The account is not linked.
    NotLinked,
    /// The login ended; a person must link again.
    RelinkRequired,
    /// The configuration moved the login; a person must confirm that.
    Moved,
    /// A temporary condition.
    Unavailable {
        /// When a retry makes sense.
        retry_after: Duration,
    },
}

impl Account {
    /// An account whose login was not yet read from the vault.
    pub fn new(name: AccountName, profile: Arc<Profile>, terms_accepted: bool, services: AccountServices) -> Arc<Self> {
        let configured = Arc::new(Configured { profile, terms_accepted, served: true });
        let published = Arc::new(Published::new(Arc::clone(&configured.profile), services.changes.clone()));
        let lifecycle = Lifecycle::new(name.clone(), services.clone(), Arc::clone(&published), Arc::clone(&configured));
        Arc::new(Self {
            name,
            configured: ArcSwap::new(configured),
            published,
            lifecycle: Mutex::new(lifecycle),
            wake: Notify::new(),
            reports: Reports::default(),
            usage: Arc::new(AccountUsage::new(services.clock.clone(), services.changes.clone())),
            dropped: DroppedLog::default(),
            services,
        })
    }

    /// Its name.
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// What all accounts share.
    pub fn services(&self) -> &AccountServices {
        &self.services
    }

    /// Its profile, as configured now. What must hold for a whole request is read once.
    pub fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.configured.load().profile)
    }

    /// Whether it may be linked: the provider's terms are open or accepted.
    pub fn terms_accepted(&self) -> bool {
        self.configured.load().terms_accepted
    }

    /// The state to show to the person.
    pub fn view(&self) -> View {
        self.published.view()
    }

    /// Whether a request would get a token now.
    pub fn is_usable(&self) -> bool {
        self.usable().is_some()
    }

    /// A token that is durable and not expired; waits for one until `until` at most.
    pub async fn bearer(&self, until: Instant) -> Result<Arc<Bearer>, Unusable> {
        if let Some(bearer) = self.usable() {
            return Ok(bearer);
        }
        let mut shown = self.published.subscribe();
        loop {
            let (state, moved, refresh_at, is_current) = {
                let shown = shown.borrow_and_update();
                let is_current = Arc::ptr_eq(&shown.profile, &self.configured.load().profile);
                (shown.view.state, shown.view.moved, shown.view.refresh_at, is_current)
            };
            if let Some(bearer) = self.usable() {
                return Ok(bearer);
            }
            let mut wait = Duration::ZERO;
            // Else the account's task is about to apply a reload.
            if is_current {
                match state {
                    State::Unlinked => return Err(Unusable::NotLinked),
                    State::RelinkRequired if moved => return Err(Unusable::Moved),
                    State::RelinkRequired => return Err(Unusable::RelinkRequired),
                    State::Starting | State::Linked | State::Refreshing | State::Uncertain => {}
                }
                wait = refresh_at.map_or(Duration::ZERO, |tick| tick.since(self.services.clock.tick()));
            }
            if wait > until.saturating_duration_since(Instant::now()) {
                return Err(Unusable::Unavailable { retry_after: wait });
            }
            self.wake.notify_one();
            if tokio::time::timeout_at(until, shown.changed()).await.is_err() {
                return Err(Unusable::Unavailable { retry_after: RETRY_AFTER_WAIT });
            }
        }
    }

    /// The successor of a token that the upstream refused before its expiry: one that exists, or that one refresh brings.
    /// All requests share that refresh, and there is at most one in 30 s, with growing pauses while fresh tokens are refused too;
    /// where it is not allowed, returns at once.
    pub async fn successor(&self, rejected: &Bearer, refusal: TokenRefusal, until: Instant) -> Option<Successor> {
        let newer = || self.usable().filter(|bearer| bearer.serial() > rejected.serial());
        if let Some(bearer) = newer() {
            return Some(Successor { bearer, replaces: None });
        }
        let mut handled = self.report(rejected.serial(), TokenReport::Refused(refusal));
        // Else the refresh itself may have ended the token, as it does at some providers.
        let before_refresh = matches!(tokio::time::timeout_at(until, handled.changed()).await, Ok(Ok(())));
        newer().map(|bearer| Successor { bearer, replaces: before_refresh.then_some(rejected.serial()) })
    }

    /// The upstream refused the successor, too, for the same request.
    pub fn refused_again(&self, successor: &Successor, refusal: TokenRefusal) {
        self.report(successor.bearer.serial(), TokenReport::RefusedAgain(refusal));
    }

    /// The upstream accepted the successor for the same request.
    pub fn accepted_again(&self, successor: &Successor) {
        self.accepted(&successor.bearer);
        if let Some(serial) = successor.replaces {
            self.report(serial, TokenReport::Cured);
        }
    }

    /// The upstream accepted a token. Costs one load, unless that was in question.
    pub fn accepted(&self, bearer: &Bearer) {
        if self.published.take_awaited(bearer.serial()) {
            self.report(bearer.serial(), TokenReport::Accepted);
        }
    }

    /// Requests a refresh for a person: at most one in 30 s.
    pub fn refresh_soon(&self) {
        match self.published.serial() {
            Some(serial) => drop(self.report(serial, TokenReport::Replace)),
            None => self.wake.notify_one(),
        }
    }

    /// Stores a login that a person has confirmed, then publishes it, then revokes what it replaced. Continues when the
    /// caller's future is dropped.
    pub async fn adopt(self: &Arc<Self>, login: Login) -> Result<(), VaultError> {
        let account = Arc::clone(self);
        detached(async move {
            let mut lifecycle = account.lock().await;
            lifecycle.adopt(login).await?;
            account.usage.forget_quota();
            lifecycle.revoke_if_due().await;
            account.wake.notify_one();
            Ok(())
        })
        .await
    }

    /// Revokes the login at the provider, then removes it. Continues when the caller's future is dropped.
    ///
    /// # Errors
    /// [`VaultError::NotRemoved`] when requests get the token no more and the vault still has it.
    pub async fn unlink(self: &Arc<Self>) -> Result<RevocationOutcome, VaultError> {
        let account = Arc::clone(self);
        detached(async move {
            let outcome = account.lock().await.unlink().await;
            account.usage.forget_quota();
            account.wake.notify_one();
            outcome
        })
        .await
    }

    /// Revokes a grant that was never adopted. After [`RevocationOutcome::Pending`] the caller may retry.
    pub async fn discard(&self, login: &Login) -> RevocationOutcome {
        revocation_retry::revoke_login(&self.services, &self.profile(), login).await
    }

    /// Accepts an older copy of the login that was restored into the vault, because a person asked for it. Continues when the
    /// caller's future is dropped.
    pub async fn accept_older_copy(self: &Arc<Self>) -> Result<(), VaultError> {
        let account = Arc::clone(self);
        detached(async move {
            account.lock().await.accept_older_copy().await?;
            account.wake.notify_one();
            Ok(())
        })
        .await
    }

    /// Binds the login to the origins that are configured now, because a person asked for it. Does nothing for a login that has
    /// not moved. Returns `false`, and changes nothing, when it has moved in another way than the person has `seen`. Continues when
    /// the caller's future is dropped.
    pub async fn confirm_moved(self: &Arc<Self>, seen: Option<String>) -> Result<bool, VaultError> {
        let account = Arc::clone(self);
        detached(async move {
            let confirmed = account.lock().await.confirm_moved(seen.as_deref()).await?;
            account.wake.notify_one();
            Ok(confirmed)
        })
        .await
    }

    /// Counts a request whose response has begun, and stores the quota that its head reports.
    pub fn answered(&self, headers: &HeaderMap) -> UsageMeter {
        self.usage.response_begun(&self.profile().api.quota_headers, headers)
    }

    /// Counts and keeps the names that a request lost: those of fields, and query keys.
    pub fn record_dropped<'a>(
        &self,
        fields: impl ExactSizeIterator<Item = &'a str>,
        query_keys: impl ExactSizeIterator<Item = &'a str>,
    ) {
        self.services.metrics.record_dropped_fields(&self.name, (fields.len() + query_keys.len()) as u64);
        self.dropped.record(fields, query_keys);
    }

    /// The names that requests lost last.
    pub fn dropped(&self) -> DroppedNames {
        self.dropped.names()
    }

    /// The quota as the provider last reported it; empty without a login.
    pub fn quota(&self) -> Vec<Quota> {
        self.usage.quota()
    }

    /// Use by the hour, of the last 24 hours.
    pub fn usage(&self) -> Option<Vec<Hour>> {
        self.usage.hours()
    }

    /// Serves the account with this profile, which must be of the same provider.
    fn configure(&self, profile: Arc<Profile>, terms_accepted: bool) {
        let before = self.configured.load();
        let after = before.with(profile, terms_accepted);
        if !before.is_same(&after) {
            self.configured.store(Arc::new(after));
            self.wake.notify_one();
        }
    }

    /// Stops serving the account; its record stays.
    fn remove(&self) {
        let removed = self.configured.load().removed();
        self.configured.store(Arc::new(removed));
        self.wake.notify_one();
    }

    /// Reads the login from the vault again, after an import.
    async fn reload(&self) {
        self.lock().await.load().await;
        self.wake.notify_one();
    }

    /// The account's task: reads the login and does what is due, until shutdown.
    async fn run(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        self.lock().await.load().await;
        loop {
            let pause = self.run_due().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = shutdown.wait_for(|&down| down) => return drop(self.reports.take()),
            }
        }
    }

    async fn run_due(&self) -> Duration {
        let mut lifecycle = self.lock().await;
        let (current, taken) = (self.published.serial(), self.reports.take());
        let reports: Vec<_> = taken.iter().map(|report| (report.serial, report.what.clone())).collect();
        let pause = lifecycle.run_due(&reports).await;
        taken.iter().filter(|report| Some(report.serial) == current).for_each(Report::was_current);
        pause // `taken` is dropped, and so answered, after the pass
    }

    /// Locks the lifecycle and applies the current configuration to it.
    async fn lock(&self) -> MutexGuard<'_, Lifecycle> {
        let mut lifecycle = self.lifecycle.lock().await;
        lifecycle.configure(self.configured.load_full()).await;
        lifecycle
    }

    fn report(&self, serial: u64, what: TokenReport) -> watch::Receiver<()> {
        let handled = self.reports.add(serial, what);
        self.wake.notify_one();
        handled
    }

    fn usable(&self) -> Option<Arc<Bearer>> {
        self.published.usable(&self.configured.load().profile, &self.services.clock)
    }
}

/// Runs `work` in a task of its own, which dropping the returned future does not cancel.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()), // it is never aborted, so it panicked
    }
}
