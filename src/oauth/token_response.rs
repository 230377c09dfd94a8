//! Classifies responses of a token endpoint: tokens, or an error that says what may be done next.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::identity::{self, Claims, Subject};
use super::profile::{Expiry, Profile};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::upstream::{FetchedResponse, SendError};

/// The lifetime of a token whose response states none.
pub const DEFAULT_LIFETIME: Duration = Duration::from_mins(5);

/// The longest lifetime; longer ones are reduced to it.
pub const LONGEST_LIFETIME: Duration = Duration::from_hours(24 * 3650);

/// The longest delay that a server may ask for; longer ones are reduced to it.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// A successful response (RFC 6749 §5.1).
#[derive(Debug)]
pub struct TokenResponse {
    /// The token that is attached to requests.
    pub access_token: Secret,
    /// The next refresh token; `None` keeps the one that was sent (RFC 6749 §6).
    pub refresh_token: Option<Secret>,
    /// The remaining lifetime of the access token; `None`: it does not expire.
    pub lifetime: Option<Duration>,
    /// The earliest time of a refresh.
    pub not_before: Option<NotBefore>,
    /// The granted scopes; `None`: those that were requested (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// The id_token (OpenID Connect Core §3.1.3.3), not verified here.
    pub id_token: Option<Secret>,
    /// The person that the id_token names.
    pub subject: Option<Subject>,
    /// The identity of the account, as far as the response contains it.
    pub identity: Vec<String>,
    /// Headers that the profile copies from claims.
    pub claim_headers: Vec<(String, String)>,
}

/// The earliest time of a refresh by the server's clock, and the wait until then. The local clock may differ, or be set later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotBefore {
    /// By the server's clock.
    pub moment: Timestamp,
    /// From the response on.
    pub wait: Duration,
}

/// Why a token request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenError {
    /// What may be done next.
    pub kind: TokenErrorKind,
    /// The error code, if it is a known one (RFC 6749 §5.2 or the profile's): any other text might repeat what was sent, and is
    /// discarded.
    pub code: Option<String>,
    /// A description without a secret.
    pub what: String,
    /// The delay that the server asks for, at most [`LONGEST_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The code or refresh token was certainly not used.
    pub certainly_unspent: bool,
}

/// What may be done after a [`TokenError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// The grant is invalid: the person must link again.
    Terminal,
    /// The server or the network failed: retry later.
    Transient,
    /// The request was sent and no response received: the grant may be used up.
    NoResponse,
    /// The response is not understood: retry a few times.
    Unknown,
}

/// Codes that may appear in a log: RFC 6749 §4.1.2.1 and §5.2, RFC 8628 §3.5, and those of providers. The terminal codes of a
/// profile may too.
const KNOWN_CODES: [&str; 16] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
    "authorization_pending",
    "expired_token",
    "invalid_target",
    "rate_limit_error",
    "overloaded_error",
    "invalid_dpop_proof",
];

/// Codes of transient errors.
const TRANSIENT_CODES: [&str; 5] =
    ["server_error", "temporarily_unavailable", "slow_down", "rate_limit_error", "overloaded_error"];

/// Classifies a response of the token endpoint.
pub fn classify(profile: &Profile, fetched: &FetchedResponse, now: Timestamp) -> Result<TokenResponse, TokenError> {
    if fetched.headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(TokenError::unknown("the token endpoint compressed its response although the request forbids it"));
    }
    // serde_json refuses NaN, trailing text and deep nesting; of a repeated member the last one counts.
    let document = serde_json::from_slice::<Value>(&fetched.body).ok();
    let unusable = match document.as_ref().and_then(Value::as_object) {
        // A usable token takes precedence over an error beside it: the server has rotated, and the old token is used up.
        Some(members) if fetched.status == StatusCode::OK => {
            match tokens(profile, members, server_time(&fetched.headers), now) {
                Ok(tokens) => return Ok(tokens),
                Err(failure) => failure,
            }
        }
        _ => TokenError::unknown("the token endpoint's response is not a JSON object"),
    };
    Err(refusal(profile, fetched, document.as_ref()).unwrap_or(unusable))
}

impl TokenError {
    /// The request could not be sent, or no response was received.
    pub fn from_send_error(error: &SendError) -> Self {
        let kind = match error {
            SendError::Unreachable(_) => TokenErrorKind::Transient,
            SendError::Timeout | SendError::Broken(_) => TokenErrorKind::NoResponse,
            SendError::TooLarge => TokenErrorKind::Unknown,
        };
        let unknown = Self::unknown(&format!("no response from the token endpoint: {error}"));
        Self { kind, certainly_unspent: error.nothing_was_sent(), ..unknown }
    }

    /// The token endpoint could not be discovered.
    pub fn not_discovered() -> Self {
        let unknown = Self::unknown("the authorization server's metadata could not be read");
        Self { kind: TokenErrorKind::Transient, certainly_unspent: true, ..unknown }
    }

    /// There is no refresh token.
    pub fn no_refresh_token() -> Self {
        Self { certainly_unspent: true, ..Self::unknown("the login has no refresh token") }
    }

    pub(super) fn unknown(what: &str) -> Self {
        Self {
            kind: TokenErrorKind::Unknown,
            code: None,
            what: what.to_owned(),
            retry_after: None,
            certainly_unspent: false,
        }
    }
}

/// The error of a response; `None` for 200 without an error member.
pub(super) fn refusal(profile: &Profile, fetched: &FetchedResponse, document: Option<&Value>) -> Option<TokenError> {
    let codes = document.map(error_codes).unwrap_or_default();
    if fetched.status == StatusCode::OK && codes.is_empty() {
        return None;
    }
    let terminal = codes.iter().find(|code| profile.token.is_terminal(code));
    let transient = codes.iter().any(|code| TRANSIENT_CODES.contains(code));
    let known = codes.iter().find(|code| KNOWN_CODES.contains(code));
    let kind = match fetched.status {
        _ if terminal.is_some() => TokenErrorKind::Terminal,
        StatusCode::UNAUTHORIZED if profile.token.is_401_terminal() => TokenErrorKind::Terminal,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => TokenErrorKind::Transient,
        status if status.is_server_error() || transient => TokenErrorKind::Transient,
        _ => TokenErrorKind::Unknown,
    };
    let code = terminal.or(known).map(|code| (*code).to_owned());
    let what = match (&code, fetched.status) {
        (Some(code), status) => format!("the token endpoint answered {} with {code}", status.as_u16()),
        (None, status) if status.is_redirection() => {
            format!("the token endpoint answered with a redirect ({}), which is never followed", status.as_u16())
        }
        (None, status) => format!("the token endpoint answered {}", status.as_u16()),
    };
    Some(TokenError { kind, code, what, retry_after: retry_after(&fetched.headers), certainly_unspent: false })
}

/// All members in which providers return an error code: `error`, `error.code`, `error.type`, `error.error`, `code`,
/// `errors[0].code`.
fn error_codes(document: &Value) -> Vec<&str> {
    let mut codes = Vec::new();
    let error = &document["error"];
    for place in [
        error,
        &error["code"],
        &error["type"],
        &error["error"],
        &error["error"]["code"],
        &document["code"],
        &document["errors"][0]["code"],
    ] {
        codes.extend(place.as_str().filter(|code| !code.is_empty()));
    }
    // An `error` of another shape is an error too.
    if codes.is_empty() && !matches!(error, Value::Null | Value::Bool(false)) && error.as_str() != Some("") {
        codes.push("");
    }
    codes
}

fn tokens(
    profile: &Profile,
    reply: &Map<String, Value>,
    server_time: Option<Timestamp>,
    now: Timestamp,
) -> Result<TokenResponse, TokenError> {
    let text = |name: &str| reply.get(name).and_then(Value::as_str);
    let access_token_field = profile.token.access_token_field.as_ref();
    let access_token = text(access_token_field.map_or("access_token", |field| field.as_str()))
        .filter(|token| is_token(token))
        .ok_or_else(|| TokenError::unknown("the token endpoint's response contains no usable access token"))?;
    // RFC 6749 §5.1 requires token_type. Some providers omit it; any type but bearer is not supported.
    match reply.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err(TokenError::unknown("the token endpoint issued a token that is not a bearer token")),
    }
    let id_token = text("id_token");
    let claims = id_token.and_then(Claims::read_unverified);
    let lifetime = match profile.token.expiry {
        Expiry::Never => None,
        Expiry::ExpiresIn => Some(expires_in(reply.get("expires_in"))),
        Expiry::Jwt => Some(jwt_lifetime(access_token, now).unwrap_or_else(|| expires_in(reply.get("expires_in")))),
    };
    Ok(TokenResponse {
        access_token: Secret::new(access_token.to_owned()),
        refresh_token: text("refresh_token").filter(|token| is_token(token)).map(|token| Secret::new(token.to_owned())),
        lifetime,
        not_before: profile.token.not_before_field.as_ref().and_then(|field| {
            let moment = moment(reply.get(field.as_str())?)?;
            Some(NotBefore { moment, wait: moment.since(server_time.unwrap_or(now)) })
        }),
        scopes: text("scope").map(|scopes| scopes.split_ascii_whitespace().map(identity::shown).collect()),
        id_token: id_token.map(|token| Secret::new(token.to_owned())),
        subject: claims.as_ref().and_then(Claims::subject),
        identity: identity::find(&profile.identity, reply, claims.as_ref()),
        claim_headers: identity::claim_headers(&profile.api.headers.claims, reply, claims.as_ref()),
    })
}

/// Printable ASCII without spaces: all that is valid in a header (RFC 6749 Appendix A.12 allows the space, no provider
/// uses it).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 * 1024 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Seconds as a number or a numeric string: 0 or less is expired, at most ten years, any other value counts as absent.
fn expires_in(value: Option<&Value>) -> Duration {
    match seconds(value) {
        Some(seconds) if seconds.is_nan() => DEFAULT_LIFETIME,
        Some(seconds) => Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_LIFETIME.as_secs_f64())),
        None => DEFAULT_LIFETIME,
    }
}

/// A number, or one in a string.
pub(super) fn seconds(value: Option<&Value>) -> Option<f64> {
    match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    }
}

/// The lifetime of a JWT: `exp` (RFC 7519 §4.1.4) minus its own `iat`, if it has one, so that a difference between the clocks
/// does not matter.
fn jwt_lifetime(token: &str, now: Timestamp) -> Option<Duration> {
    let claims = Claims::read_unverified(token)?;
    let expires = claims.seconds("exp")?;
    let from = claims.seconds("iat").unwrap_or(now.as_seconds());
    let seconds = u64::try_from(expires.saturating_sub(from)).unwrap_or(0);
    Some(Duration::from_secs(seconds).min(LONGEST_LIFETIME))
}

/// A time, in seconds since the epoch or as RFC 3339.
fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(number) => number.as_i64().map(Timestamp::from_seconds),
        Value::String(text) => text
            .parse::<i64>()
            .ok()
            .or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second))
            .map(Timestamp::from_seconds),
        _ => None,
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds, or a date compared with the server's own `Date`.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // A number that overflows exceeds the limit.
        return Some(text.parse().map_or(LONGEST_RETRY_AFTER, Duration::from_secs).min(LONGEST_RETRY_AFTER));
    }
    Some(date(text)?.since(server_time(headers)?).min(LONGEST_RETRY_AFTER))
}

/// The `Date` of the response (RFC 9110 §6.6.1).
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    date(headers.get(DATE)?.to_str().ok()?)
}

fn date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_seconds(zoned.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attack_67_expires_in_of_every_kind() {
        let ten_years = LONGEST_LIFETIME.as_secs();
        for (value, seconds) in [
            (json!(3600), 3600),
            (json!("3600"), 3600),
            (json!(" 60 "), 60),
            (json!(1.5), 1),
            (json!(0), 0),
            (json!(-5), 0),
            (json!("-5"), 0),
            (json!(1e99), ten_years),
            (json!("inf"), ten_years),
            (json!("NaN"), 300),
            (json!("soon"), 300),
            (json!(null), 300),
            (json!(true), 300),
            (json!([1]), 300),
        ] {
            assert_eq!(expires_in(Some(&value)).as_secs(), seconds, "{value}");
        }
        assert_eq!(expires_in(None), DEFAULT_LIFETIME);
    }

    #[test]
    fn error_codes_are_found_in_all_known_members() {
        for document in [
            json!({"error": "invalid_grant"}),
            json!({"error": {"code": "invalid_grant"}}),
            json!({"error": {"type": "invalid_grant"}}),
            json!({"error": {"error": "invalid_grant"}}),
            json!({"error": {"error": {"code": "invalid_grant"}}}),
            json!({"code": "invalid_grant"}),
            json!({"errors": [{"code": "invalid_grant"}]}),
        ] {
            assert!(error_codes(&document).contains(&"invalid_grant"), "{document}");
        }
        assert!(error_codes(&json!({"access_token": "x", "error": null})).is_empty());
        assert!(error_codes(&json!({"access_token": "x", "error": ""})).is_empty());
        assert_eq!(error_codes(&json!({"error": {"odd": 1}})), [""]);
    }

    #[test]
    fn attack_70_retry_after_is_honoured_up_to_five_minutes() {
        let with = |value: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|span| span.as_secs())
        };
        assert_eq!(with("7", None), Some(7));
        assert_eq!(with("999999", None), Some(300));
        assert_eq!(with("99999999999999999999999999", None), Some(300));
        assert_eq!(with("-5", None), None);
        assert_eq!(with("", None), None);
        assert_eq!(with("Tue, 24 Nov 2026 10:00:30 GMT", Some("Tue, 24 Nov 2026 10:00:00 GMT")), Some(30));
        assert_eq!(with("Tue, 24 Nov 2026 09:00:00 GMT", Some("Tue, 24 Nov 2026 10:00:00 GMT")), Some(0));
        assert_eq!(with("Tue, 24 Nov 2026 10:00:30 GMT", None), None);
    }
}
