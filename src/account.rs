//! Accounts: one state machine a login. The only writer of the vault, and the only caller of the token endpoint once a
//! login is stored.
//!
//! `proxy` asks an [`Account`] for its [`Bearer`]; `link` gives it a confirmed login by [`Account::adopt`]. A refresh belongs
//! to the account's own task (`refresh`), never to a request: a caller that leaves cancels nothing.

mod registry;
mod adopt;
mod configured;
mod pending_revocation;
mod redaction;
#[cfg(test)]
mod model_tests;
mod refresh;
mod usage_meter;
mod state;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::clock::{Clock, Tick};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::oauth::profile::Profile;
use crate::scrub::SecretPatterns;
use crate::secret::Secret;
use crate::upstream::Upstream;
use crate::usage::HourlyUsage;
use crate::vault::Vault;

pub use crate::vault::VaultError;
use configured::Configured;
use redaction::Redactions;
pub use registry::{AccountSettings, Accounts};
pub use state::{Login, RefreshCredential};
use state::{Record, Timing};
pub use usage_meter::UsageMeter;
pub use view::{State, View};

/// A request waits no longer than this for a usable token: agents give up at about a minute.
pub const LONGEST_WAIT: Duration = Duration::from_secs(45);

/// One account: its profile, its login and the task that keeps it fresh.
pub struct Account {
    name: AccountName,
    configured: ArcSwap<Configured>,
    services: AccountServices,
    /// The published token: durable, and the only one that a request may get.
    live: ArcSwapOption<Bearer>,
    view: watch::Sender<View>,
    /// Held over every change, calls included: what is read under it is true until it is let go.
    inner: Mutex<Inner>,
    /// Asks the keeper to look again.
    wake: Notify,
    /// Who asks for a refresh before its time.
    asked: std::sync::Mutex<Vec<Ask>>,
    /// What agents use of it.
    ledger: HourlyUsage,
    tells_of_usage: AtomicBool,
}

/// A person or a 401 asks for the successor of a token.
struct Ask {
    serial: u64,
    /// Dropped once the keeper has done what it may: whoever waits then looks for a newer token.
    _waiting: Option<oneshot::Sender<()>>,
}

/// What every account shares.
#[derive(Clone)]
pub struct AccountServices {
    /// Where logins are kept.
    pub vault: Vault,
    /// The way to token endpoints.
    pub upstream: Upstream,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Goes up with every change that a person could see.
    pub changes: watch::Sender<u64>,
}

/// A token that may be sent now.
#[derive(Clone)]
pub struct Bearer {
    /// Where it may be sent.
    profile: Arc<Profile>,
    token: Secret,
    serial: u64,
    usable_until: Option<Tick>,
    claim_headers: Vec<(String, String)>,
    patterns: Arc<SecretPatterns>,
}

/// Why no token can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// Nobody linked the account.
    NotLinked,
    /// The login ended; a person must link again.
    RelinkRequired,
    /// Not now; worth another try after this long.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

/// What became of the old grant at unlinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// There was none, or the provider ended it.
    Revoked,
    /// The provider has no revocation, or refused.
    NotRevoked,
    /// The provider could not be asked; Pixy goes on trying.
    Pending,
}

struct Inner {
    /// What was configured when anything here was decided last.
    follows: Arc<Configured>,
    /// By what the login is renewed: a configuration that changes does not send its refresh token elsewhere.
    renewed_by: Arc<Profile>,
    record: Option<Record>,
    generation: u64,
    /// Of the published token, by serial: decided once, so that a step of the wall clock changes nothing.
    timing: Option<(u64, Timing)>,
    /// What no answer may hold.
    guarded: Redactions,
    /// Failures in a row, for the backoff.
    failed_in_a_row: u32,
    /// The next refresh; `None` is never.
    refresh_at: Option<Tick>,
    /// A forced refresh is allowed again from here on.
    forced_again_at: Option<Tick>,
    /// After a failure no refresh is tried before, not even a forced one.
    held_until: Option<Tick>,
    /// How often in a row a provider could not be told that a grant is over, and when it is told again.
    told_in_vain: u32,
    tell_at: Option<Tick>,
}

impl Account {
    /// An account that has yet to be read from the vault.
    pub fn new(name: AccountName, profile: Arc<Profile>, terms_accepted: bool, services: AccountServices) -> Arc<Self> {
        let renewed_by = Arc::clone(&profile);
        let configured = Arc::new(Configured { profile, terms_accepted, served: true });
        Arc::new(Self {
            name,
            configured: ArcSwap::new(Arc::clone(&configured)),
            services,
            live: ArcSwapOption::empty(),
            view: watch::Sender::new(View::empty(State::Starting)),
            inner: Mutex::new(Inner {
                follows: configured,
                renewed_by,
                record: None,
                generation: 0,
                timing: None,
                guarded: Redactions::default(),
                failed_in_a_row: 0,
                refresh_at: None,
                forced_again_at: None,
                held_until: None,
                told_in_vain: 0,
                tell_at: None,
            }),
            wake: Notify::new(),
            asked: std::sync::Mutex::default(),
            ledger: HourlyUsage::default(),
            tells_of_usage: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// A token that is durable and not expired; waits while one is being got, at most until `until`.
    pub async fn bearer(&self, until: Instant) -> Result<Arc<Bearer>, Unusable> {
        if let Some(bearer) = self.usable() {
            return Ok(bearer);
        }
        let mut view = self.view.subscribe();
        loop {
            let (state, refresh_at) = {
                let view = view.borrow_and_update();
                (view.state, view.refresh_at)
            };
            if let Some(bearer) = self.usable() {
                return Ok(bearer);
            }
            match state {
                State::Unlinked => return Err(Unusable::NotLinked),
                State::RelinkRequired => return Err(Unusable::RelinkRequired),
                State::Starting | State::Linked | State::Refreshing | State::Uncertain => {}
            }
            let wait = refresh_at.map_or(Duration::ZERO, |tick| tick.since(self.services.clock.tick()));
            if wait > until.saturating_duration_since(Instant::now()) {
                return Err(Unusable::Unavailable { retry_after: wait });
            }
            self.wake.notify_one();
            if tokio::time::timeout_at(until, view.changed()).await.is_err() {
                return Err(Unusable::Unavailable { retry_after: Duration::from_secs(5) });
            }
        }
    }

    /// A person asks for a refresh, within the same rules.
    pub fn refresh_soon(&self) {
        if let Some(bearer) = &*self.live.load() {
            self.ask(bearer.serial, None);
        }
        self.wake.notify_one();
    }

    /// What a person may know now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// What all accounts share.
    pub fn services(&self) -> &AccountServices {
        &self.services
    }

    /// Whether a request would get a token now.
    pub fn is_usable(&self) -> bool {
        self.usable().is_some()
    }

    fn usable(&self) -> Option<Arc<Bearer>> {
        let live: Guard<_> = self.live.load();
        let bearer = live.as_ref().filter(|bearer| Arc::ptr_eq(&bearer.profile, &self.configured.load().profile))?;
        match bearer.usable_until {
            Some(until) if self.services.clock.tick() >= until => None,
            _ => Some(Arc::clone(bearer)),
        }
    }

    /// Makes `record` durable under the next generation and takes it as the current one. On failure nothing has changed.
    async fn store(&self, inner: &mut Inner, record: Record) -> Result<(), VaultError> {
        let plaintext = Zeroizing::new(serde_json::to_vec(&record).expect("a record has string keys only"));
        let generation = inner.generation + 1;
        self.services.vault.write(&self.name, &inner.follows.profile.provider, generation, plaintext).await?;
        inner.generation = generation;
        inner.record = Some(record);
        Ok(())
    }

    /// Lets requests see what is stored: called only with a record that is durable.
    fn publish(&self, inner: &mut Inner) {
        let (wall, tick) = (self.services.clock.wall(), self.services.clock.tick());
        let mut view = View::empty(State::Unlinked);
        inner.refresh_at = None;
        if let Some(record) = inner.record.as_ref().filter(|record| !record.is_being_revoked()) {
            let login = &record.login;
            let timing = match inner.timing {
                Some((serial, timing)) if serial == login.serial => timing,
                _ => record.timing(*inner.renewed_by.token.refresh_lead, random_fraction(), wall, tick),
            };
            inner.timing = Some((login.serial, timing));
            inner.refresh_at = timing.refresh_at.filter(|_| record.is_renewable());
            self.live.store(Some(Arc::new(Bearer {
                profile: Arc::clone(&inner.follows.profile),
                token: login.access_token.clone(),
                serial: login.serial,
                usable_until: timing.usable_until,
                claim_headers: login.claim_headers.clone(),
                patterns: inner.guarded.patterns(login),
            })));
            view = View {
                identity: login.identity.clone(),
                scopes: login.scopes.clone(),
                client_id: login.client_id.clone(),
                expires_at: login.expires_at(),
                refreshed_at: Some(login.obtained_at),
                next_refresh_at: inner.refresh_at.map(|at| wall.after(at.since(tick))),
                refresh_at: inner.refresh_at,
                ..View::of(record)
            };
        } else {
            self.live.store(None);
        }
        self.show(|shown| *shown = view);
    }

    /// Changes what a person sees, and tells those who watch.
    fn show(&self, change: impl FnOnce(&mut View)) {
        self.view.send_modify(change);
        self.services.changes.send_modify(|count| *count += 1);
    }
}

impl Bearer {
    /// The token; only `proxy::attach` has business with it.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// What no answer to a request with this token may hold: the account's secrets, and those before them.
    pub fn patterns(&self) -> &Arc<SecretPatterns> {
        &self.patterns
    }

    /// Headers that the profile copies from the login's claims.
    pub fn claim_headers(&self) -> &[(String, String)] {
        &self.claim_headers
    }
}

/// A number in 0..1 for jitter; not a secret.
fn random_fraction() -> f64 {
    rand::random()
}
