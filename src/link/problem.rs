//! What went wrong at linking, as a person reads it: RFC 9457 problem details.

use std::fmt;

use http::StatusCode;

use super::paste::PasteError;
use crate::oauth::id_token::IdTokenError;
use crate::oauth::profile::{Flow, Terms};
use crate::oauth::token_response::{TokenError, TokenErrorKind};
use crate::server::Rejection;

pub use crate::api::Problem;

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

    /// The path and method name no call.
    pub fn no_call() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_call",
            "There is nothing here.",
            "The calls are listed in Pixy's documentation.",
        )
    }

    /// A call took longer than the link surface waits.
    pub fn timed_out() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timed_out",
            "Pixy did not finish this call in time.",
            "It may still finish. Reload to see the current state before you try again.",
        )
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
        let place = terms.url.as_deref().map_or_else(String::new, |url| format!(" ({url})"));
        Self::new(
            StatusCode::FORBIDDEN,
            "terms_not_accepted",
            format!("The provider's terms are {} here: {}{place}", terms.status.as_str(), terms.says),
            format!(
                "If you have read them and may use your login like this, set `accept_terms: true` under `accounts: {account}:` in Pixy's configuration file: that is taken up within seconds. A Pixy that runs without a file is started again with one."
            ),
        )
    }

    /// A flow that does not exist.
    pub fn no_flow() -> Self {
        Self::bad_body("The flows are authorization_code and device_code; without one the profile's is taken.")
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

    /// The provider gave no code to type.
    pub fn no_device_code(provider: &str, failure: &TokenError) -> Self {
        let code = failure.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let title = match failure.kind {
            TokenErrorKind::Transient | TokenErrorKind::NoResponse => {
                format!("{provider} did not give a code to type{code}.")
            }
            TokenErrorKind::Terminal | TokenErrorKind::Unknown => {
                format!("{provider} gave no code to type, or nothing that Pixy understands{code}.")
            }
        };
        let detail = "Try again in a minute; if it stays so, check the device endpoint and the client id in Pixy's configuration.";
        Self::new(StatusCode::BAD_GATEWAY, "no_device_code", title, detail)
    }

    /// The code that was to be typed is over.
    pub fn device_code_over() -> Self {
        Self::new(
            StatusCode::GONE,
            "device_code_expired",
            "The code was not typed in time.",
            "Start again for a fresh one.",
        )
    }

    /// The person or the provider said no where the code was typed.
    pub fn not_allowed_on_device(provider: &str, failure: &TokenError) -> Self {
        match failure.code.as_deref() {
            Some("access_denied") => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "consent_denied",
                "Access was denied at the provider.",
                "Start again if that was a mistake.",
            ),
            Some("expired_token") => Self::device_code_over(),
            _ => Self { detail: "Start again for a fresh code.".to_owned(), ..Self::exchange(provider, failure) },
        }
    }

    /// There is nothing to paste: the person types a code at the provider.
    pub fn nothing_to_paste() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "nothing_to_paste",
            "This attempt takes nothing that is pasted.",
            "Type the code that is shown at the provider's page; Pixy goes on by itself.",
        )
    }

    /// The id_token does not prove whose login it is.
    pub fn id_token(error: &IdTokenError) -> Self {
        match error {
            IdTokenError::Invalid(fault) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "id_token_refused",
                format!("The provider's proof of who this is was not believed: {fault}."),
                "The login was given back. Start again; if it stays so, check `issuer` and the client id in Pixy's configuration.",
            ),
            IdTokenError::NoKeys(what) => Self::new(
                StatusCode::BAD_GATEWAY,
                "provider_down",
                format!("The keys that prove who this is could not be had: {what}."),
                "The login was given back. Try again in a minute.",
            ),
        }
    }

    /// A login that should have come with an id_token, and has not.
    pub fn no_id_token() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "id_token_missing",
            "The provider gave no proof of who this is.",
            "The login was given back. If this server has no id_tokens, take `openid` out of the scopes.",
        )
    }

    /// An id_token, and no keys to verify it by.
    pub fn no_keys() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "no_endpoint",
            "It is not known where the keys are that prove who this is.",
            "The login was given back. Set `jwks_url` beside `issuer` in Pixy's configuration.",
        )
    }

    /// The pasted text was not the answer.
    pub fn paste(not_it: &PasteError) -> Self {
        let detail = match not_it {
            PasteError::Denied(Some("access_denied")) => "Start again if that was a mistake.",
            PasteError::Denied(_) => "Start again; if it stays so, the profile may be wrong.",
            PasteError::OtherClient => {
                "The attempt goes on. If every answer is like this, unlink the account and link it again: the provider then registers Pixy anew."
            }
            PasteError::Empty
            | PasteError::TooLong
            | PasteError::Rubbish
            | PasteError::ForeignHost(_)
            | PasteError::NoState
            | PasteError::OtherAttempt
            | PasteError::Twice(_)
            | PasteError::OtherIssuer
            | PasteError::NoClientId => "The attempt goes on: paste again.",
        };
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
    pub fn exchange(provider: &str, failure: &TokenError) -> Self {
        let code = failure.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let (status, kind, title) = match failure.kind {
            TokenErrorKind::Terminal => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "code_refused",
                format!(
                    "{provider} refused the code{code}: it was used already, is too old, or belongs to another attempt."
                ),
            ),
            TokenErrorKind::Transient | TokenErrorKind::NoResponse => {
                (StatusCode::BAD_GATEWAY, "provider_down", format!("{provider} did not answer: {}.", failure.what))
            }
            TokenErrorKind::Unknown => (
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
    pub fn refused(refused: Rejection) -> Self {
        let title = format!("The request was refused: {}.", refused.message());
        Self::new(refused.status(), refused.code(), title, "Nothing was done.")
    }

    /// A body that is not what the call wants.
    pub fn bad_body(what: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", what, "The request was not understood and nothing was done.")
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.title, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_pasted_the_wrong_thing_is_told_once_how_to_go_on() {
        for not_it in [
            PasteError::Empty,
            PasteError::TooLong,
            PasteError::Rubbish,
            PasteError::ForeignHost("news.example".into()),
            PasteError::NoState,
            PasteError::OtherAttempt,
            PasteError::Twice("code"),
            PasteError::OtherIssuer,
            PasteError::NoClientId,
            PasteError::OtherClient,
            PasteError::Denied(None),
            PasteError::Denied(Some("access_denied")),
            PasteError::Denied(Some("server_error")),
        ] {
            let Problem { title, detail, .. } = Problem::paste(&not_it);
            let is_over = not_it.ends_the_attempt();
            assert_ne!(detail.starts_with("The attempt goes on"), is_over, "{title} {detail}");
            let again = format!("{title} {detail}").matches("Start again").count();
            assert_eq!(again, usize::from(is_over), "{title} {detail}");
        }
    }
}
