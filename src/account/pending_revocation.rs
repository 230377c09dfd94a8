//! Grants that are over here and must be over at the provider too (RFC 7009). One that could not be told is told again, over
//! restarts and with backoff, for a day.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::state::{self, Record};
use super::{Account, Inner, Login, RefreshCredential, RevocationOutcome, random_fraction};
use crate::clock::Timestamp;
use crate::oauth::profile::BodyKind;
use crate::oauth::revoke::{RevocationResponse, TokenTypeHint, revoke};
use crate::secret::Secret;
use crate::vault::VaultError;

/// A provider that cannot be told for this long is not told.
const LONGEST_REVOCATION: Duration = Duration::from_hours(24);

/// What the provider is told of a grant that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingRevocation {
    #[serde(with = "crate::secret::in_vault_record")]
    token: Secret,
    hint: TokenTypeHint,
    client_id: Option<String>,
    revoke_url: Option<Url>,
    since: Timestamp,
}

impl PendingRevocation {
    /// Of a login. Its refresh token, for with it goes all that came of it (RFC 7009 §2.1); without one the access token.
    pub fn of(login: &Login, since: Timestamp) -> Option<Self> {
        let (token, hint) = match &login.refresh_credential {
            RefreshCredential::RefreshToken { token } => (token, TokenTypeHint::RefreshToken),
            RefreshCredential::None => (&login.access_token, TokenTypeHint::AccessToken),
            RefreshCredential::ClientSecret { .. } => return None, // it is the operator's
        };
        let (client_id, revoke_url) = (login.client_id.clone(), login.revoke_url.clone());
        Some(Self { token: token.clone(), hint, client_id, revoke_url, since })
    }
}

impl Account {
    /// What the provider must hear of a login that is over; `None` where it takes no such word.
    pub(super) fn owed(&self, login: &Login) -> Option<PendingRevocation> {
        let told_where = self.profile().revoke.is_some() || login.revoke_url.is_some();
        PendingRevocation::of(login, self.services.clock.wall()).filter(|_| told_where)
    }

    /// Tells the provider, once.
    pub(super) async fn tell(&self, ended: &PendingRevocation) -> (RevocationOutcome, Option<Duration>) {
        let profile = self.profile();
        let (url, body) = match (&profile.revoke, &ended.revoke_url) {
            (Some(configured), _) => (&*configured.url, configured.body),
            (None, Some(discovered)) => (discovered, BodyKind::Form),
            (None, None) => return (RevocationOutcome::NotRevoked, None),
        };
        match revoke(&self.services.upstream, url, body, ended.client_id.as_deref(), &ended.token, ended.hint).await {
            RevocationResponse::Revoked => (RevocationOutcome::Revoked, None),
            RevocationResponse::Refused => (RevocationOutcome::NotRevoked, None),
            RevocationResponse::Unavailable(retry_after) => (RevocationOutcome::Pending, retry_after),
        }
    }

    /// Tells the provider of everything that is over, and forgets what it has heard. Nothing is forgotten that is not durable.
    pub(super) async fn tell_of_ended(&self, inner: &mut Inner) -> Result<(), VaultError> {
        let owes = |record: &Record| !record.ended.is_empty() || record.is_being_revoked();
        let Some(record) = inner.record.clone().filter(owes) else { return Ok(()) };
        let wall = self.services.clock.wall();
        let (mut still, mut asked_to_wait) = (record.ended.clone(), None);
        for ended in &record.ended {
            let (outcome, retry_after) = self.tell(ended).await;
            let _ = still.remove(0);
            if outcome == RevocationOutcome::Pending && wall.since(ended.since) <= LONGEST_REVOCATION {
                // Who does not listen now is not told of the others either; the next time they come first.
                asked_to_wait = retry_after;
                still.push(ended.clone());
                break;
            }
        }
        inner.told_in_vain = if still.is_empty() { 0 } else { (inner.told_in_vain + 1).min(30) };
        let pause = state::backoff(inner.told_in_vain.max(1), asked_to_wait, random_fraction());
        inner.tell_at = (!still.is_empty()).then(|| self.services.clock.tick().after(pause));
        if still.is_empty() && record.is_being_revoked() {
            self.services.vault.remove(&self.name).await?;
            inner.record = None;
            return Ok(());
        }
        if still.len() == record.ended.len() {
            return Ok(());
        }
        self.store(inner, Record { ended: still, ..record }).await
    }

    /// The same when it is due, in the keeper's time.
    pub(super) async fn tell_when_due(&self, inner: &mut Inner) {
        let now = self.services.clock.tick();
        if inner.tell_at.is_some_and(|at| at > now) {
            return;
        }
        if let Err(error) = self.tell_of_ended(inner).await {
            tracing::error!(account = %self.name, %error, "the provider was told of an ended login, and that cannot be stored");
            inner.tell_at = Some(self.services.clock.tick().after(state::backoff(6, None, random_fraction())));
        }
    }
}
