//! A grant that was given up here and is still valid at the provider (RFC 7009). Part of the sealed record.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::login::{Login, RefreshCredential};
use crate::clock::Timestamp;
use crate::oauth::profile::{BodyKind, Profile};
use crate::oauth::revoke::TokenTypeHint;
use crate::secret::Secret;

/// After this the revocation is given up.
const LONGEST_REVOCATION: Duration = Duration::from_hours(24);

/// What the revocation endpoint needs to end a grant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingRevocation {
    #[serde(with = "crate::secret::in_vault_record")]
    pub(super) token: Secret,
    pub(super) hint: TokenTypeHint,
    pub(super) client_id: Option<String>,
    revoke_url: Option<Url>,
    since: Timestamp,
}

impl PendingRevocation {
    /// Of a login's refresh token, with which everything that came of it ends (RFC 7009 §2.1); without one, of the access
    /// token. `None` for a client secret, which belongs to the operator.
    pub fn of(login: &Login, since: Timestamp) -> Option<Self> {
        let (token, hint) = match &login.refresh_credential {
            RefreshCredential::RefreshToken { token } => (token, TokenTypeHint::RefreshToken),
            RefreshCredential::None => (&login.access_token, TokenTypeHint::AccessToken),
            RefreshCredential::ClientSecret { .. } => return None,
        };
        let (client_id, revoke_url) = (login.client_id.clone(), login.revoke_url.clone());
        Some(Self { token: token.clone(), hint, client_id, revoke_url, since })
    }

    /// The same, but `None` where the provider has no revocation endpoint.
    pub(super) fn at_provider(login: &Login, profile: &Profile, since: Timestamp) -> Option<Self> {
        Self::of(login, since).filter(|pending| pending.endpoint(profile).is_some())
    }

    /// The profile's revocation endpoint, or the discovered one, and the format of its request.
    pub(super) fn endpoint<'a>(&'a self, profile: &'a Profile) -> Option<(&'a Url, BodyKind)> {
        let configured = profile.revoke.as_ref().map(|revoke| (&*revoke.url, revoke.body));
        configured.or_else(|| Some((self.revoke_url.as_ref()?, BodyKind::Form)))
    }

    /// It was retried long enough.
    pub(super) fn is_given_up(&self, now: Timestamp) -> bool {
        now.since(self.since) > LONGEST_REVOCATION
    }
}
