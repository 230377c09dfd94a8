//! A login: the tokens that a provider granted, and how long they are valid. Pure: reads no clock and calls nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Timestamp;
use crate::oauth::identity::Subject;
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
}
