//! The device flow (RFC 8628): a person types a code elsewhere, and Pixy asks until they have. Also its relative whose server
//! hands out an authorization code, with a verifier that it made itself, instead of tokens.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use url::Url;

use super::discovery::Endpoints;
use super::pkce::Verifier;
use super::profile::{BodyKind, Profile};
use super::token_endpoint::{self, Fields, OAuthGrant};
use super::token_response::{self, TokenError, TokenErrorKind, Tokens};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::upstream::{Upstream, is_loopback_host};

/// When the server does not say how often it may be asked (RFC 8628 §3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// Added for good by every `slow_down` (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// No server is asked more often, or thought to mean more seldom.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);

/// When the server does not say how long the codes live: RFC 8628 requires it to, its relative does not.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(15);

/// Nobody takes longer to type a code.
const LONGEST_LIFETIME: Duration = Duration::from_mins(30);

/// Longer than any user code that a person could type.
const LONGEST_USER_CODE: usize = 64;

/// What the server gave (RFC 8628 §3.2).
pub struct DeviceAuthorization {
    /// For the person to type.
    pub user_code: String,
    /// Where.
    pub verification_url: Url,
    /// The same with the code in it.
    pub verification_url_complete: Option<Url>,
    /// Nothing is asked once this is over.
    pub lifetime: Duration,
    device_code: Secret,
    interval: Duration,
}

/// What the server answered when it was asked whether the person has decided.
pub enum PollOutcome {
    /// Not yet.
    Pending,
    /// Not yet, and it was asked too often.
    SlowDown,
    /// It is ill, or the way to it; it may ask for a wait.
    Unavailable(Option<Duration>),
    /// They have allowed it.
    Approved(Box<Approval>),
    /// Nothing will come of it.
    Failed(TokenError),
}

/// What comes of an allowed device authorization.
pub enum Approval {
    /// The login.
    Tokens(Tokens),
    /// A code that has yet to be exchanged.
    Code {
        /// It.
        code: Secret,
        /// The server's own.
        verifier: Verifier,
        /// What it is exchanged with.
        redirect_uri: Url,
    },
}

/// When the server may be asked next (RFC 8628 §3.5). Pure.
pub struct PollInterval(Duration);

/// Asks for a device code. `parameters` are the profile's, of the authorization request.
pub async fn authorize(
    upstream: &Upstream,
    profile: &Profile,
    url: &Url,
    client_id: Option<&str>,
    parameters: &[(String, Option<String>)],
) -> Result<DeviceAuthorization, TokenError> {
    let issues_code = code_endpoint(profile).is_some();
    let mut fields = Fields::default();
    if let Some(client_id) = client_id {
        fields.set("client_id", client_id);
    }
    if !issues_code {
        if !profile.link.scopes.is_empty() {
            fields.set("scope", &profile.link.scopes.join(" "));
        }
        fields.apply(parameters.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
    }
    let kind = if issues_code { BodyKind::Json } else { BodyKind::Form };
    let fetched = token_endpoint::post(upstream, url, kind, &fields)
        .await
        .map_err(|error| TokenError::from_send_error(&error))?;
    let document = serde_json::from_slice::<Value>(&fetched.body).ok();
    if let Some(failure) = token_response::refusal(profile, &fetched, document.as_ref()) {
        return Err(failure);
    }
    let fallback = profile.link.device.as_ref().and_then(|device| device.verification_url.as_deref());
    document.as_ref().and_then(|reply| read(reply, fallback)).ok_or_else(|| {
        TokenError::unknown("the device endpoint's answer lacks a code, or an address that a person could open")
    })
}

/// Asks once whether the person has decided.
pub async fn poll(
    upstream: &Upstream,
    profile: &Profile,
    endpoints: &Endpoints,
    client_id: Option<&str>,
    authorization: &DeviceAuthorization,
    now: Timestamp,
) -> PollOutcome {
    if let Some((code_url, redirect_uri)) = code_endpoint(profile) {
        return poll_for_code(upstream, profile, code_url, redirect_uri, authorization).await;
    }
    let Some(token_url) = &endpoints.token else { return PollOutcome::Failed(TokenError::not_discovered()) };
    let grant = OAuthGrant::DeviceCode(&authorization.device_code);
    match token_endpoint::request_tokens(upstream, profile, token_url, client_id, grant, now).await {
        Ok(tokens) => PollOutcome::Approved(Box::new(Approval::Tokens(tokens))),
        Err(failure) => outcome_of(failure),
    }
}

impl DeviceAuthorization {
    /// How often it may be asked.
    pub fn interval(&self) -> PollInterval {
        PollInterval(self.interval)
    }
}

impl PollInterval {
    /// Before the first question: the person has yet to open the page.
    pub fn first(&self) -> Duration {
        self.0
    }

    /// Before the next one; `None` when there is none.
    pub fn after(&mut self, answer: &PollOutcome) -> Option<Duration> {
        match answer {
            PollOutcome::Pending => {}
            PollOutcome::SlowDown => self.0 += SLOWER,
            // RFC 8628 §3.5: not heard means asked less often from here on; doubling is its example.
            PollOutcome::Unavailable(wait) => {
                self.0 = (self.0 * 2).min(*INTERVALS.end()).max(self.0);
                return Some(self.0.max(wait.unwrap_or_default()));
            }
            PollOutcome::Approved(_) | PollOutcome::Failed(_) => return None,
        }
        Some(self.0)
    }
}

/// Where the server issues an authorization code instead of tokens, and its redirect URI, if the profile says so.
fn code_endpoint(profile: &Profile) -> Option<(&Url, &Url)> {
    let device = profile.link.device.as_ref().filter(|device| device.url.is_some())?;
    device.code_url.as_deref().zip(device.code_redirect.as_deref())
}

fn outcome_of(failure: TokenError) -> PollOutcome {
    match (failure.code.as_deref(), failure.kind) {
        (Some("authorization_pending"), _) => PollOutcome::Pending,
        (Some("slow_down"), _) => PollOutcome::SlowDown,
        (_, TokenErrorKind::Transient | TokenErrorKind::NoResponse) => PollOutcome::Unavailable(failure.retry_after),
        (_, TokenErrorKind::Terminal | TokenErrorKind::Unknown) => PollOutcome::Failed(failure),
    }
}

async fn poll_for_code(
    upstream: &Upstream,
    profile: &Profile,
    code_url: &Url,
    redirect_uri: &Url,
    authorization: &DeviceAuthorization,
) -> PollOutcome {
    let mut fields = Fields::default();
    fields.set("device_auth_id", authorization.device_code.expose());
    fields.set("user_code", &authorization.user_code);
    let fetched = match token_endpoint::post(upstream, code_url, BodyKind::Json, &fields).await {
        Ok(fetched) => fetched,
        Err(error) => return outcome_of(TokenError::from_send_error(&error)),
    };
    if matches!(fetched.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) {
        return PollOutcome::Pending;
    }
    let document = serde_json::from_slice::<Value>(&fetched.body).ok();
    if let Some(failure) = token_response::refusal(profile, &fetched, document.as_ref()) {
        return outcome_of(failure);
    }
    let field = |name: &str| document.as_ref()?.get(name)?.as_str().filter(|text| token_response::is_token(text));
    match (field("authorization_code"), field("code_verifier").and_then(Verifier::handed_out)) {
        (Some(code), Some(verifier)) => PollOutcome::Approved(Box::new(Approval::Code {
            code: Secret::new(code.to_owned()),
            verifier,
            redirect_uri: redirect_uri.clone(),
        })),
        _ => {
            PollOutcome::Failed(TokenError::unknown("the device endpoint's answer holds no usable authorization code"))
        }
    }
}

/// The reply of either kind of server; `None` when it cannot be used.
fn read(reply: &Value, fallback: Option<&Url>) -> Option<DeviceAuthorization> {
    let text = |names: [&str; 2]| names.iter().find_map(|name| reply.get(name)?.as_str());
    let span = |name: &str| token_response::seconds(reply.get(name)).filter(|seconds| *seconds > 0.0);
    let device_code = text(["device_code", "device_auth_id"]).filter(|code| token_response::is_token(code))?;
    let user_code = text(["user_code", "usercode"]).filter(|code| is_typeable(code))?;
    let verification_url = match text(["verification_uri", "verification_url"]) {
        Some(address) => for_a_person(address)?,
        None => fallback?.clone(),
    };
    let complete = text(["verification_uri_complete", "verification_url_complete"]);
    let lifetime = span("expires_in").map_or(DEFAULT_LIFETIME, |seconds| at_most(seconds, LONGEST_LIFETIME));
    let interval = span("interval").map_or(DEFAULT_INTERVAL, |seconds| at_most(seconds, *INTERVALS.end()));
    Some(DeviceAuthorization {
        user_code: user_code.to_owned(),
        verification_url,
        verification_url_complete: complete.and_then(for_a_person),
        lifetime,
        device_code: Secret::new(device_code.to_owned()),
        interval: interval.max(*INTERVALS.start()),
    })
}

fn at_most(seconds: f64, most: Duration) -> Duration {
    Duration::from_secs_f64(seconds.min(most.as_secs_f64()))
}

fn is_typeable(code: &str) -> bool {
    !code.trim().is_empty()
        && code.len() <= LONGEST_USER_CODE
        && code.chars().all(|character| character == ' ' || (!character.is_whitespace() && !character.is_control()))
}

/// An address that a person is sent to: https, or this machine.
fn for_a_person(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let here = url.scheme() == "http" && url.host_str().is_some_and(is_loopback_host);
    (here || url.scheme() == "https" && url.host_str().is_some()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_pace_is_that_of_rfc_8628() {
        let mut interval = PollInterval(secs(5));
        assert_eq!(interval.first(), secs(5));
        assert_eq!(interval.after(&PollOutcome::Pending), Some(secs(5)));
        assert_eq!(interval.after(&PollOutcome::SlowDown), Some(secs(10)));
        assert_eq!(interval.after(&PollOutcome::Pending), Some(secs(10)), "slower for good");
        assert_eq!(interval.after(&PollOutcome::SlowDown), Some(secs(15)));
        assert_eq!(interval.after(&PollOutcome::Unavailable(None)), Some(secs(30)));
        assert_eq!(interval.after(&PollOutcome::Unavailable(Some(secs(200)))), Some(secs(200)));
        assert_eq!(interval.after(&PollOutcome::Unavailable(None)), Some(secs(60)), "but never forgotten");
        assert_eq!(interval.after(&PollOutcome::Failed(TokenError::unknown("no"))), None);
    }

    #[test]
    fn a_reply_is_read_with_its_bounds() {
        let reply = json!({
            "device_code": "dc", "user_code": "WDJB-MJHT", "verification_uri": "https://p.example/device",
            "verification_uri_complete": "https://p.example/device?user_code=WDJB-MJHT", "expires_in": 1800, "interval": 5,
        });
        let read_with = |name: &str, value: Value| {
            let mut reply = reply.clone();
            reply[name] = value;
            read(&reply, None)
        };
        let fine = read(&reply, None).unwrap();
        assert_eq!((fine.lifetime, fine.interval), (secs(1800), secs(5)));
        assert_eq!(fine.verification_url_complete.unwrap().query(), Some("user_code=WDJB-MJHT"));
        for (interval, seconds) in [(json!(0), 5), (json!(-1), 5), (json!("7"), 7), (json!(0.01), 1), (json!(1e9), 60)]
        {
            assert_eq!(read_with("interval", interval.clone()).unwrap().interval, secs(seconds), "{interval}");
        }
        for (expires_in, seconds) in [(json!(null), 900), (json!(1e12), 1800), (json!(60), 60), (json!(-3), 900)] {
            assert_eq!(read_with("expires_in", expires_in.clone()).unwrap().lifetime, secs(seconds), "{expires_in}");
        }
        assert!(
            read_with("verification_uri_complete", json!("javascript:alert(1)"))
                .unwrap()
                .verification_url_complete
                .is_none()
        );
        for (name, value) in [
            ("device_code", json!("")),
            ("device_code", json!(7)),
            ("user_code", json!("\u{1b}[2J")),
            ("user_code", json!("x".repeat(100))),
            ("verification_uri", json!("http://p.example/device")),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri", json!("https:")),
        ] {
            assert!(read_with(name, value.clone()).is_none(), "{name}: {value}");
        }
    }

    #[test]
    fn the_relative_of_rfc_8628_leaves_things_out() {
        let reply = json!({ "device_auth_id": "id", "usercode": "ABCD", "interval": "5" });
        let page = Url::parse("https://p.example/codex/device").unwrap();
        let fine = read(&reply, Some(&page)).unwrap();
        assert_eq!((fine.user_code.as_str(), fine.verification_url, fine.lifetime), ("ABCD", page, secs(900)));
        assert!(read(&reply, None).is_none(), "nowhere to type it");
    }
}
