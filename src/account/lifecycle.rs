//! The life of one login: loaded, refreshed, replaced, unlinked. Owns what is known of it, and alone stores and publishes it.
//!
//! A [`Lifecycle`] is behind the account's mutex, which is held over every change, calls of the provider included.

mod moved;
mod revocations;

use std::sync::Arc;
use std::time::Duration;

use rand::random as jitter; // 0..1; not a secret
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::account_config::Configured;
use super::continuity;
use super::login::Login;
use super::published_token::{Bearer, Published};
use super::redaction::Redactions;
use super::refusals::TokenReport;
use super::revocation_retry::{RevocationOutcome, RevocationSchedule};
use super::schedule::RefreshSchedule;
use super::services::AccountServices;
use super::state::{Record, RecordStatus};
use super::token_request;
use super::view::{State, View};
use crate::clock::{Tick, Timestamp};
use crate::name::AccountName;
use crate::oauth::token_response::TokenError;
use crate::vault::VaultError;

/// The longest pause between two passes: tokio's timers stand still while a laptop sleeps.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two tries to make a refreshed login durable.
const STORE_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Lifecycle {
    name: AccountName,
    services: AccountServices,
    published: Arc<Published>,
    /// The configuration at the last change.
    configured: Arc<Configured>,
    record: Option<Record>,
    generation: u64,
    schedule: RefreshSchedule,
    redactions: Redactions,
    revocations: RevocationSchedule,
    /// `false` while the login is bound to its origins in memory alone.
    binding_is_stored: bool,
}

impl Lifecycle {
    /// Without a login, until [`Lifecycle::load`].
    pub(super) fn new(
        name: AccountName,
        services: AccountServices,
        published: Arc<Published>,
        configured: Arc<Configured>,
    ) -> Self {
        Self {
            name,
            services,
            published,
            configured,
            record: None,
            generation: 0,
            schedule: RefreshSchedule::default(),
            redactions: Redactions::default(),
            revocations: RevocationSchedule::default(),
            binding_is_stored: true,
        }
    }

    /// Applies the configuration; called before every other change.
    pub(super) async fn configure(&mut self, configured: Arc<Configured>) {
        let before = std::mem::replace(&mut self.configured, configured);
        match (before.served, self.configured.served) {
            (true, false) => self.unload(),
            (false, true) => self.load().await,
            (true, true) if !Arc::ptr_eq(&before.profile, &self.configured.profile) => {
                self.schedule.forget_refusals();
                // Until then no request gets the token: it was published for the profile before.
                if self.is_moved() || self.published.view().moved {
                    self.publish();
                } else {
                    self.published.change_profile(&self.configured.profile);
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Reads the login from the vault and publishes it. Does nothing for an account that is not served.
    pub(super) async fn load(&mut self) {
        if !self.configured.served {
            return;
        }
        // Nothing changes before the read, so that dropping this future there leaves the login as it was.
        let stored = self.services.vault.read(&self.name, &self.configured.profile.provider).await;
        (self.record, self.binding_is_stored) = (None, true);
        self.schedule.forget_timing();
        let problem = match stored {
            Ok(None) => None,
            Ok(Some(opened)) => match serde_json::from_slice::<Record>(&opened.plaintext) {
                Ok(record) => {
                    self.generation = opened.generation;
                    self.record = Some(record.after_restart(self.wall()));
                    self.bind().await;
                    self.revocations.retry_now();
                    None
                }
                Err(error) => Some(format!("This version of Pixy cannot read the stored login ({error}).")),
            },
            Err(error) => Some(error.to_string()),
        };
        self.publish();
        if let Some(problem) = problem {
            tracing::error!(account = %self.name, problem, "the stored login cannot be used");
            let view = View { error: Some(problem), ..View::empty(State::RelinkRequired) };
            self.published.update_view(|current| *current = view);
        }
    }

    /// Drops the login from memory; the vault keeps it.
    fn unload(&mut self) {
        self.record = None;
        self.schedule.forget_timing();
        self.schedule.stop();
        self.revocations.retry_now();
        self.published.clear_bearer();
        self.published.update_view(|view| *view = View::empty(State::Unlinked));
    }

    /// Accepts an older copy of the login that was restored into the vault, and loads it.
    pub(super) async fn accept_older_copy(&mut self) -> Result<(), VaultError> {
        self.services.vault.accept_rollback(&self.name).await?;
        self.load().await;
        Ok(())
    }

    /// Stores a login that a person has confirmed, then publishes it. On an error the old login stays.
    pub(super) async fn adopt(&mut self, login: Login) -> Result<(), VaultError> {
        self.require_served()?;
        // Also higher than a record that did not open, and one that was removed: an older copy restored later is detected.
        self.generation = self.services.vault.next_generation(&self.name).await?.saturating_sub(1);
        let replaced = self.record.take();
        // The same write that replaces a grant records that it must be revoked.
        let revoked = |old: &Record| old.all_revocations(&self.configured.profile, self.wall());
        let pending_revocations = replaced.as_ref().map(revoked).unwrap_or_default();
        // Higher than any serial before: a 401 for an old token never concerns the new one.
        let mut login = Login { serial: self.generation + 1, ..login };
        if login.bound.is_none() {
            login.bind(&self.configured.profile);
        }
        let record = Record { pending_revocations, ..Record::linked(login, self.wall()) };
        if let Err(error) = self.store(record).await {
            self.record = replaced;
            return Err(error);
        }
        self.schedule.linked();
        self.revocations.retry_now();
        self.publish();
        tracing::info!(account = %self.name, "linked");
        Ok(())
    }

    /// Revokes the grant at the provider and removes the login. No request gets the token from the first step on, whatever
    /// the provider and the disk do.
    pub(super) async fn unlink(&mut self) -> Result<RevocationOutcome, VaultError> {
        self.require_served()?;
        let Some(record) = self.record.clone() else {
            let unopenable = self.published.view().state == State::RelinkRequired;
            self.services.vault.remove(&self.name).await?;
            self.publish();
            return Ok(if unopenable { RevocationOutcome::NotRevoked } else { RevocationOutcome::Revoked });
        };
        self.published.clear_bearer();
        let mut pending_revocations = record.pending_revocations.clone();
        let outcome = if record.is_being_revoked() {
            RevocationOutcome::Pending // unlinked before: its own revocation is in the list
        } else {
            self.revoke_own(&record, &mut pending_revocations).await
        };
        let status = RecordStatus::RevocationPending { since: self.wall() };
        let record = Record { status, pending_revocations, ..record };
        let stored = if record.pending_revocations.is_empty() {
            self.services.vault.remove(&self.name).await.map(|()| self.record = None)
        } else {
            self.store(record.clone()).await
        };
        if stored.is_err() {
            self.record = Some(record); // it stays unusable in memory, and `revoke_pending` tries again
            self.revocations.store_failed(jitter(), self.tick());
        }
        self.publish();
        stored.map_err(VaultError::during_unlink)?;
        tracing::info!(account = %self.name, revocation = ?outcome, "unlinked");
        Ok(outcome)
    }

    /// Does what is due, and returns the pause until the next pass. `reports` are about tokens, by their serials.
    pub(super) async fn run_due(&mut self, reports: &[(u64, TokenReport)]) -> Duration {
        self.store_binding().await;
        self.refresh_if_due(reports).await;
        self.revoke_if_due().await;
        let now = self.tick();
        let until_refresh = self.schedule.refresh_at().map(|at| at.since(now));
        [until_refresh, self.revocations.wait(now)].into_iter().flatten().fold(LONGEST_PAUSE, Duration::min)
    }

    async fn refresh_if_due(&mut self, reports: &[(u64, TokenReport)]) {
        if self.is_moved() {
            return;
        }
        let Some(record) = self.record.clone().filter(|record| !record.is_being_revoked()) else { return };
        let now = self.tick();
        let is_forced = self.schedule.is_forced(reports, &record, now);
        self.published.show_refusals(self.schedule.refusals(), record.login.serial);
        if record.is_refreshable() {
            if is_forced || self.schedule.is_due(now) {
                self.refresh(&record).await;
            }
        } else if record.status == RecordStatus::Linked
            && self.published.usable(&self.configured.profile, &self.services.clock).is_none()
        {
            self.expire(&record).await;
        }
    }

    /// Refreshes the login. In this order; a crash (`kill -9`) means:
    ///
    /// 1. probe, that the vault is writable: nothing was sent, and the login is as it was;
    /// 2. intent, stored: the same, or the intent is found open after the restart and the token is sent once more;
    /// 3. call: the provider may have spent the token. The open intent says so, and the token is sent once more, which a
    ///    provider with a grace period answers;
    /// 4. durable: as 3 until the rename, the new login (or the withheld tokens) after it. `pixy_rotation_window_seconds`: 4 and 5;
    /// 5. publish: after the restart the new login is read from the vault.
    async fn refresh(&mut self, record: &Record) {
        let breaker = record.breaker_wait(self.wall());
        if !breaker.is_zero() {
            return self.postpone(breaker, "Too many refreshes failed within the last hour.");
        }
        let record = record.with_intent(self.wall());
        let prepared = match self.services.vault.probe().await {
            Ok(()) => self.store(record.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = prepared {
            self.services.metrics.record_refresh(&self.name, "vault_unwritable");
            let pause = self.schedule.failed(None, jitter());
            return self
                .postpone(pause, &format!("No refresh was tried, because its result could not be stored: {error}"));
        }
        self.published.update_view(|view| view.state = State::Refreshing);
        let response = token_request::send(&self.services, &self.configured.profile, &record.login).await;
        let responded = Instant::now();
        let (next, error) = match response {
            Ok(tokens) => (continuity::next_record(&record, tokens, &self.configured.profile, self.wall()), None),
            Err(error) => (record.failed(&error, self.wall()), Some(error)),
        };
        token_request::report(&self.services, &self.name, &next, error.as_ref());
        if self.store_until_durable(&next).await {
            self.publish();
            self.schedule_next(&next, error);
        }
        self.services.metrics.record_rotation_window(responded.elapsed());
    }

    /// Records that an access token without a refresh token has expired.
    async fn expire(&mut self, record: &Record) {
        if self.store_until_durable(&record.expired(self.wall())).await {
            self.publish();
            self.schedule.succeeded();
        }
    }

    /// After the outcome of a refresh was published.
    fn schedule_next(&mut self, next: &Record, error: Option<TokenError>) {
        match error {
            None => self.schedule.succeeded(),
            Some(error) if next.is_refreshable() => {
                let pause = self.schedule.failed(error.retry_after, jitter()).max(next.breaker_wait(self.wall()));
                self.postpone(pause, &format!("The refresh failed, Pixy retries: {}.", error.what));
            }
            Some(_) => {}
        }
    }

    /// No refresh before `pause` is over; the current token is used until it expires.
    fn postpone(&mut self, pause: Duration, reason: &str) {
        let retry_at = self.tick().after(pause);
        self.schedule.postpone(retry_at);
        let next_refresh_at = Some(self.wall().after(pause));
        self.published.update_view(|view| view.postpone(retry_at, next_refresh_at, reason));
    }

    /// Makes `record` durable under the next generation; then it is the current one. On an error nothing has changed.
    async fn store(&mut self, record: Record) -> Result<(), VaultError> {
        let plaintext = Zeroizing::new(serde_json::to_vec(&record).expect("a record has string keys only"));
        let generation = self.generation + 1;
        self.services.vault.write(&self.name, &self.configured.profile.provider, generation, plaintext).await?;
        self.generation = generation;
        (self.record, self.binding_is_stored) = (Some(record), true);
        Ok(())
    }

    /// Stores the outcome of a refresh, retrying until it is durable. `false` when an import replaced the login during the
    /// call: the outcome is of the old login and is dropped, and the imported one is loaded.
    async fn store_until_durable(&mut self, next: &Record) -> bool {
        while let Err(error) = self.store(next.clone()).await {
            if let VaultError::StaleWrite { .. } = error {
                tracing::warn!(account = %self.name, "the login was replaced during its refresh");
                self.load().await;
                return false;
            }
            tracing::error!(account = %self.name, %error, "the refreshed login cannot be stored, retrying");
            self.published.update_view(|view| view.error = Some(error.to_string()));
            tokio::time::sleep(STORE_RETRY).await;
        }
        true
    }

    /// Publishes the current record, which is durable, to requests and the page.
    fn publish(&mut self) {
        self.publish_record();
        self.published.set_profile(&self.configured.profile);
    }

    fn publish_record(&mut self) {
        let Some(record) = self.record.as_ref().filter(|record| !record.is_being_revoked()) else {
            self.schedule.stop();
            self.published.clear_bearer();
            return self.published.update_view(|view| *view = View::empty(State::Unlinked));
        };
        if let Some(sentence) = record.moved(&self.configured.profile) {
            self.schedule.stop();
            self.published.clear_bearer();
            return self.published.update_view(|view| *view = View::moved(record, sentence));
        }
        let (wall, tick) = (self.services.clock.wall(), self.services.clock.tick());
        let timing = self.schedule.publish(record, *self.configured.profile.token.refresh_lead, jitter(), wall, tick);
        let patterns = self.redactions.patterns(record);
        self.published.set_bearer(Bearer::new(Arc::clone(&self.configured.profile), &record.login, timing, patterns));
        let refresh_at = self.schedule.refresh_at();
        let next_refresh_at = refresh_at.map(|at| wall.after(at.since(tick)));
        let refusal = self.schedule.refusals().sentence(record.login.serial);
        self.published.update_view(|view| *view = View { next_refresh_at, refusal, refresh_at, ..View::of(record) });
        self.published.show_refusals(self.schedule.refusals(), record.login.serial);
    }

    fn require_served(&self) -> Result<(), VaultError> {
        if self.configured.served { Ok(()) } else { Err(VaultError::NotConfigured) }
    }

    fn wall(&self) -> Timestamp {
        self.services.clock.wall()
    }

    fn tick(&self) -> Tick {
        self.services.clock.tick()
    }
}
