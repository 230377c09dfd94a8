//! A login: the tokens that a provider granted, and how long they are valid. Pure: reads no clock and calls nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::origins::{Bound, Move, RevocationEndpoint};
use crate::clock::Timestamp;
use crate::oauth::identity::Subject;
use crate::oauth::profile::Profile;
use crate::oauth::token_response::NotBefore;
use crate::secret::Secret;

/// A record older than its own past by more than this was written under another clock.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// What the provider granted. The serialized names are part of the sealed record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// Attached to requests.
    #[serde(with = "crate::secret::in_vault_record")]
    pub access_token: Secret,
    /// What a new access token is requested with.
    #[serde(rename = "renewal")]
    pub refresh_credential: RefreshCredential,
    /// When the access token was issued, by the wall clock.
    pub obtained_at: Timestamp,
    /// The lifetime from then; `None` is unlimited.
    pub lifetime: Option<Duration>,
    /// No refresh before this.
    pub not_before: Option<NotBefore>,
    /// Incremented with every new access token: distinguishes a rejected token from its successor.
    pub serial: u64,
    /// The client id that the grant belongs to.
    pub client_id: Option<String>,
    /// The token endpoint that was discovered when the account was linked; the profile's takes precedence.
    pub token_url: Option<Url>,
    /// The discovered revocation endpoint; the profile's takes precedence.
    pub revoke_url: Option<Url>,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// Who linked the account, as far as an id_token named the person: a refresh must name the same (OpenID Connect Core §12.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Whose account it is, to show to the person.
    pub identity: Vec<String>,
    /// Headers with values copied from claims.
    pub claim_headers: Vec<(String, String)>,
    /// The origins that it may be sent to; `None` in records of earlier versions, until they are loaded.
    #[serde(default)]
    pub bound: Option<Bound>,
}

/// What a new access token is requested with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RefreshCredential {
    /// Nothing: the token has no end, or the person must link again.
    None,
    /// A refresh token, which may rotate.
    RefreshToken {
        /// The current one.
        #[serde(with = "crate::secret::in_vault_record")]
        token: Secret,
    },
    /// The client's secret (RFC 6749 §4.4), which is never spent.
    ClientSecret {
        /// The secret.
        #[serde(with = "crate::secret::in_vault_record")]
        secret: Secret,
    },
}

impl Login {
    /// When the access token ends, by the wall clock.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.lifetime.map(|lifetime| self.obtained_at.after(lifetime))
    }

    /// The origins in `profile` that it is not bound to.
    pub(super) fn moves(&self, profile: &Profile) -> Vec<Move> {
        let discovered: Vec<&Url> = self.token_url.iter().chain(&self.revoke_url).collect();
        self.bound.as_ref().map(|bound| bound.moves(profile, &discovered)).unwrap_or_default()
    }

    /// Whether `profile` moved away from an origin that it is bound to, and names that origin as its former one.
    pub(super) fn has_moved_formerly(&self, profile: &Profile) -> bool {
        self.moves(profile).is_empty() && self.bound.as_ref().is_some_and(|bound| bound.is_formerly_of(profile))
    }

    /// Binds it to the origins in `profile`. Endpoints that another server's metadata named are forgotten.
    pub(super) fn bind(&mut self, profile: &Profile) {
        let bound = Bound::to(profile, self.revoke_url.as_ref());
        if self.bound.as_ref().is_some_and(|before| before.has_other_server(&bound)) {
            (self.token_url, self.revoke_url) = (None, None);
            self.bound = Some(Bound::to(profile, None));
        } else {
            self.bound = Some(bound);
        }
    }

    /// Where it is revoked: at the endpoint that it came with while `profile` has moved, else as `profile` says.
    pub(super) fn revocation_endpoint(&self, profile: &Profile) -> Option<RevocationEndpoint> {
        match &self.bound {
            Some(bound) if !self.moves(profile).is_empty() => bound.revocation_endpoint().cloned(),
            _ => RevocationEndpoint::of(profile, self.revoke_url.as_ref()),
        }
    }
}
