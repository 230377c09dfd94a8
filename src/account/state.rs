//! What is durable about a login, and every way it changes. Pure: no clock is read and nothing is called here.
//!
//! ```text
//!             adopt                      renewed
//!   (none) ───────────▶ linked ◀──────────────────────┐
//!                        │  intending                 │
//!                        ▼                            │
//!                 intent recorded ──▶ the call ───────┤ transient, unknown (three times), unheard: still linked
//!                                                     │
//!                                                     └▶ relink_required(reason): terminal, unknown for the third time,
//!                                                        two crashes with the same intent open
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::pending_revocation::PendingRevocation;
use crate::clock::{Tick, Timestamp};
use crate::oauth::token_response::{NotBefore, TokenError, TokenErrorKind, Tokens};
use crate::secret::Secret;

/// So many unknown answers in a row are taken as the end of the grant.
pub const UNKNOWN_LIMIT: u32 = 3;

/// Never more failed token calls in [`BREAKER_SPAN`].
pub const BREAKER_LIMIT: usize = 20;

/// See [`BREAKER_LIMIT`].
pub const BREAKER_SPAN: Duration = Duration::from_hours(1);

/// Longer than a call of the token endpoint takes, discovery and a slow disk included.
const LONGEST_CALL: Duration = Duration::from_mins(2);

/// A record older than its own past by more than this was written under another clock.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// What is sealed in the vault for one account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Whether it can be used.
    pub standing: Standing,
    /// What was granted.
    pub login: Login,
    /// A refresh that was begun and whose outcome is not recorded.
    pub intent: Option<Intent>,
    /// A refresh token was sent and no answer heard, since then.
    pub unheard_since: Option<Timestamp>,
    /// Unknown answers since the last good one.
    pub unknown_answers: u32,
    /// Failed token calls within [`BREAKER_SPAN`], oldest first.
    pub failures: Vec<Timestamp>,
    /// When a person linked it.
    pub linked_at: Timestamp,
    /// Grants that are over here, and of which the provider has yet to hear.
    #[serde(default)]
    pub ended: Vec<PendingRevocation>,
}

/// Whether a login can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It can.
    Linked,
    /// It cannot be renewed: a person must link again. The credential is kept.
    RelinkRequired {
        /// One sentence for the person.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
    /// A person unlinked it; the provider has yet to be told.
    RevocationPending {
        /// Since when.
        since: Timestamp,
    },
}

/// What the provider granted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// Attached to requests.
    #[serde(with = "crate::secret::in_vault_record")]
    pub access_token: Secret,
    /// What a new one is got with.
    #[serde(rename = "renewal")]
    pub refresh_credential: RefreshCredential,
    /// When the access token came, by the wall clock.
    pub obtained_at: Timestamp,
    /// How long it lives from then; `None` is for ever.
    pub lifetime: Option<Duration>,
    /// No refresh before this.
    pub not_before: Option<NotBefore>,
    /// Goes up with every new access token, so that a rejected one is told from its successor.
    pub serial: u64,
    /// The client id that the grant belongs to.
    pub client_id: Option<String>,
    /// Endpoints that were discovered when it was linked; those of the profile come first.
    pub token_url: Option<Url>,
    /// The same for revocation.
    pub revoke_url: Option<Url>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// Whose account it is, for the person.
    pub identity: Vec<String>,
    /// Headers that are copied from claims.
    pub claim_headers: Vec<(String, String)>,
}

/// What a new access token is got with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RefreshCredential {
    /// Nothing: the token lives for ever, or the person must come back.
    None,
    /// A refresh token, which may rotate.
    RefreshToken {
        /// The current one.
        #[serde(with = "crate::secret::in_vault_record")]
        token: Secret,
    },
    /// The client's secret (RFC 6749 §4.4), which is never spent.
    ClientSecret {
        /// It.
        #[serde(with = "crate::secret::in_vault_record")]
        secret: Secret,
    },
}

/// A refresh token is about to be spent; written before the call, cleared with its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Since when.
    pub at: Timestamp,
    /// How often this very token was begun to be spent without an outcome being recorded: more than one only after a crash.
    pub tries: u32,
}

/// When the current access token serves and when it should be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Not sent any more from here on; `None` is for ever.
    pub usable_until: Option<Tick>,
    /// When to refresh; `None` is never.
    pub refresh_at: Option<Tick>,
    /// No refresh before this, whoever asks.
    pub not_before: Option<Tick>,
}

impl Record {
    /// A fresh login that a person confirmed.
    pub fn linked(login: Login, now: Timestamp) -> Self {
        Self {
            standing: Standing::Linked,
            login,
            intent: None,
            unheard_since: None,
            unknown_answers: 0,
            failures: Vec::new(),
            linked_at: now,
            ended: Vec::new(),
        }
    }

    /// As read after a start: an intent that is still open means that Pixy died between sending a refresh token and
    /// recording what came of it. Once is retried, because the provider may not have seen it or may forgive; twice is not.
    /// A call that was interrupted brought nothing, so the breaker counts it.
    #[must_use]
    pub fn after_restart(&self, now: Timestamp) -> Self {
        if self.is_being_revoked() && self.ended.is_empty() {
            // As written before `ended` was kept: the login itself is what the provider must hear of.
            return Self { ended: PendingRevocation::of(&self.login, now).into_iter().collect(), ..self.clone() };
        }
        match &self.intent {
            Some(intent) if intent.tries >= 2 => self.relink(
                "Pixy was stopped twice in the middle of renewing this login, so its refresh token may be spent.",
                now,
            ),
            Some(_) => {
                let mut failures = self.failures_since(now);
                failures.push(now);
                Self { failures, ..self.clone() }
            }
            None => self.clone(),
        }
    }

    /// To be made durable before the refresh token is sent.
    #[must_use]
    pub fn intending(&self, now: Timestamp) -> Self {
        let tries = self.intent.as_ref().map_or(0, |intent| intent.tries) + 1;
        Self { intent: Some(Intent { at: now, tries }), ..self.clone() }
    }

    /// The provider gave new tokens.
    #[must_use]
    pub fn renewed(&self, tokens: Tokens, now: Timestamp) -> Self {
        let mut failures = self.failures_since(now);
        if tokens.lifetime.is_some_and(|lifetime| lifetime < Duration::from_secs(1)) {
            failures.push(now); // a token that is dead on arrival must not make us ask without end
        }
        let old = &self.login;
        let refresh_credential = match (tokens.refresh_token, &old.refresh_credential) {
            (Some(token), RefreshCredential::RefreshToken { .. }) => RefreshCredential::RefreshToken { token },
            (_, kept) => kept.clone(), // RFC 6749 §6: no new one means that the old one goes on
        };
        let login = Login {
            access_token: tokens.access_token,
            refresh_credential,
            obtained_at: self.called_at(now),
            lifetime: tokens.lifetime,
            not_before: tokens.not_before,
            serial: old.serial + 1,
            client_id: old.client_id.clone(),
            token_url: old.token_url.clone(),
            revoke_url: old.revoke_url.clone(),
            scopes: tokens.scopes.unwrap_or_else(|| old.scopes.clone()),
            identity: if tokens.identity.is_empty() { old.identity.clone() } else { tokens.identity },
            claim_headers: if tokens.claim_headers.is_empty() {
                old.claim_headers.clone()
            } else {
                tokens.claim_headers
            },
        };
        Self { failures, ended: self.ended.clone(), ..Self::linked(login, self.linked_at) }
    }

    /// The call failed. Nothing of the login is touched, whatever the failure.
    #[must_use]
    pub fn failed(&self, failure: &TokenError, now: Timestamp) -> Self {
        let mut failures = self.failures_since(now);
        failures.push(now);
        let crashed_before = self.intent.as_ref().is_some_and(|intent| intent.tries >= 2);
        let unheard_since = match failure.kind {
            TokenErrorKind::NoResponse => self.unheard_since.or(Some(now)),
            // It says nothing about the call before it that was not heard.
            TokenErrorKind::Transient | TokenErrorKind::Unknown => self.unheard_since,
            TokenErrorKind::Terminal => None,
        };
        let unknown_answers =
            if failure.kind == TokenErrorKind::Unknown { self.unknown_answers + 1 } else { self.unknown_answers };
        let next = Self { intent: None, unheard_since, unknown_answers, failures, ..self.clone() };
        let what = &failure.what;
        match failure.kind {
            TokenErrorKind::Terminal if crashed_before || self.unheard_since.is_some() => next.relink(
                &format!("An earlier renewal was interrupted before its answer was stored, and now {what}."),
                now,
            ),
            TokenErrorKind::Terminal => next.relink(&format!("The provider ended this login: {what}."), now),
            TokenErrorKind::Unknown if unknown_answers >= UNKNOWN_LIMIT => next.relink(
                &format!("Renewing failed {unknown_answers} times in a way that Pixy does not know: {what}."),
                now,
            ),
            TokenErrorKind::Unknown | TokenErrorKind::Transient | TokenErrorKind::NoResponse => next,
        }
    }

    /// The access token ended and nothing can renew it.
    #[must_use]
    pub fn ended(&self, now: Timestamp) -> Self {
        self.relink("The login ended, and the provider gave nothing to renew it with.", now)
    }

    /// As [`Login::timing`], but a renewal whose answer was never stored is taken up at once: a provider forgives the second
    /// use of a refresh token for some seconds only, and the access token may last for hours yet.
    pub fn timing(&self, profile_lead: Duration, jitter: f64, wall: Timestamp, tick: Tick) -> Timing {
        let timing = self.login.timing(profile_lead, jitter, wall, tick);
        let interrupted = self.intent.is_some() || self.unheard_since.is_some();
        if interrupted && self.is_renewable() { Timing { refresh_at: Some(tick), ..timing } } else { timing }
    }

    /// How long the breaker keeps the next call back; zero when it may go out.
    pub fn breaker_wait(&self, now: Timestamp) -> Duration {
        let recent = self.failures_since(now);
        match recent.len().checked_sub(BREAKER_LIMIT) {
            None => Duration::ZERO,
            Some(index) => recent[index].after(BREAKER_SPAN).since(now),
        }
    }

    /// It may be renewed: linked, and there is something to renew it with.
    pub fn is_renewable(&self) -> bool {
        self.standing == Standing::Linked && !matches!(self.login.refresh_credential, RefreshCredential::None)
    }

    /// A person unlinked it, and only the provider does not know yet.
    pub fn is_being_revoked(&self) -> bool {
        matches!(self.standing, Standing::RevocationPending { .. })
    }

    /// When the life of a token that came `now` may have begun: the server counts from before its answer was on its way,
    /// which may take as long as a call does. A moment that no call can reach back to is of a clock that was stepped.
    fn called_at(&self, now: Timestamp) -> Timestamp {
        let begun = self.intent.as_ref().map_or(now, |intent| intent.at);
        let earliest = Timestamp::EPOCH.after(now.since(Timestamp::EPOCH).saturating_sub(LONGEST_CALL));
        begun.max(earliest).min(now)
    }

    fn relink(&self, reason: &str, now: Timestamp) -> Self {
        let standing = Standing::RelinkRequired { reason: reason.to_owned(), since: now };
        Self { standing, intent: None, ..self.clone() }
    }

    fn failures_since(&self, now: Timestamp) -> Vec<Timestamp> {
        let recent = self
            .failures
            .iter()
            .copied()
            .filter(|&at| now.since(at) < BREAKER_SPAN && at <= now.after(CLOCK_TOLERANCE));
        recent.collect()
    }
}

impl Login {
    /// Decides once, when a token is published, until when it serves and when to renew it. `jitter` is within 0..1.
    pub fn timing(&self, profile_lead: Duration, jitter: f64, wall: Timestamp, tick: Tick) -> Timing {
        let not_before = self.not_before.map(|at| {
            // The longer of what the server's moment and our own reckoning ask for, as our clock may have been wrong then or
            // may be wrong now; but a clock that was set back makes no wait longer than it was at first.
            let reckoned = at.wait.saturating_sub(wall.since(self.obtained_at));
            tick.after(at.moment.since(wall).max(reckoned).min(at.wait))
        });
        let Some(lifetime) = self.lifetime else { return Timing { usable_until: None, refresh_at: None, not_before } };
        // A token from the future was stored under another clock: how much of it is left cannot be known.
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
        let refresh_at = if matches!(self.refresh_credential, RefreshCredential::None) {
            None
        } else {
            Some(not_before.map_or(due, |at| due.max(at)))
        };
        Timing { usable_until: Some(tick.after(remaining.saturating_sub(margin))), refresh_at, not_before }
    }

    /// When the access token ends, by the wall clock.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.lifetime.map(|lifetime| self.obtained_at.after(lifetime))
    }
}

/// The pause after the `nth` failure in a row (from 1): doubling from one second, at most five minutes, half of it jitter;
/// never less than the server asked for.
pub fn backoff(nth: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    const LONGEST: Duration = Duration::from_mins(5);
    let whole = Duration::from_secs(1 << nth.saturating_sub(1).min(9)).min(LONGEST);
    let pause = whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    // Retry-After gets jitter on top, so that sidecars which were told the same do not come back together.
    retry_after.map_or(pause, |asked| pause.max(asked.min(LONGEST).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
