//! Why a request is not forwarded: status, `x-pixy-error` code and text, each by a match without `_`.

use std::time::Duration;

use http::StatusCode;

use crate::account::Unusable;
use crate::name::{AccountName, AgentName};
use crate::server::Rejection;

/// Why a request is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The request is ambiguous or malformed.
    BadRequest(&'static str),
    /// The server rejected it before routing: malformed, ambiguous or too large.
    Rejected(Rejection),
    /// The first segment of the path is no account.
    NoRoute,
    /// The profile allows the path with other methods only.
    MethodNotAllowed {
        /// The methods that the profile allows on the path.
        allow: String,
    },
    /// The account's profile does not allow the path.
    PathNotAllowed,
    /// A browser sent it.
    BrowserRefused,
    /// Agents need a key, and the request presents none.
    AgentKeyMissing,
    /// No agent has the presented key.
    AgentKeyWrong,
    /// The agent may not use this account.
    AccountNotGranted(AgentName),
    /// The agent has reached one of its limits.
    LimitReached {
        /// Which limit.
        what: &'static str,
        /// When a retry can succeed.
        retry_after: Duration,
    },
    /// The body is longer than `limits.body_bytes`.
    RequestTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// No memory is free for the request's body.
    Overloaded,
    /// The account's profile does not allow a WebSocket here.
    NoWebSocket,
    /// The account has no usable token.
    Token(Unusable),
    /// No connection to the provider, or its response was not valid HTTP.
    UpstreamUnreachable,
    /// The provider responded with a redirect.
    UpstreamRedirected,
    /// The provider compressed its response although `Accept-Encoding` was `identity`.
    UpstreamEncoded,
    /// The provider's response is a part, or in a charset or coding, that cannot be searched for secrets.
    UpstreamRepresentation,
    /// The provider refused the token, also a newer one where there was one, in a compressed response.
    TokenRefusedEncoded,
    /// The provider sent no response head in time.
    UpstreamTimeout,
}

impl Refusal {
    /// The stable code of `x-pixy-error` and of the metric.
    pub fn code(&self) -> &'static str {
        self.status_and_code().1
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.status_and_code().0
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest(_) => (S::BAD_REQUEST, "bad_request"),
            Self::Rejected(rejection) => (rejection.status(), rejection.code()),
            Self::NoRoute => (S::NOT_FOUND, "no_route"),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::PathNotAllowed => (S::FORBIDDEN, "path_not_allowed"),
            Self::BrowserRefused => (S::FORBIDDEN, "browser_refused"),
            Self::AgentKeyMissing => (S::UNAUTHORIZED, "agent_key_missing"),
            Self::AgentKeyWrong => (S::UNAUTHORIZED, "agent_key_wrong"),
            Self::AccountNotGranted(_) => (S::FORBIDDEN, "account_not_granted"),
            Self::LimitReached { .. } => (S::TOO_MANY_REQUESTS, "limit_reached"),
            Self::RequestTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "request_too_large"),
            Self::Overloaded => Self::Rejected(Rejection::Overloaded).status_and_code(),
            Self::NoWebSocket => (S::UPGRADE_REQUIRED, "no_websocket"),
            Self::Token(Unusable::NotLinked) => (S::UNAUTHORIZED, "not_linked"),
            Self::Token(Unusable::RelinkRequired | Unusable::Moved) => (S::UNAUTHORIZED, "relink_required"),
            Self::Token(Unusable::Unavailable { .. }) => (S::SERVICE_UNAVAILABLE, "token_unavailable"),
            Self::UpstreamUnreachable => (S::BAD_GATEWAY, "upstream_unreachable"),
            Self::UpstreamRedirected => (S::BAD_GATEWAY, "upstream_redirected"),
            Self::UpstreamEncoded => (S::BAD_GATEWAY, "upstream_encoded"),
            Self::UpstreamRepresentation => (S::BAD_GATEWAY, "upstream_representation"),
            Self::TokenRefusedEncoded => (S::UNAUTHORIZED, "upstream_encoded"),
            Self::UpstreamTimeout => (S::GATEWAY_TIMEOUT, "upstream_timeout"),
        }
    }

    /// The sentence for the agent and its user. `account` is the requested account, if it is known. Fixed text: the text of an
    /// inner error never gets here.
    pub fn message(&self, account: Option<&AccountName>) -> String {
        let name = account.map_or("", AccountName::as_str);
        let message = match self {
            Self::BadRequest(why) => (*why).to_owned(),
            Self::Rejected(rejection) => rejection.message().to_owned(),
            Self::NoRoute => {
                "the first part of the path must be an account of Pixy's; `pixy status` lists them".to_owned()
            }
            Self::MethodNotAllowed { allow } => format!("account \"{name}\" allows only {allow} on this path"),
            Self::PathNotAllowed => format!("agents may not request this path with account \"{name}\""),
            Self::BrowserRefused => {
                "web pages may not use Pixy: the request carries Origin or Sec-Fetch-Site".to_owned()
            }
            Self::AgentKeyMissing => "agents need a key here: set it as the API key of this client".to_owned(),
            Self::AgentKeyWrong => "the agent key is not one of those in Pixy's configuration".to_owned(),
            Self::AccountNotGranted(agent) => format!(
                "agent \"{agent}\" may not use account \"{name}\"; agent.keys in Pixy's configuration lists its accounts"
            ),
            Self::LimitReached { what, .. } => {
                format!("this agent has reached its limit of {what}, set in Pixy's configuration")
            }
            Self::RequestTooLarge { limit } => {
                format!("the request's body is larger than {limit} bytes, the limit in Pixy's configuration")
            }
            Self::Overloaded => Rejection::OVERLOADED.to_owned(),
            Self::NoWebSocket => "WebSockets are not available here; use plain HTTP requests".to_owned(),
            Self::Token(Unusable::NotLinked) => format!(
                "account \"{name}\" is not linked. A person must run: pixy link {name} (or open the page that `pixy url` prints)"
            ),
            Self::Token(Unusable::Moved) => format!(
                "the configuration sends the login of account \"{name}\" to another server. A person must confirm it: pixy link {name} --moved (or open the page that `pixy url` prints)"
            ),
            Self::Token(Unusable::RelinkRequired) => format!(
                "the login of account \"{name}\" has ended. A person must link it again: pixy link {name} (or open the page that `pixy url` prints)"
            ),
            Self::Token(Unusable::Unavailable { .. }) => format!(
                "the login of account \"{name}\" cannot be renewed at the moment; Pixy keeps trying (`pixy status` says why)"
            ),
            Self::UpstreamUnreachable => format!("the provider of account \"{name}\" could not be reached"),
            Self::UpstreamRedirected => format!(
                "the provider of account \"{name}\" responded with a redirect, which Pixy neither follows nor forwards"
            ),
            Self::UpstreamEncoded => format!(
                "the provider of account \"{name}\" compressed its response although it was asked not to; Pixy forwards only what it can search for secrets"
            ),
            Self::UpstreamRepresentation => format!(
                "the provider of account \"{name}\" responded with a part (206, 226), or in a charset or coding, that Pixy cannot search for secrets; it was not asked to"
            ),
            Self::TokenRefusedEncoded => format!(
                "the provider of account \"{name}\" refused its login (`pixy status` says more), in a compressed response that Pixy cannot search for secrets"
            ),
            Self::UpstreamTimeout => format!("the provider of account \"{name}\" did not respond in time"),
        };
        format!("Pixy: {message}.")
    }

    /// When a retry can succeed; `None` where it cannot before a person has acted.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LimitReached { retry_after, .. } | Self::Token(Unusable::Unavailable { retry_after }) => {
                Some(*retry_after)
            }
            Self::UpstreamUnreachable
            | Self::UpstreamTimeout
            | Self::Overloaded
            | Self::Rejected(Rejection::Overloaded) => Some(Duration::from_secs(1)),
            Self::BadRequest(_)
            | Self::Rejected(_)
            | Self::NoRoute
            | Self::MethodNotAllowed { .. }
            | Self::PathNotAllowed
            | Self::BrowserRefused
            | Self::AgentKeyMissing
            | Self::AgentKeyWrong
            | Self::AccountNotGranted(_)
            | Self::RequestTooLarge { .. }
            | Self::NoWebSocket
            | Self::Token(Unusable::NotLinked | Unusable::RelinkRequired | Unusable::Moved)
            | Self::UpstreamRedirected
            | Self::UpstreamEncoded
            | Self::UpstreamRepresentation
            | Self::TokenRefusedEncoded => None,
        }
    }

    /// The methods for `Allow` (RFC 9110 §15.5.6), with a 405.
    pub fn allow(&self) -> Option<&str> {
        match self {
            Self::MethodNotAllowed { allow } => Some(allow),
            Self::Rejected(Rejection::MethodNotAllowed) => Some(Rejection::ALLOW),
            _ => None,
        }
    }
}
