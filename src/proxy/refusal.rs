//! What an agent hears when Pixy does not pass its request on: in the shape that the provider's SDKs understand, with fixed
//! text. No inner error's text gets here.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::request_id::RequestId;
use super::stream::ReplyBody;
use crate::account::Unusable;
use crate::name::{AccountName, AgentName};
use crate::oauth::profile::ErrorShape;
use crate::server::Rejection;

/// Why a request was not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The request is not one that could mean one thing only.
    BadRequest(&'static str),
    /// It was refused before it came here: no HTTP that means one thing only, or too large.
    Unread(Rejection),
    /// The first segment of the path is no account.
    NoRoute,
    /// The path may be called, but not so.
    MethodNotAllowed {
        /// The methods that the profile lists for the path.
        allow: String,
    },
    /// The path is not on the account's list.
    PathNotAllowed,
    /// It came from a web page.
    BrowserRefused,
    /// Agents need a key here, and none came.
    AgentKeyMissing,
    /// The key is nobody's.
    AgentKeyWrong,
    /// The agent may not use this account.
    AccountNotGranted(AgentName),
    /// The agent has used up what it may.
    LimitReached {
        /// Which limit.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// Its body is longer than may be sent.
    RequestTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// WebSockets are not passed on here.
    NoWebSocket,
    /// The account has no usable token.
    Token(Unusable),
    /// The provider was not reached, or its answer was not HTTP.
    UpstreamUnreachable,
    /// The provider answered with a redirect.
    UpstreamRedirected,
    /// The provider answered with compressed text, which it was asked not to do.
    UpstreamEncoded,
    /// The provider did not answer in time.
    UpstreamTimeout,
}

/// Status, code, error type (as the providers name theirs) and the sentence of a refusal.
struct Told {
    status: StatusCode,
    code: &'static str,
    kind: &'static str,
    message: String,
}

/// An upstream's own refusal that stands. Trying again brings nothing, and some clients would for minutes.
pub fn final_refusal<B>(mut refused: Response<B>) -> Response<B> {
    refused.headers_mut().entry("x-should-retry").or_insert(HeaderValue::from_static("false"));
    refused
}

impl Refusal {
    /// The stable code of `x-pixy-error` and the metric.
    pub fn code(&self) -> &'static str {
        self.told(None).code
    }

    /// The answer has the status 401.
    pub fn is_unauthorized(&self) -> bool {
        self.told(None).status == StatusCode::UNAUTHORIZED
    }

    /// The answer. `account` is the one that was asked for, as far as it is known.
    pub fn into_response(self, shape: ErrorShape, account: Option<&AccountName>, id: RequestId) -> Response<ReplyBody> {
        let told = self.told(account);
        // The `code` within the body is one that SDKs know to be final: with it they show the message instead of trying on.
        let code = if told.status == StatusCode::UNAUTHORIZED { "invalid_api_key" } else { told.code };
        let body = match shape {
            ErrorShape::Anthropic | ErrorShape::OpenAi => json!({
                "type": "error",
                "error": { "type": told.kind, "message": told.message, "code": code, "param": null },
                "request_id": id.to_string(), // agents show it
            }),
        };
        let mut response = Response::new(ReplyBody::fixed(body.to_string()));
        *response.status_mut() = told.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-pixy-error", HeaderValue::from_static(told.code));
        if let Some(retry_after) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
        } else {
            // Trying again brings nothing until a person has acted; clients that know the header stop at once.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if told.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
        }
        if let Self::MethodNotAllowed { allow } = &self
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            headers.insert(ALLOW, allow);
        }
        if self == Self::Unread(Rejection::MethodNotAllowed) {
            headers.insert(ALLOW, HeaderValue::from_static(Rejection::ALLOW));
        }
        response
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LimitReached { retry_after, .. } | Self::Token(Unusable::Unavailable { retry_after }) => {
                Some(*retry_after)
            }
            Self::UpstreamUnreachable | Self::UpstreamTimeout => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    fn told(&self, account: Option<&AccountName>) -> Told {
        use StatusCode as S;
        let name = account.map_or("", AccountName::as_str);
        let (status, code, kind, message) = match self {
            Self::BadRequest(why) => (S::BAD_REQUEST, "bad_request", "invalid_request_error", (*why).to_owned()),
            Self::Unread(refused) => {
                (refused.status(), refused.code(), "invalid_request_error", refused.message().to_owned())
            }
            Self::NoRoute => (
                S::NOT_FOUND,
                "no_route",
                "not_found_error",
                "the first part of the path must be an account of Pixy's; `pixy status` lists them".to_owned(),
            ),
            Self::MethodNotAllowed { allow } => (
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "invalid_request_error",
                format!("account \"{name}\" allows only {allow} on this path"),
            ),
            Self::PathNotAllowed => (
                S::FORBIDDEN,
                "path_not_allowed",
                "permission_error",
                format!("this path is not on the list of what agents may call with account \"{name}\""),
            ),
            Self::BrowserRefused => (
                S::FORBIDDEN,
                "browser_refused",
                "permission_error",
                "web pages may not use Pixy: the request carries Origin or Sec-Fetch-Site".to_owned(),
            ),
            Self::AgentKeyMissing => (
                S::UNAUTHORIZED,
                "agent_key_missing",
                "authentication_error",
                "agents need a key here: set it as the API key of this client".to_owned(),
            ),
            Self::AgentKeyWrong => (
                S::UNAUTHORIZED,
                "agent_key_wrong",
                "authentication_error",
                "the agent key is not one of those in Pixy's configuration".to_owned(),
            ),
            Self::AccountNotGranted(agent) => (
                S::FORBIDDEN,
                "account_not_granted",
                "permission_error",
                format!(
                    "agent \"{agent}\" may not use account \"{name}\"; agent.keys in Pixy's configuration says what it may"
                ),
            ),
            Self::LimitReached { what, .. } => (
                S::TOO_MANY_REQUESTS,
                "limit_reached",
                "rate_limit_error",
                format!("this agent has reached its limit of {what}, set in Pixy's configuration"),
            ),
            Self::RequestTooLarge { limit } => (
                S::PAYLOAD_TOO_LARGE,
                "request_too_large",
                "request_too_large",
                format!("the request's body is larger than {limit} bytes, the limit in Pixy's configuration"),
            ),
            Self::NoWebSocket => (
                S::UPGRADE_REQUIRED,
                "no_websocket",
                "invalid_request_error",
                "WebSockets are not passed on here; use plain HTTP requests".to_owned(),
            ),
            Self::Token(Unusable::NotLinked) => (
                S::UNAUTHORIZED,
                "not_linked",
                "authentication_error",
                format!(
                    "account \"{name}\" is not linked. A person must run: pixy link {name} (or open the page that `pixy url` prints)"
                ),
            ),
            Self::Token(Unusable::RelinkRequired) => (
                S::UNAUTHORIZED,
                "relink_required",
                "authentication_error",
                format!(
                    "the login of account \"{name}\" has ended. A person must link it again: pixy link {name} (or open the page that `pixy url` prints)"
                ),
            ),
            Self::Token(Unusable::Unavailable { .. }) => (
                S::SERVICE_UNAVAILABLE,
                "token_unavailable",
                "api_error",
                format!(
                    "the login of account \"{name}\" cannot be renewed just now; Pixy goes on trying (`pixy status` says why)"
                ),
            ),
            Self::UpstreamUnreachable => (
                S::BAD_GATEWAY,
                "upstream_unreachable",
                "api_error",
                format!("the provider of account \"{name}\" could not be reached"),
            ),
            Self::UpstreamRedirected => (
                S::BAD_GATEWAY,
                "upstream_redirected",
                "api_error",
                format!(
                    "the provider of account \"{name}\" answered with a redirect, which Pixy never follows or passes on"
                ),
            ),
            Self::UpstreamEncoded => (
                S::BAD_GATEWAY,
                "upstream_encoded",
                "api_error",
                format!(
                    "the provider of account \"{name}\" answered with compressed text although it was asked not to; Pixy passes on only what it can search for secrets"
                ),
            ),
            Self::UpstreamTimeout => (
                S::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "api_error",
                format!("the provider of account \"{name}\" did not answer in time"),
            ),
        };
        Told { status, code, kind, message: format!("Pixy: {message}.") }
    }
}
