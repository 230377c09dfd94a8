//! A login: the tokens that a provider granted, and how long they are valid. Pure: reads no clock and calls nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::{Tick, Timestamp};
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

/// When the current access token is valid and when it should be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The token is not sent from here on; `None` is never.
    pub usable_until: Option<Tick>,
    /// When to refresh; `None` is never.
    pub refresh_at: Option<Tick>,
    /// No refresh before this, not even a forced one.
    pub not_before: Option<Tick>,
}

impl Login {
    /// Decides once, when a token is published, until when it is usable and when to refresh it. `jitter` is within 0..1.
    pub fn timing(&self, profile_lead: Duration, jitter: f64, wall: Timestamp, tick: Tick) -> Timing {
        let not_before = self.not_before.map(|at| {
            // The longer of the server's moment and our own calculation, because our clock may have been wrong then or may be
            // wrong now. A clock that was set back extends no wait beyond its original length.
            let calculated = at.wait.saturating_sub(wall.since(self.obtained_at));
            tick.after(at.moment.since(wall).max(calculated).min(at.wait))
        });
        let Some(lifetime) = self.lifetime else { return Timing { usable_until: None, refresh_at: None, not_before } };
        // A token from the future was stored under another clock: its remaining lifetime is unknown.
        let from_future = self.obtained_at > wall.after(CLOCK_TOLERANCE);
        let remaining =
            if from_future { Duration::ZERO } else { lifetime.saturating_sub(wall.since(self.obtained_at)) };
        // Time for a request to arrive before the token ends. Servers count in whole seconds, so a token may end up to one
        // second before its lifetime is over.
        let margin = (lifetime / 20).clamp(Duration::from_millis(1_100), Duration::from_secs(10)).min(lifetime / 2);
        let lead = profile_lead
            .min(lifetime / 10)
            .mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
            .max(margin + (lifetime / 10).min(Duration::from_secs(1)));
        let due = tick.after(remaining.saturating_sub(lead));
        let refresh_at = match self.refresh_credential {
            RefreshCredential::None => None,
            _ => Some(not_before.map_or(due, |at| due.max(at))),
        };
        Timing { usable_until: Some(tick.after(remaining.saturating_sub(margin))), refresh_at, not_before }
    }

    /// When the access token ends, by the wall clock.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.lifetime.map(|lifetime| self.obtained_at.after(lifetime))
    }
}
