//! A grant that was given up here and is still valid at the provider (RFC 7009). Part of the sealed record.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::login::{Login, RefreshCredential};
use super::origins::RevocationEndpoint;
use crate::clock::Timestamp;
use crate::oauth::profile::{BodyKind, Profile};
use crate::oauth::revoke::TokenTypeHint;
use crate::secret::Secret;

/// After this the revocation is given up.
const LONGEST_REVOCATION: Duration = Duration::from_hours(24);

/// What the revocation endpoint needs to end a grant. Its URL is that of the login, whatever is configured later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingRevocation {
    #[serde(with = "crate::secret::in_vault_record")]
    pub(super) token: Secret,
    pub(super) hint: TokenTypeHint,
    pub(super) client_id: Option<String>,
    revoke_url: Option<Url>,
    /// `None` in records of earlier versions, until [`PendingRevocation::bind`]: then `revoke_url` is the discovered endpoint, if any.
    #[serde(default)]
    body: Option<BodyKind>,
    since: Timestamp,
}

impl PendingRevocation {
    /// Of a login's refresh token, with which everything that came of it ends (RFC 7009 §2.1); without one, of the access
    /// token. `None` for a client secret, which belongs to the operator.
    pub fn of(login: &Login, endpoint: Option<RevocationEndpoint>, since: Timestamp) -> Option<Self> {
        let (token, hint) = match &login.refresh_credential {
            RefreshCredential::RefreshToken { token } => (token, TokenTypeHint::RefreshToken),
            RefreshCredential::None => (&login.access_token, TokenTypeHint::AccessToken),
            RefreshCredential::ClientSecret { .. } => return None,
        };
        let (revoke_url, body) = match endpoint {
            Some(RevocationEndpoint { url, body }) => (Some(url), Some(body)),
            None => (login.revoke_url.clone(), None),
        };
        Some(Self { token: token.clone(), hint, client_id: login.client_id.clone(), revoke_url, body, since })
    }

    /// The same, but `None` where the provider has no revocation endpoint.
    pub(super) fn at_provider(login: &Login, profile: &Profile, since: Timestamp) -> Option<Self> {
        let endpoint = login.revocation_endpoint(profile)?;
        Self::of(login, Some(endpoint), since)
    }

    /// Fixes the endpoint of one that an earlier version stored without it.
    pub(super) fn bind(&mut self, profile: &Profile) {
        if self.body.is_none() {
            let endpoint = RevocationEndpoint::of(profile, self.revoke_url.as_ref());
            self.body = Some(endpoint.as_ref().map_or(BodyKind::Form, |endpoint| endpoint.body));
            self.revoke_url = endpoint.map(|endpoint| endpoint.url);
        }
    }

    /// Whether its endpoint is fixed.
    pub(super) fn is_bound(&self) -> bool {
        self.body.is_some()
    }

    /// The endpoint that the grant came with, and the format of its request.
    pub(super) fn endpoint(&self) -> Option<(&Url, BodyKind)> {
        Some((self.revoke_url.as_ref()?, self.body?))
    }

    /// It was retried long enough.
    pub(super) fn is_given_up(&self, now: Timestamp) -> bool {
        now.since(self.since) > LONGEST_REVOCATION
    }
}
