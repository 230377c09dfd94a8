//! Revocation of grants at the provider (RFC 7009), with retries.

use std::time::Duration;

use super::login::Login;
use super::pending_revocation::PendingRevocation;
use super::schedule::backoff;
use super::services::AccountServices;
use crate::clock::Tick;
use crate::oauth::profile::Profile;
use crate::oauth::revoke::{self, RevocationResponse};

/// The failure count at which the backoff has reached its maximum.
const MAX_FAILURES: u32 = 30;

/// The result of revoking a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationOutcome {
    /// The provider revoked the grant, or there was none.
    Revoked,
    /// The provider has no revocation endpoint, or refused.
    NotRevoked,
    /// The provider could not be reached; Pixy retries.
    Pending,
}

/// When pending revocations are retried.
#[derive(Default)]
pub(super) struct RevocationSchedule {
    failures: u32,
    /// `None` is now.
    retry_at: Option<Tick>,
}

impl RevocationSchedule {
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// The time until the next retry; `None` when none is scheduled.
    pub(super) fn wait(&self, now: Tick) -> Option<Duration> {
        self.retry_at.map(|at| at.since(now))
    }

    /// The next pass retries at once.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The first failure of a new revocation.
    pub(super) fn failed_first(&mut self, retry_after: Option<Duration>, jitter: f64, now: Tick) {
        self.failures = 0;
        self.failed(retry_after, jitter, now);
    }

    pub(super) fn failed(&mut self, retry_after: Option<Duration>, jitter: f64, now: Tick) {
        self.failures = (self.failures + 1).min(MAX_FAILURES);
        self.retry_at = Some(now.after(backoff(self.failures, retry_after, jitter)));
    }

    /// The result could not be stored: the next retry, without counting a failure of the provider.
    pub(super) fn store_failed(&mut self, jitter: f64, now: Tick) {
        self.retry_at = Some(now.after(backoff(6, None, jitter)));
    }
}

/// Asks the provider once to revoke `pending`. With [`RevocationOutcome::Pending`] comes the provider's `Retry-After`.
pub(super) async fn revoke(
    services: &AccountServices,
    pending: &PendingRevocation,
) -> (RevocationOutcome, Option<Duration>) {
    let Some((url, body)) = pending.endpoint() else { return (RevocationOutcome::NotRevoked, None) };
    let client_id = pending.client_id.as_deref();
    match revoke::revoke(&services.upstream, url, body, client_id, &pending.token, pending.hint).await {
        RevocationResponse::Revoked => (RevocationOutcome::Revoked, None),
        RevocationResponse::Refused => (RevocationOutcome::NotRevoked, None),
        RevocationResponse::Unavailable(retry_after) => (RevocationOutcome::Pending, retry_after),
    }
}

/// Asks the provider once to revoke a login that was never stored.
pub(super) async fn revoke_login(services: &AccountServices, profile: &Profile, login: &Login) -> RevocationOutcome {
    match PendingRevocation::at_provider(login, profile, services.clock.wall()) {
        Some(pending) => revoke(services, &pending).await.0,
        None => RevocationOutcome::NotRevoked,
    }
}
