//! Errors of the link surface as problem details (RFC 9457), in words for the person who links.

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

    /// The provider's terms do not plainly allow this use, and the configuration does not accept them.
    pub fn terms(account: &str, terms: &Terms) -> Self {
        let place = terms.url.as_deref().map_or_else(String::new, |url| format!(" ({url})"));
        Self::new(
            StatusCode::FORBIDDEN,
            "terms_not_accepted",
            format!("The provider's terms are {} here: {}{place}", terms.status.as_str(), terms.says),
            format!(
                "If you have read them and may use your login like this, set `accept_terms: true` under `accounts: {account}:` in Pixy's configuration file: it is applied within seconds. If Pixy runs without a file, restart it with one."
            ),
        )
    }

    /// The configuration has changed again since the person saw where the login moved.
    pub fn moved_again() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "moved_again",
            "The configuration has changed since you saw where the login moved.",
            "Nothing was confirmed. Look at the new addresses, then confirm again.",
        )
    }

    /// The account is linked by a key and the call begins a login, or the reverse.
    pub fn other_flow(flow: Flow) -> Self {
        let (title, detail) = match flow {
            Flow::ApiKey => {
                ("This account takes a key.", "Enter it with `pixy link NAME`, or with Add API key on the page.")
            }
            Flow::ClientCredentials => (
                "This account takes a client secret.",
                "Enter it with `pixy link NAME`, or with Add API key on the page.",
            ),
            Flow::AuthorizationCode | Flow::DeviceCode => {
                ("This account takes a login, not a key.", "Link it with `pixy link NAME`, or with Link on the page.")
            }
        };
        Self::new(StatusCode::CONFLICT, "other_flow", title, detail)
    }

    /// The profile lacks an endpoint, and discovery did not find it.
    pub fn no_endpoint(which: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "no_endpoint",
            format!("The provider's profile has no {which} endpoint."),
            "Set it under `profile:` in Pixy's configuration, or set `issuer` to a server that publishes it.",
        )
    }

    /// The authorization server's metadata could not be read.
    pub fn discovery(what: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "provider_down",
            format!("The provider's endpoints could not be found: {what}."),
            "Try again in a minute; if it fails again, check `issuer` in Pixy's configuration.",
        )
    }

    /// The provider issued no device code.
    pub fn no_device_code(provider: &str, error: &TokenError) -> Self {
        let code = error.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let title = match error.kind {
            TokenErrorKind::Transient | TokenErrorKind::NoResponse => {
                format!("{provider} did not issue a code to type{code}.")
            }
            TokenErrorKind::Terminal | TokenErrorKind::Unknown => {
                format!("{provider} issued no code to type that Pixy understands{code}.")
            }
        };
        let detail = "Try again in a minute; if it fails again, check the device endpoint and the client id in Pixy's configuration.";
        Self::new(StatusCode::BAD_GATEWAY, "no_device_code", title, detail)
    }

    /// The device authorization was denied, expired or failed.
    pub fn not_allowed_on_device(provider: &str, error: &TokenError) -> Self {
        match error.code.as_deref() {
            Some("access_denied") => Self::paste(&PasteError::Denied(Some("access_denied"))),
            Some("expired_token") => Self::device_code_over(),
            _ => Self { detail: "Start again for a new code.".to_owned(), ..Self::exchange(provider, error) },
        }
    }

    /// The id_token does not prove whose login it is.
    pub fn id_token(error: &IdTokenError) -> Self {
        match error {
            IdTokenError::Invalid(fault) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "id_token_refused",
                format!("The provider's proof of who this is was rejected: {fault}."),
                "Pixy revokes the login. Start again; if it fails again, check `issuer` and the client id in Pixy's configuration.",
            ),
            IdTokenError::NoKeys(what) => Self::new(
                StatusCode::BAD_GATEWAY,
                "provider_down",
                format!("The keys that verify who this is could not be fetched: {what}."),
                "Pixy revokes the login. Try again in a minute.",
            ),
        }
    }

    /// The pasted text is not the response of this attempt.
    pub fn paste(error: &PasteError) -> Self {
        let detail = match error {
            PasteError::Denied(Some("access_denied")) => "Start again if that was a mistake.",
            PasteError::Denied(_) => "Start again; if it fails again, the profile may be wrong.",
            PasteError::OtherClient => {
                "The attempt is still open. If every response is like this, unlink the account and link it again: the provider then registers Pixy again."
            }
            PasteError::Empty
            | PasteError::TooLong
            | PasteError::Unrecognised
            | PasteError::ForeignHost(_)
            | PasteError::NoState
            | PasteError::OtherAttempt
            | PasteError::Repeated(_)
            | PasteError::OtherIssuer
            | PasteError::NoClientId => "The attempt is still open: paste again.",
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string(), detail)
    }

    /// The token endpoint issued no tokens. The code is spent in any case.
    pub fn exchange(provider: &str, error: &TokenError) -> Self {
        let code = error.code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let (status, kind, title) = match error.kind {
            TokenErrorKind::Terminal => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "code_refused",
                format!(
                    "{provider} rejected the code{code}: it was already used, has expired, or belongs to another attempt."
                ),
            ),
            TokenErrorKind::Transient | TokenErrorKind::NoResponse => {
                (StatusCode::BAD_GATEWAY, "provider_down", format!("{provider} did not answer: {}.", error.what))
            }
            TokenErrorKind::Unknown => (
                StatusCode::BAD_GATEWAY,
                "provider_answer",
                format!("{provider} sent a response that Pixy does not understand: {}.", error.what),
            ),
        };
        Self::new(status, kind, title, "A code works once, so start again.")
    }

    /// The grant lacks a required scope.
    pub fn missing_scopes(missing: &[String]) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "scope_missing",
            format!("The provider did not grant {}, without which the account cannot be used.", missing.join(", ")),
            "Start again and allow it, or ask the operator of the provider.",
        )
    }

    /// A request that was rejected before routing.
    pub fn rejected(rejection: Rejection) -> Self {
        let title = format!("The request was rejected: {}.", rejection.message());
        Self::new(rejection.status(), rejection.code(), title, "Nothing was done.")
    }

    /// The body is not the JSON of this call.
    pub fn bad_body(what: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", what, "The request was not understood and nothing was done.")
    }
}

/// Declares the constructors of problems with fixed texts.
macro_rules! fixed_problems {
    ($($(#[$doc:meta])* $name:ident: $status:ident $code:literal, $title:literal, $detail:literal;)*) => {
        impl Problem {$(
            $(#[$doc])*
            pub fn $name() -> Self {
                Self::new(StatusCode::$status, $code, $title, $detail)
            }
        )*}
    };
}

fixed_problems! {
    /// The path and method name no call.
    no_call: NOT_FOUND "no_call", "There is nothing here.", "The calls are listed in Pixy's documentation.";
    /// A call took longer than the link surface waits.
    timed_out: GATEWAY_TIMEOUT "timed_out", "Pixy did not finish this call in time.",
        "It may still finish. Reload to see the current state before you try again.";
    /// The attempt has ended, was replaced, or never existed.
    no_attempt: GONE "attempt_over", "This attempt has ended.",
        "It was confirmed or cancelled, it expired, or a newer attempt replaced it. Start again.";
    /// A flow that does not exist.
    no_flow: BAD_REQUEST "bad_request",
        "The flows are authorization_code and device_code; without one the profile's is taken.",
        "The request was not understood and nothing was done.";
    /// The device code expired.
    device_code_over: GONE "device_code_expired", "The code was not typed in time.", "Start again for a new one.";
    /// A paste for a device code attempt.
    nothing_to_paste: CONFLICT "nothing_to_paste", "There is nothing to paste in this attempt.",
        "Type the shown code on the provider's page; Pixy continues by itself.";
    /// The token response lacks an id_token.
    no_id_token: UNPROCESSABLE_ENTITY "id_token_missing", "The provider sent no proof of who this is.",
        "Pixy revokes the login. If this server issues no id_tokens, remove `openid` from the scopes.";
    /// There is an id_token, but no known keys to verify it with.
    no_keys: CONFLICT "no_endpoint", "Pixy does not know where the keys are that verify who this is.",
        "Pixy revokes the login. Set `jwks_url` beside `issuer` in Pixy's configuration.";
    /// A second code for an attempt that has used one.
    code_used: CONFLICT "code_used", "This attempt has already used its code.",
        "A code works once. Confirm what is shown, or start again.";
    /// A setup code is requested while there is no page.
    page_off: CONFLICT "page_off", "The page is off (`link.listen: off`).",
        "Link in the terminal: `pixy link NAME`.";
    /// A page of another origin sent the request, or it names another host.
    foreign_origin: FORBIDDEN "foreign_origin", "This page answers only at its own address.",
        "Open the link that `pixy url` prints.";
    /// The call has no valid session.
    not_signed_in: UNAUTHORIZED "not_signed_in", "You are not signed in here.",
        "Run `pixy url` in a terminal and open the link that it prints.";
    /// The setup code is unknown, used or expired.
    wrong_code: UNAUTHORIZED "not_signed_in", "That code is wrong, used or expired.", "Run `pixy url` again.";
    /// A wrong setup code, while others are being refused. The right one is accepted.
    locked: TOO_MANY_REQUESTS "locked", "That code is wrong, and too many wrong ones are being tried.",
        "The right one is accepted: run `pixy url` again. If it was not you, a program on this machine is guessing.";
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
    fn a_paste_problem_says_once_how_to_continue() {
        for error in [
            PasteError::Empty,
            PasteError::TooLong,
            PasteError::Unrecognised,
            PasteError::ForeignHost("news.example".into()),
            PasteError::NoState,
            PasteError::OtherAttempt,
            PasteError::Repeated("code"),
            PasteError::OtherIssuer,
            PasteError::NoClientId,
            PasteError::OtherClient,
            PasteError::Denied(None),
            PasteError::Denied(Some("access_denied")),
            PasteError::Denied(Some("server_error")),
        ] {
            let Problem { title, detail, .. } = Problem::paste(&error);
            let has_ended = error.ends_the_attempt();
            assert_ne!(detail.starts_with("The attempt is still open"), has_ended, "{title} {detail}");
            let again = format!("{title} {detail}").matches("Start again").count();
            assert_eq!(again, usize::from(has_ended), "{title} {detail}");
        }
    }
}
