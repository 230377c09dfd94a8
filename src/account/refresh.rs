//! The keeper of an account: the one task that renews its login, ahead of time and once for all who wait.
//!
//! The order, and what `kill -9` does at each `await` of it:
//!
//! 1. prove the vault writable: nothing was sent; the login is as it was;
//! 2. record the intent: the same, or the intent is found open after the restart and the token is tried once more;
//! 3. the call: the provider may have spent the token; the open intent says so, and it is tried once more, which a provider
//!    with a grace period answers;
//! 4. seal the answer and make it durable: the same as 3 until the rename is durable, the new login after it. This is the
//!    window that `pixy_rotation_window_seconds` measures;
//! 5. publish to requests: the new login is read from the vault after the restart.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::state::{self, Record, RefreshCredential};
use super::{Account, Ask, Bearer, Inner, State, View, random_fraction};
use crate::clock::Tick;
use crate::oauth::discovery;
use crate::oauth::profile::Profile;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::{TokenError, TokenErrorKind, Tokens};
use crate::vault::VaultError;

/// The keeper looks again at least this often: tokio's timers stand still while a laptop sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Forced refreshes of one account are this far apart.
const FORCED_APART: Duration = Duration::from_secs(30);

/// Between two tries to make an answer durable.
const STORE_AGAIN: Duration = Duration::from_secs(1);

impl Account {
    /// The upstream refused this token before its time: its successor, if there is one, or if one refresh brings it. That
    /// refresh is shared by all who ask, and there is at most one in 30 s; where it is not allowed the answer comes at once.
    pub async fn successor(&self, refused: &Bearer, until: Instant) -> Option<Arc<Bearer>> {
        let newer = || self.usable().filter(|bearer| bearer.serial > refused.serial);
        if let Some(bearer) = newer() {
            return Some(bearer);
        }
        let (waiting, done) = oneshot::channel();
        self.ask(refused.serial, Some(waiting));
        let _ = tokio::time::timeout_at(until, done).await; // never sent to, only dropped
        newer()
    }

    /// A person says that an older copy of the login, put back into the vault, is wanted.
    pub async fn accept_older_copy(&self) -> Result<(), VaultError> {
        self.services.vault.accept_rollback(&self.name).await?;
        self.reload().await;
        Ok(())
    }

    pub(super) fn ask(&self, serial: u64, waiting: Option<oneshot::Sender<()>>) {
        self.asks().push(Ask { serial, _waiting: waiting });
        self.wake.notify_one();
    }

    /// A panic elsewhere leaves a list that is still a list.
    fn asks(&self) -> std::sync::MutexGuard<'_, Vec<Ask>> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the login and keeps it fresh until shutdown.
    pub(super) async fn keep(self: Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        self.load().await;
        loop {
            let pause = self.look().await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                _ = shutdown.wait_for(|&down| down) => return self.asks().clear(),
            }
        }
    }

    /// Takes up what the vault holds now, after an import.
    pub(super) async fn reload(&self) {
        self.load().await;
        self.wake.notify_one();
    }

    async fn load(&self) {
        let mut inner = self.hold().await;
        if inner.follows.served {
            self.take_up(&mut inner).await;
        }
    }

    /// Takes up what the vault holds.
    pub(super) async fn take_up(&self, inner: &mut Inner) {
        (inner.record, inner.timing) = (None, None);
        let opened = self.services.vault.read(&self.name, &inner.follows.profile.provider).await;
        let problem = match opened {
            Ok(None) => None,
            Ok(Some(opened)) => match serde_json::from_slice::<Record>(&opened.plaintext) {
                Ok(record) => {
                    inner.generation = opened.generation;
                    inner.record = Some(record.after_restart(self.services.clock.wall()));
                    inner.tell_at = None;
                    None
                }
                Err(error) => Some(format!("The stored login is of a kind that this version does not read ({error}).")),
            },
            Err(error) => Some(error.to_string()),
        };
        self.publish(inner);
        if let Some(problem) = problem {
            tracing::error!(account = %self.name, problem, "the stored login cannot be used");
            self.show(|view| *view = View { error: Some(problem), ..View::empty(State::RelinkRequired) });
        }
    }

    /// Does what is due and says how long nothing will be.
    async fn look(&self) -> Duration {
        let mut inner = self.hold().await;
        let asked = std::mem::take(&mut *self.asks()); // answered when dropped, at the end of this look
        let pause = self.look_at_token(&mut inner, &asked).await;
        self.tell_when_due(&mut inner).await;
        let until_told = inner.tell_at.map(|at| at.since(self.services.clock.tick()));
        pause.min(until_told.unwrap_or(LONGEST_SLEEP))
    }

    async fn look_at_token(&self, inner: &mut Inner, asked: &[Ask]) -> Duration {
        let Some(record) = inner.record.clone().filter(|record| !record.is_being_revoked()) else {
            return LONGEST_SLEEP;
        };
        let now = self.services.clock.tick();
        if !record.is_renewable() {
            if record.standing == state::Standing::Linked && self.usable().is_none() {
                let ended = record.ended(self.services.clock.wall());
                self.settle(inner, ended, None).await;
            }
            return LONGEST_SLEEP;
        }
        let due = inner.refresh_at.is_some_and(|at| at <= now) || may_force(inner, &record, asked, now);
        if due {
            self.refresh(inner, &record).await;
        }
        let now = self.services.clock.tick();
        inner.refresh_at.map_or(LONGEST_SLEEP, |at| at.since(now)).min(LONGEST_SLEEP)
    }

    async fn refresh(&self, inner: &mut Inner, record: &Record) {
        let clock = &self.services.clock;
        let wait = record.breaker_wait(clock.wall());
        if !wait.is_zero() {
            return self.hold_back(inner, wait, "Renewing failed too often within the last hour.");
        }
        let intending = record.intending(clock.wall());
        if let Err(error) = self.prepare(inner, intending.clone()).await {
            self.services.metrics.record_refresh(&self.name, "vault_unwritable");
            let pause = next_pause(inner, None);
            return self.hold_back(inner, pause, &format!("Nothing was renewed, to lose nothing: {error}"));
        }
        self.show(|view| view.state = State::Refreshing);
        let answer = self.call(&intending, &inner.renewed_by).await;
        let heard = Instant::now();
        let (next, failure) = match answer {
            Ok(tokens) => (intending.renewed(tokens, clock.wall()), None),
            Err(failure) => (intending.failed(&failure, clock.wall()), Some(failure)),
        };
        self.report(failure.as_ref());
        self.settle(inner, next, failure).await;
        self.services.metrics.record_rotation_window(heard.elapsed());
    }

    /// Nothing is sent before this has succeeded.
    async fn prepare(&self, inner: &mut Inner, intending: Record) -> Result<(), VaultError> {
        self.services.vault.probe().await?;
        self.store(inner, intending).await
    }

    async fn call(&self, record: &Record, profile: &Profile) -> Result<Tokens, TokenError> {
        let login = &record.login;
        let token_url = match profile.token.url.as_deref().cloned().or_else(|| login.token_url.clone()) {
            Some(url) => url,
            None => self.discover(profile).await?,
        };
        let grant = match &login.refresh_credential {
            RefreshCredential::RefreshToken { token } => OAuthGrant::Refresh(token),
            RefreshCredential::ClientSecret { secret } => OAuthGrant::ClientSecret(secret),
            RefreshCredential::None => return Err(TokenError::no_refresh_token()),
        };
        let services = &self.services;
        token_endpoint::request_tokens(
            &services.upstream,
            profile,
            &token_url,
            login.client_id.as_deref(),
            grant,
            services.clock.wall(),
        )
        .await
    }

    async fn discover(&self, profile: &Profile) -> Result<url::Url, TokenError> {
        let endpoints = discovery::endpoints(&self.services.upstream, profile, profile.link.flow).await;
        endpoints.ok().and_then(|endpoints| endpoints.token).ok_or_else(TokenError::not_discovered)
    }

    /// Makes the outcome durable, however long that takes, then lets requests see it. Until then the old token serves.
    async fn settle(&self, inner: &mut Inner, next: Record, failure: Option<TokenError>) {
        while let Err(error) = self.store(inner, next.clone()).await {
            if let VaultError::StaleWrite { .. } = error {
                // An import put another login in its place during the call: that one is meant, and this one was for the old.
                tracing::warn!(account = %self.name, "the login was replaced while it was being renewed");
                return self.take_up(inner).await;
            }
            tracing::error!(account = %self.name, %error, "the renewed login cannot be stored; trying on");
            self.show(|view| view.error = Some(error.to_string()));
            tokio::time::sleep(STORE_AGAIN).await;
        }
        self.publish(inner);
        match failure {
            None => (inner.failed_in_a_row, inner.held_until) = (0, None),
            Some(failure) if next.is_renewable() => {
                let pause = next_pause(inner, failure.retry_after).max(next.breaker_wait(self.services.clock.wall()));
                let reason = format!("Renewing failed, Pixy tries again: {}.", failure.what);
                self.hold_back(inner, pause, &reason);
            }
            Some(_) => {}
        }
    }

    /// No refresh before `pause` is over; the current token serves on until it expires.
    fn hold_back(&self, inner: &mut Inner, pause: Duration, reason: &str) {
        let retry_at = self.services.clock.tick().after(pause);
        inner.refresh_at = Some(retry_at);
        inner.held_until = Some(retry_at);
        let next_refresh_at = Some(self.services.clock.wall().after(pause));
        self.show(|view| {
            if view.state == State::Refreshing {
                view.state = State::Linked;
            }
            view.refresh_at = Some(retry_at);
            view.next_refresh_at = next_refresh_at;
            view.error = Some(reason.to_owned());
        });
    }

    fn report(&self, failure: Option<&TokenError>) {
        let outcome = match failure.map(|failure| failure.kind) {
            None => "renewed",
            Some(TokenErrorKind::Terminal) => "terminal",
            Some(TokenErrorKind::Transient) => "transient",
            Some(TokenErrorKind::NoResponse) => "unheard",
            Some(TokenErrorKind::Unknown) => "unknown",
        };
        self.services.metrics.record_refresh(&self.name, outcome);
        match failure {
            None => tracing::info!(account = %self.name, "renewed"),
            Some(failure) => tracing::warn!(account = %self.name, outcome, what = failure.what, "not renewed"),
        }
    }
}

/// Whether somebody asks for a refresh of the current token, and enough time has passed since the last such one and
/// since a failure.
fn may_force(inner: &mut Inner, record: &Record, asked: &[Ask], now: Tick) -> bool {
    let wanted = asked.iter().any(|ask| ask.serial == record.login.serial);
    let not_before = inner.timing.and_then(|(_, timing)| timing.not_before);
    let held = [not_before, inner.forced_again_at, inner.held_until].into_iter().flatten().any(|until| now < until);
    if !wanted || held {
        return false;
    }
    inner.forced_again_at = Some(now.after(FORCED_APART));
    true
}

fn next_pause(inner: &mut Inner, retry_after: Option<Duration>) -> Duration {
    inner.failed_in_a_row += 1;
    state::backoff(inner.failed_in_a_row, retry_after, random_fraction())
}
