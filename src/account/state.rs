//! The sealed record of a login, and every way it changes. Pure: reads no clock and calls nothing.
//!
//! ```text
//!             adopt                      refreshed
//!   (none) ───────────▶ linked ◀──────────────────────┐
//!                        │  with_intent               │
//!                        ▼                            │
//!                 intent stored ──▶ the call ─────────┤ transient, unknown (twice), unheard: still linked
//!                                                     │
//!                                                     └▶ relink_required(reason): terminal, unknown for the third time,
//!                                                        two crashes with the same intent open, tokens that do not
//!                                                        continue the login (withheld)
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::login::{CLOCK_TOLERANCE, Login, RefreshCredential};
use super::origins;
use super::pending_revocation::PendingRevocation;
use super::refresh_timing::Timing;
use crate::clock::{Tick, Timestamp};
use crate::oauth::profile::Profile;
use crate::oauth::token_response::{TokenError, TokenErrorKind, TokenResponse};

/// This many unknown responses in a row are treated as the end of the grant.
const UNKNOWN_LIMIT: u32 = 3;

/// The maximum of failed token calls within [`BREAKER_SPAN`].
const BREAKER_LIMIT: usize = 20;

/// See [`BREAKER_LIMIT`].
const BREAKER_SPAN: Duration = Duration::from_hours(1);

/// Longer than a call of the token endpoint takes, discovery and a slow disk included.
const LONGEST_CALL: Duration = Duration::from_mins(2);

/// What is sealed in the vault for one account. The serialized names are part of the sealed record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Whether the login can be used.
    #[serde(rename = "standing")]
    pub status: RecordStatus,
    /// What was granted.
    pub login: Login,
    /// Tokens that a refresh brought and that did not continue the login (`continuity`): kept because the refresh token of
    /// `login` may be spent, and never sent to the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Box<Login>>,
    /// A refresh that was begun and whose outcome is not recorded.
    pub intent: Option<RefreshIntent>,
    /// A refresh token was sent at this time, and no response received.
    pub unheard_since: Option<Timestamp>,
    /// Unknown responses since the last successful refresh.
    pub unknown_answers: u32,
    /// Failed token calls within the last hour, oldest first.
    pub failures: Vec<Timestamp>,
    /// When a person linked it.
    pub linked_at: Timestamp,
    /// Grants that were given up here and must be revoked at the provider.
    #[serde(rename = "ended", default)]
    pub pending_revocations: Vec<PendingRevocation>,
}

/// Whether a login can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    /// It can.
    Linked,
    /// It cannot be refreshed: a person must link again. The credential is kept.
    RelinkRequired {
        /// One sentence for the person.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
    /// A person unlinked it; its revocation is pending.
    RevocationPending {
        /// Since when.
        since: Timestamp,
    },
}

/// A refresh token is about to be spent. Stored before the call, cleared with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshIntent {
    /// Since when.
    pub at: Timestamp,
    /// How often a refresh with this token was begun without an outcome being recorded: more than one only after a crash.
    pub tries: u32,
}

impl Record {
    /// A new login that a person confirmed.
    pub fn linked(login: Login, now: Timestamp) -> Self {
        Self {
            status: RecordStatus::Linked,
            login,
            withheld: None,
            intent: None,
            unheard_since: None,
            unknown_answers: 0,
            failures: Vec::new(),
            linked_at: now,
            pending_revocations: Vec::new(),
        }
    }

    /// As loaded after a start: an open intent means that Pixy ended between sending a refresh token and storing the outcome.
    /// The first time is retried, because the provider may not have received the token or may have a grace period; the
    /// second is not. The breaker counts the interrupted call as a failure.
    #[must_use]
    pub fn after_restart(&self, now: Timestamp) -> Self {
        if self.is_being_revoked() && self.pending_revocations.is_empty() {
            // Written by a version without pending revocations: the login itself must be revoked.
            let endpoint = self.login.bound.as_ref().and_then(|bound| bound.revocation_endpoint().cloned());
            return Self {
                pending_revocations: PendingRevocation::of(&self.login, endpoint, now).into_iter().collect(),
                ..self.clone()
            };
        }
        match &self.intent {
            Some(intent) if intent.tries >= 2 => self.relink_required(
                "Pixy was stopped twice during a refresh of this login, so its refresh token may be spent.",
                now,
            ),
            Some(_) => {
                let mut failures = self.recent_failures(now);
                failures.push(now);
                Self { failures, ..self.clone() }
            }
            None => self.clone(),
        }
    }

    /// To be stored before the refresh token is sent.
    #[must_use]
    pub fn with_intent(&self, now: Timestamp) -> Self {
        let tries = self.intent.as_ref().map_or(0, |intent| intent.tries) + 1;
        Self { intent: Some(RefreshIntent { at: now, tries }), ..self.clone() }
    }

    /// After the provider issued new tokens.
    #[must_use]
    pub fn refreshed(&self, tokens: TokenResponse, now: Timestamp) -> Self {
        let mut failures = self.recent_failures(now);
        if tokens.lifetime.is_some_and(|lifetime| lifetime < Duration::from_secs(1)) {
            failures.push(now); // a token that is expired on arrival must not cause endless refreshes
        }
        let old = &self.login;
        let refresh_credential = match (tokens.refresh_token, &old.refresh_credential) {
            (Some(token), RefreshCredential::RefreshToken { .. }) => RefreshCredential::RefreshToken { token },
            (_, kept) => kept.clone(), // RFC 6749 §6: without a new one the old one stays valid
        };
        let login = Login {
            access_token: tokens.access_token,
            refresh_credential,
            obtained_at: self.issued_at(now),
            lifetime: tokens.lifetime,
            not_before: tokens.not_before,
            serial: old.serial + 1,
            client_id: old.client_id.clone(),
            token_url: old.token_url.clone(),
            revoke_url: old.revoke_url.clone(),
            scopes: tokens.scopes.unwrap_or_else(|| old.scopes.clone()),
            subject: tokens.subject.or_else(|| old.subject.clone()),
            identity: if tokens.identity.is_empty() { old.identity.clone() } else { tokens.identity },
            claim_headers: if tokens.claim_headers.is_empty() {
                old.claim_headers.clone()
            } else {
                tokens.claim_headers
            },
            bound: old.bound.clone(),
        };
        Self { failures, pending_revocations: self.pending_revocations.clone(), ..Self::linked(login, self.linked_at) }
    }

    /// After the provider issued tokens that do not continue the login. The person is asked; until then the old access token is
    /// used while it is valid.
    #[must_use]
    pub fn withholding(&self, tokens: TokenResponse, reason: &str, now: Timestamp) -> Self {
        let withheld = Some(Box::new(self.refreshed(tokens, now).login));
        Self { withheld, unheard_since: None, unknown_answers: 0, ..self.relink_required(reason, now) }
    }

    /// Everything that must be revoked at the provider when this login is given up.
    pub fn all_revocations(&self, profile: &Profile, now: Timestamp) -> Vec<PendingRevocation> {
        self.pending_revocations.iter().cloned().chain(self.own_revocations(profile, now)).collect()
    }

    /// The revocations of the login and of withheld tokens.
    pub fn own_revocations(&self, profile: &Profile, now: Timestamp) -> Vec<PendingRevocation> {
        let grants = std::iter::once(&self.login).chain(self.withheld.as_deref());
        grants.filter_map(|grant| PendingRevocation::at_provider(grant, profile, now)).collect()
    }

    /// After a failed call. No failure changes the login.
    #[must_use]
    pub fn failed(&self, error: &TokenError, now: Timestamp) -> Self {
        let mut failures = self.recent_failures(now);
        failures.push(now);
        let crashed_before = self.intent.as_ref().is_some_and(|intent| intent.tries >= 2);
        let unheard_since = match error.kind {
            TokenErrorKind::NoResponse => self.unheard_since.or(Some(now)),
            // Says nothing about an earlier call without a response.
            TokenErrorKind::Transient | TokenErrorKind::Unknown => self.unheard_since,
            TokenErrorKind::Terminal => None,
        };
        let unknown_answers =
            if error.kind == TokenErrorKind::Unknown { self.unknown_answers + 1 } else { self.unknown_answers };
        let next = Self { intent: None, unheard_since, unknown_answers, failures, ..self.clone() };
        let what = &error.what;
        match error.kind {
            TokenErrorKind::Terminal if crashed_before || self.unheard_since.is_some() => next.relink_required(
                &format!("An earlier refresh was interrupted before its result was stored, and now {what}."),
                now,
            ),
            TokenErrorKind::Terminal => next.relink_required(&format!("The provider ended this login: {what}."), now),
            TokenErrorKind::Unknown if unknown_answers >= UNKNOWN_LIMIT => next.relink_required(
                &format!("The refresh failed {unknown_answers} times with a response that Pixy does not know: {what}."),
                now,
            ),
            TokenErrorKind::Unknown | TokenErrorKind::Transient | TokenErrorKind::NoResponse => next,
        }
    }

    /// After the expiry of an access token that cannot be refreshed.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> Self {
        self.relink_required("The login expired, and the provider issued no refresh token for it.", now)
    }

    /// Where the configuration moved the login, in a sentence for the person; `None` while it is where it was linked.
    pub fn moved(&self, profile: &Profile) -> Option<String> {
        if self.is_being_revoked() { None } else { origins::sentence(&self.login.moves(profile)) }
    }

    /// Bound to the origins in `profile`: a record of an earlier version, and one that a shipped profile moved. `None` where
    /// nothing is to be bound.
    pub fn bound(&self, profile: &Profile) -> Option<Self> {
        let login_is_old = self.login.bound.is_none();
        let is_bound = !login_is_old && self.pending_revocations.iter().all(PendingRevocation::is_bound);
        let moved_by_us = self.login.has_moved_formerly(profile);
        if is_bound && !moved_by_us {
            return None;
        }
        let mut bound = self.clone();
        if login_is_old || moved_by_us {
            bound.login.bind(profile);
        }
        bound.pending_revocations.iter_mut().for_each(|pending| pending.bind(profile));
        Some(bound)
    }

    /// After a person confirmed that the login may go to the origins in `profile`.
    #[must_use]
    pub fn rebound(&self, profile: &Profile) -> Self {
        let mut rebound = self.clone();
        rebound.login.bind(profile);
        rebound
    }

    /// As [`Login::timing`], but an interrupted refresh is due at once: providers accept a second use of a refresh token for
    /// some seconds only, and the access token may be valid for hours yet.
    pub fn timing(&self, profile_lead: Duration, jitter: f64, wall: Timestamp, tick: Tick) -> Timing {
        let timing = Timing::of(&self.login, profile_lead, jitter, wall, tick);
        let interrupted = self.intent.is_some() || self.unheard_since.is_some();
        if interrupted && self.is_refreshable() { Timing { refresh_at: Some(tick), ..timing } } else { timing }
    }

    /// How long the breaker delays the next call; zero when it may be sent.
    pub fn breaker_wait(&self, now: Timestamp) -> Duration {
        let recent = self.recent_failures(now);
        match recent.len().checked_sub(BREAKER_LIMIT) {
            None => Duration::ZERO,
            Some(index) => recent[index].after(BREAKER_SPAN).since(now),
        }
    }

    /// Whether it is linked and has a refresh credential.
    pub fn is_refreshable(&self) -> bool {
        self.status == RecordStatus::Linked && !matches!(self.login.refresh_credential, RefreshCredential::None)
    }

    /// Whether a person unlinked it and its revocation is pending.
    pub fn is_being_revoked(&self) -> bool {
        matches!(self.status, RecordStatus::RevocationPending { .. })
    }

    /// When the lifetime of a token that was received `now` may have begun: the server counts from before it sent its
    /// response. A moment longer ago than a call takes is from a clock that was stepped.
    fn issued_at(&self, now: Timestamp) -> Timestamp {
        let sent = self.intent.as_ref().map_or(now, |intent| intent.at);
        let earliest = Timestamp::EPOCH.after(now.since(Timestamp::EPOCH).saturating_sub(LONGEST_CALL));
        sent.max(earliest).min(now)
    }

    fn relink_required(&self, reason: &str, now: Timestamp) -> Self {
        let status = RecordStatus::RelinkRequired { reason: reason.to_owned(), since: now };
        Self { status, intent: None, ..self.clone() }
    }

    fn recent_failures(&self, now: Timestamp) -> Vec<Timestamp> {
        let recent = self
            .failures
            .iter()
            .copied()
            .filter(|&at| now.since(at) < BREAKER_SPAN && at <= now.after(CLOCK_TOLERANCE));
        recent.collect()
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
pub(super) mod tests;
