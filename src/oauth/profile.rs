//! A provider as data: everything in which one provider differs from another, already parsed into values that mean something.
//!
//! `config` builds a [`Profile`] from `config/providers/<name>.yaml` and the operator's overrides; nothing below knows a
//! provider by name.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use url::Url;

/// One provider as one account sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The profile's name, bound into the vault record: `claude`, `oauth`, …
    pub provider: String,
    /// What a person calls it: "Claude subscription".
    pub title: String,
    /// Whether the provider allows this use.
    pub terms: Terms,
    /// How a person links it.
    pub link: Link,
    /// How its tokens are exchanged and refreshed.
    pub token: Token,
    /// Paths to what tells a person whose account it is; each that is found is shown.
    pub identity: Vec<FieldPath>,
    /// How a grant is ended at the provider, if it can be.
    pub revoke: Option<Revoke>,
    /// Where requests go and what may be asked there.
    pub api: Api,
}

/// Whether the provider lets a program like this use a person's login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Anything but [`TermsStatus::Open`] links only after `accept_terms: true`.
    pub status: TermsStatus,
    /// Where the provider says so.
    pub url: Option<Url>,
    /// What the provider says, in a sentence or two.
    pub says: String,
}

/// See [`Terms`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermsStatus {
    /// Made for third-party programs.
    Open,
    /// Allowed under conditions.
    Conditional,
    /// Not permitted in general.
    Restricted,
}

/// How a person links an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Which grant it is.
    pub flow: Flow,
    /// Discovery (RFC 8414), the expected `iss` (RFC 9207) and verification of id_tokens.
    pub issuer: Option<Url>,
    /// The keys that id_tokens are signed with; absent when discovered.
    pub jwks_url: Option<Url>,
    /// The authorization endpoint (RFC 6749 §3.1); absent when discovered or not needed.
    pub authorize_url: Option<Url>,
    /// Added to the authorization request; `None` removes a standard parameter. Values may hold `{redirect_uri}`,
    /// `{redirect_uri_with_state}`, `{nonce}` and `{installation}`.
    pub authorize_params: Vec<(String, Option<String>)>,
    /// Where the provider sends the code.
    pub redirect: Redirect,
    /// The public client's id; absent where the provider has none.
    pub client_id: Option<String>,
    /// The callback's `client_id` replaces ours (dynamic client id).
    pub client_id_from_callback: bool,
    /// Scopes that are asked for.
    pub scopes: Vec<String>,
    /// Scopes without which the grant is useless.
    pub required_scopes: Vec<String>,
    /// Device authorization (RFC 8628).
    pub device: Option<Device>,
}

/// The grants that Pixy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Authorization code with PKCE S256 (RFC 6749 §4.1, RFC 7636).
    AuthorizationCode,
    /// Device code (RFC 8628).
    DeviceCode,
    /// Client credentials (RFC 6749 §4.4); the person gives the client secret.
    ClientCredentials,
    /// A static key that the person gives.
    ApiKey,
}

/// Where the provider sends the authorization code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// A page of the provider's that shows the code for pasting.
    Paste(Url),
    /// The person's own machine (RFC 8252 §7.3).
    Loopback {
        /// `127.0.0.1`, `localhost` or `[::1]`, as the provider has it registered.
        host: String,
        /// Which ports the provider accepts.
        ports: Ports,
        /// The path, starting with `/`.
        path: String,
    },
    /// The flow has no redirect.
    None,
}

/// Ports that a provider accepts in a loopback redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Any port (RFC 8252 §7.3).
    Any,
    /// Only these, in order of preference.
    Only(Vec<u16>),
}

/// Device authorization endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where the device code is asked for.
    pub url: Url,
    /// Where the person types the user code, if the reply does not say.
    pub verification_url: Option<Url>,
    /// The server hands out an authorization code, with a verifier of its own, instead of tokens; bodies are JSON. That is
    /// not RFC 8628.
    pub code: Option<HandedCode>,
}

/// Where a device's authorization code is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedCode {
    /// Answers 403 or 404 until the person has decided.
    pub url: Url,
    /// The redirect URI that the code is exchanged with.
    pub redirect_uri: Url,
}

/// How tokens are exchanged and refreshed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The token endpoint (RFC 6749 §3.2); absent when discovered or not needed.
    pub url: Option<Url>,
    /// How bodies are written.
    pub body: BodyKind,
    /// Whether the exchange repeats `state`.
    pub send_state: bool,
    /// Added to the exchange; `None` removes a standard field.
    pub exchange_extra: Vec<(String, Option<String>)>,
    /// Added to a refresh; `None` removes a standard field.
    pub refresh_extra: Vec<(String, Option<String>)>,
    /// The reply's field that holds the token that is attached.
    pub access_token_field: String,
    /// How it is known when the access token ends.
    pub expiry: Expiry,
    /// Refresh this long before the end, at most 10 % of the lifetime.
    pub refresh_lead: Duration,
    /// A reply field before whose time a refresh must not be tried.
    pub not_before_field: Option<String>,
    /// Error codes that mean the grant is dead.
    pub terminal_errors: Vec<String>,
    /// Any 401 of the token endpoint means the grant is dead (written as the terminal error `401`).
    pub terminal_401: bool,
}

/// How a token request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// `application/x-www-form-urlencoded` (RFC 6749).
    Form,
    /// `application/json`.
    Json,
}

/// How it is known when an access token ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// `expires_in` of the reply, in seconds.
    ExpiresIn,
    /// `exp` of the access token, which is a JWT.
    Jwt,
    /// It does not end.
    Never,
}

/// A path into what came with the tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// Where the path starts.
    pub source: FieldSource,
    /// Member names, outermost first; never empty.
    pub members: Vec<String>,
}

/// Where a [`FieldPath`] starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldSource {
    /// The token endpoint's reply.
    TokenReply,
    /// The claims of the id_token.
    IdToken,
}

/// Revocation (RFC 7009).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// The revocation endpoint.
    pub url: Url,
    /// How its body is written.
    pub body: BodyKind,
}

/// Where requests go and what may be asked there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Scheme, host, port and a path prefix; nothing in a request changes them.
    pub base_url: Url,
    /// How the token is attached.
    pub attach: Attach,
    /// Headers that the provider needs.
    pub headers: Headers,
    /// What an agent may call, relative to `base_url`; everything else is refused.
    pub allow: Vec<Rule>,
    /// Paths on which a WebSocket may be opened.
    pub websocket: Vec<PathPattern>,
    /// The error shape that this provider's SDKs understand.
    pub errors: ErrorShape,
    /// Response headers that tell the quota; a trailing `*` matches any end.
    pub quota_headers: Vec<String>,
}

/// How the token is attached to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// `authorization`, `x-api-key`, …
    pub header: HeaderName,
    /// `Bearer`, or nothing before the token.
    pub scheme: Option<String>,
}

/// Headers of requests to the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Added when the agent sent none.
    pub default: Vec<(HeaderName, HeaderValue)>,
    /// Members added, once, to the agent's comma list.
    pub merge: Vec<(HeaderName, Vec<String>)>,
    /// Always ours.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Copied from a claim of the login.
    pub claims: Vec<(HeaderName, FieldPath)>,
}

/// One line of the allow-list: `POST /v1/messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The method, exactly.
    pub method: Method,
    /// The path.
    pub path: PathPattern,
}

/// A path pattern, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(Vec<Segment>);

/// One segment of a [`PathPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// This text.
    Literal(String),
    /// Any text, at least one character, with this end (`*`, `*:generateContent`).
    AnyWithSuffix(String),
}

/// The error shape that a provider's SDKs understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"type":"error","error":{"type":…,"message":…}}`
    Anthropic,
    /// `{"error":{"message":…,"type":…,"code":…,"param":null}}`
    OpenAi,
    /// `{"error":{"code":…,"message":…,"status":…}}`
    Google,
}

impl PathPattern {
    /// Parses `/v1/models/*`. `None` when it does not start with `/`, has an empty or dot segment, or a `*` that is not the
    /// start of a segment.
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(Segment::parse).collect::<Option<Vec<_>>>()?;
        Some(Self(segments))
    }

    /// Whether `path` (starting with `/`, no query, already checked to be free of encoded separators) is meant.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        let all_match = self.0.iter().all(|segment| {
            let Some(below) = rest.strip_prefix('/') else { return false };
            let end = below.bytes().position(|byte| byte == b'/').unwrap_or(below.len());
            rest = &below[end..];
            segment.matches(&below[..end])
        });
        all_match && rest.is_empty()
    }

    /// The pattern as it is written in a profile.
    pub fn as_text(&self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::new(), |mut text, segment| {
            let (star, literal) = match segment {
                Segment::Literal(literal) => ("", literal),
                Segment::AnyWithSuffix(suffix) => ("*", suffix),
            };
            let _ = write!(text, "/{star}{literal}"); // writing to a String cannot fail
            text
        })
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        let plain = |literal: &str| !literal.contains('*') && literal.bytes().all(|byte| byte.is_ascii_graphic());
        match text.strip_prefix('*') {
            Some(suffix) if plain(suffix) => Some(Self::AnyWithSuffix(suffix.to_owned())),
            None if !matches!(text, "" | "." | "..") && plain(text) => Some(Self::Literal(text.to_owned())),
            _ => None,
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::AnyWithSuffix(suffix) => text.len() > suffix.len() && text.ends_with(suffix.as_str()),
        }
    }
}

impl Flow {
    /// From its name in a profile.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::AuthorizationCode, Self::DeviceCode, Self::ClientCredentials, Self::ApiKey];
        all.into_iter().find(|flow| flow.as_str() == text)
    }

    /// As it is written in a profile.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::DeviceCode => "device_code",
            Self::ClientCredentials => "client_credentials",
            Self::ApiKey => "api_key",
        }
    }
}

impl TermsStatus {
    /// As it is written in a profile.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Conditional => "conditional",
            Self::Restricted => "restricted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment() {
        let models = PathPattern::parse("/v1/models/*").unwrap();
        assert!(models.matches("/v1/models/claude-opus"));
        for other in ["/v1/models", "/v1/models/", "/v1/models/a/b", "/v1/modelsx/a", "v1/models/a"] {
            assert!(!models.matches(other), "{other}");
        }
        let generate = PathPattern::parse("/v1beta/models/*:generateContent").unwrap();
        assert!(generate.matches("/v1beta/models/gemini-pro:generateContent"));
        assert!(!generate.matches("/v1beta/models/:generateContent"));
        assert!(!generate.matches("/v1beta/models/gemini-pro:delete"));
        assert_eq!(generate.as_text(), "/v1beta/models/*:generateContent");
        for wrong in ["", "v1", "/", "//", "/a/", "/a/../b", "/a*", "/**"] {
            assert_eq!(PathPattern::parse(wrong), None, "{wrong}");
        }
    }
}
