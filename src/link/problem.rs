//! What went wrong at linking, as a person reads it: RFC 9457 problem details.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::paste::NotIt;
use crate::oauth::profile::{Flow, Terms};
use crate::oauth::reply::{Failure, FailureKind};
use crate::server::Refused;

/// What happened, whose side it is on, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable: `urn:pixy:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, repeated (RFC 9457 §3.1.2).
    pub status: u16,
    /// What happened, in a sentence.
    pub title: String,
    /// What to do.
    pub detail: String,
}

impl Problem {
    /// A problem with a stable code.
    pub fn new(status: StatusCode, code: &str, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:pixy:problem:{code}"),
            status: status.as_u16(),
            title: title.into(),
            detail: detail.into(),
        }
    }

    /// The account is not in the configuration.
    pub fn no_account(name: &str) -> Self {
        let shown: String = name.chars().filter(|character| !character.is_control()).take(40).collect();
        let title = format!("There is no account \"{shown}\".");
        Self::new(
            StatusCode::NOT_FOUND,
            "no_account",
            title,
            "The accounts are those of Pixy's configuration; `pixy status` lists them.",
        )
    }

    /// The attempt is over, replaced, or never was.
    pub fn no_attempt() -> Self {
        Self::new(
            StatusCode::GONE,
            "attempt_over",
            "This attempt is over.",
            "It ended, its ten minutes passed, or a newer attempt took its place. Start again.",
        )
    }

    /// The provider's terms do not plainly allow it, and nobody accepted that.
    pub fn terms(account: &str, terms: &Terms) -> Self {
        let place = terms.url.as_ref().map_or_else(String::new, |url| format!(" ({url})"));
        Self::new(
            StatusCode::FORBIDDEN,
            "terms_not_accepted",
            format!("The provider's terms are {} here: {}{place}", terms.status.as_str(), terms.says),
            format!(
                "If you have read them and may use your login like this, set `accept_terms: true` under `accounts: {account}:` in Pixy's configuration and start Pixy again."
            ),
        )
    }

    /// A flow that this version does not speak.
    pub fn unsupported(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "flow_unsupported",
            format!("This provider needs {what}, which this version of Pixy does not do yet."),
            "Nothing was sent to the provider.",
        )
    }

    /// The account takes a key, not a login, or the other way round.
    pub fn other_flow(flow: Flow) -> Self {
        let (title, detail) = match flow {
            Flow::ApiKey => {
                ("This account takes a key.", "Give it with `pixy link NAME`, or in the field for the key.")
            }
            Flow::ClientCredentials => (
                "This account takes the client's secret.",
                "Give it with `pixy link NAME`, or in the field for the key.",
            ),
            Flow::AuthorizationCode | Flow::DeviceCode => {
                ("This account takes a login, not a key.", "Link it with `pixy link NAME`, or by its Link button.")
            }
        };
        Self::new(StatusCode::CONFLICT, "other_flow", title, detail)
    }

    /// The profile is missing an endpoint, and discovery did not find it.
    pub fn no_endpoint(which: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "no_endpoint",
            format!("The provider's profile has no {which} endpoint."),
            "Set it under `profile:` in Pixy's configuration, or set `issuer` to a server that publishes it.",
        )
    }

    /// The authorization server could not be asked for its endpoints.
    pub fn discovery(what: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "provider_down",
            format!("The provider's endpoints could not be found: {what}."),
            "Try again in a minute; if it stays so, check `issuer` in Pixy's configuration.",
        )
    }

    /// The pasted text was not the answer.
    pub fn paste(not_it: &NotIt) -> Self {
        let detail = if not_it.ends_the_attempt() { "Start again." } else { "The attempt goes on: paste again." };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, not_it.code(), not_it.to_string(), detail)
    }

    /// A second code for an attempt that has had one.
    pub fn code_used() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "code_used",
            "This attempt has used its code already.",
            "A code works once. Confirm what is shown, or start again.",
        )
    }

    /// The token endpoint did not give tokens. The code is spent, whatever happened.
    pub fn exchange(provider: &str, failure: &Failure) -> Self {
        let code = failure.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let (status, kind, title) = match failure.kind {
            FailureKind::Terminal => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "code_refused",
                format!(
                    "{provider} refused the code{code}: it was used already, is too old, or belongs to another attempt."
                ),
            ),
            FailureKind::Transient | FailureKind::Unheard => {
                (StatusCode::BAD_GATEWAY, "provider_down", format!("{provider} did not answer: {}.", failure.what))
            }
            FailureKind::Unknown => (
                StatusCode::BAD_GATEWAY,
                "provider_answer",
                format!("{provider} answered in a way that Pixy does not understand: {}.", failure.what),
            ),
        };
        Self::new(status, kind, title, "A code works once, so start again.")
    }

    /// The grant lacks what it is for.
    pub fn missing_scopes(missing: &[String]) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "scope_missing",
            format!("The provider did not grant {}, without which the account cannot be used.", missing.join(", ")),
            "Start again and allow it, or ask whoever runs the provider's side.",
        )
    }

    /// The login could not be stored; nothing was replaced.
    pub fn not_stored(what: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not_stored",
            what,
            "Nothing was changed. Mend that and try again.",
        )
    }

    /// A request that no call is looked up for.
    pub fn refused(refused: Refused) -> Self {
        let title = format!("The request was refused: {}.", refused.message());
        Self::new(refused.status(), refused.code(), title, "Nothing was done.")
    }

    /// A body that is not what the call wants.
    pub fn bad_body(what: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", what, "The request was not understood and nothing was done.")
    }
}
