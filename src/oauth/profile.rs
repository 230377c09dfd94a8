//! A provider profile: everything in which one provider differs from another, as validated data.
//!
//! These types are the one definition of a profile: `config/providers/*.yaml` and an account's `profile` are deserialized
//! into them, and `pixy schema` prints their schema. No other module knows a provider by name.

mod ordered_map;
pub mod pass_list;
mod pass_values;
mod path_pattern;
mod redirect;
mod refused_answer;
pub mod values;

use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ordered_map::Entries;
pub use pass_list::PassList;
pub use path_pattern::PathPattern;
pub use redirect::{Loopback, LoopbackHost, Ports, Redirect};
pub use refused_answer::RefusedAnswer;

use pass_values::{PassField, PassKey};
use values::{
    BaseUrl, ClientId, CredentialHeader, DURATION_PATTERN, Endpoint, HeaderPattern, Issuer, Lead, ListMember,
    ParameterValue, PlainHeader, PlainValue, Word,
};

/// Request parameters; null removes a standard one.
pub type Parameters = Entries<Word, ParameterValue>;

/// A provider profile. Under an account only what differs from the shipped profile is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name, bound into the vault record: `claude`, `oauth`, …
    #[serde(skip)]
    pub provider: String,
    /// What a person calls it: "Claude subscription".
    pub title: String,
    /// Whether the provider allows this use of a login.
    pub terms: Terms,
    /// How a person links the account.
    pub link: Link,
    /// How tokens are exchanged and refreshed.
    #[serde(default)]
    pub token: Token,
    /// Where the owner of the account is named: paths that start with `token` (the token endpoint's response) or `id_token`
    /// (its claims). Each value that is found is shown.
    #[serde(default)]
    pub identity: Vec<FieldPath>,
    /// How a grant is revoked at the provider (RFC 7009), if it can be.
    pub revoke: Option<Revoke>,
    /// Where requests are sent and what may be requested there.
    pub api: Api,
    /// URLs at which this provider was before it moved, or before it gained a URL at another host: logins that are bound to them stay
    /// usable. For shipped profiles alone.
    #[serde(default)]
    pub formerly: Vec<Endpoint>,
}

/// Whether the provider allows this use of a login.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Every status except `open` links only with `accept_terms: true`.
    pub status: TermsStatus,
    /// Where the provider says so.
    pub url: Option<Endpoint>,
    /// What it says, in a sentence or two.
    #[serde(default)]
    pub says: String,
}

/// Made for third-party programs; allowed under conditions; not permitted in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the type says it")]
pub enum TermsStatus {
    Open,
    Conditional,
    Restricted,
}

/// How a person links the account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The grant, or a static key.
    pub flow: Flow,
    /// The authorization server, for discovery (RFC 8414 or OpenID Connect), its `iss` (RFC 9207) and id_tokens.
    pub issuer: Option<Issuer>,
    /// The keys that its id_tokens are signed with, if not discovered.
    pub jwks_url: Option<Endpoint>,
    /// The authorization endpoint (RFC 6749 §3.1), if not discovered.
    pub authorize_url: Option<Endpoint>,
    /// Added to the authorization request; null removes a standard parameter. Values may contain {redirect_uri},
    /// {redirect_uri_with_state}, {nonce} and {installation}.
    #[serde(default)]
    pub authorize_params: Parameters,
    /// Where the provider sends the code.
    #[serde(default)]
    pub redirect: Redirect,
    /// The public client's id.
    pub client_id: Option<ClientId>,
    /// The callback's `client_id` replaces the configured one. Default: false
    #[serde(default)]
    pub client_id_from_callback: bool,
    /// Scopes to request.
    #[serde(default, deserialize_with = "values::list::<_, Word>")]
    pub scopes: Vec<String>,
    /// Scopes without which the grant is useless.
    #[serde(default, deserialize_with = "values::list::<_, Word>")]
    pub required_scopes: Vec<String>,
    /// Device authorization (RFC 8628).
    pub device: Option<Device>,
}

/// The grant, or a static key.
// Authorization code with PKCE S256 (RFC 6749 §4.1, RFC 7636), device code (RFC 8628), client credentials (RFC 6749 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the type says it")]
pub enum Flow {
    AuthorizationCode,
    DeviceCode,
    ClientCredentials,
    ApiKey,
}

/// Device authorization (RFC 8628).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    /// The device authorization endpoint (RFC 8628 §3.1), if not discovered.
    pub url: Option<Endpoint>,
    /// Where the person types the user code, if the response does not say.
    pub verification_url: Option<Endpoint>,
    /// Where the server issues an authorization code with its own verifier instead of tokens, which is not RFC 8628: bodies are
    /// JSON, and it answers 403 or 404 until the person has decided. Only together with code_redirect.
    pub code_url: Option<Endpoint>,
    /// The redirect URI that such a code is exchanged with.
    pub code_redirect: Option<Endpoint>,
}

/// How tokens are exchanged and refreshed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// The token endpoint (RFC 6749 §3.2), if not discovered.
    pub url: Option<Endpoint>,
    /// How bodies are encoded. Default: form
    pub body: BodyKind,
    /// Whether the exchange repeats `state`. Default: false
    pub send_state: bool,
    /// Added to the exchange; null removes a standard field.
    pub exchange_extra: Parameters,
    /// Added to a refresh; null removes a standard field.
    pub refresh_extra: Parameters,
    /// The field of the response that contains the token to attach. Default: access_token
    pub access_token_field: Option<Word>,
    /// How the end of the access token is known: the response's expires_in, the token's own exp, or it does not expire.
    /// Default: expires_in; for the flow api_key: never
    pub expiry: Expiry,
    /// Refresh this long before the end, at most 10 % of the lifetime. Default: 10m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub refresh_lead: Lead,
    /// A field of the response before whose time a refresh must not be tried.
    pub not_before_field: Option<Word>,
    /// Error codes that mean that the grant is dead; "401" means any such status. Default: `[invalid_grant]`
    pub terminal_errors: Option<Vec<Word>>,
}

/// How the body of a request is encoded: `application/x-www-form-urlencoded` (RFC 6749) or `application/json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the type says it")]
pub enum BodyKind {
    #[default]
    Form,
    Json,
}

/// How the end of an access token is known: `expires_in` of the response, `exp` of the token itself, or it does not expire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the type says it")]
pub enum Expiry {
    #[default]
    ExpiresIn,
    Jwt,
    Never,
}

/// A path into a token response or its id_token: `[token, account, email_address]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>")]
#[schemars(with = "Vec<String>", inline)]
pub struct FieldPath {
    /// Where the path starts.
    pub source: FieldSource,
    /// Member names, outermost first; never empty.
    pub members: Vec<String>,
}

/// Where a [`FieldPath`] starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldSource {
    /// The token endpoint's response.
    TokenResponse,
    /// The claims of the id_token.
    IdToken,
}

/// Revocation (RFC 7009).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// The revocation endpoint.
    pub url: Endpoint,
    /// How its body is encoded. Default: form
    #[serde(default)]
    pub body: BodyKind,
}

/// Where requests are sent and what may be requested there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// https only, or http to this machine; no query. The rules below are relative to it.
    pub base_url: BaseUrl,
    /// How the token is attached.
    #[serde(default)]
    pub attach: Attach,
    /// Headers that the provider needs.
    #[serde(default)]
    pub headers: Headers,
    /// What an agent may call: METHOD /path, where a `*` stands for one segment or its beginning. Everything else is refused.
    pub allow: Vec<Rule>,
    /// Paths on which a WebSocket may be opened.
    #[serde(default)]
    pub websocket: Vec<PathPattern>,
    /// Header fields of agents that pass besides those that always do (`pixy explain ACCOUNT` prints all); a `*` at the end matches
    /// any end. An account's list adds to the shipped one; null removes that.
    #[serde(default, deserialize_with = "pass_values::deserialize::<_, PassField>")]
    pub pass_headers: PassList,
    /// Query keys of agents that pass besides those that always do; a `*` at the end matches any end. An account's list adds to the
    /// shipped one; null removes that.
    #[serde(default, deserialize_with = "pass_values::deserialize::<_, PassKey>")]
    pub pass_query: PassList,
    /// The error shape that this provider's SDKs understand. Default: openai
    #[serde(default)]
    pub errors: ErrorShape,
    /// Responses that mean that the token is refused, after which it is refreshed and the request sent once more.
    /// Default: `[{ status: 401 }]`
    #[serde(default = "RefusedAnswer::every_401")]
    pub token_refused: Vec<RefusedAnswer>,
    /// Response headers that state the quota; a `*` at the end matches any end.
    #[serde(default, deserialize_with = "values::list::<_, HeaderPattern>")]
    pub quota_headers: Vec<String>,
}

/// How the token is attached to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Attach {
    /// authorization, x-api-key, … Default: authorization
    pub header: CredentialHeader,
    /// A word before the token, such as Bearer.
    pub scheme: Option<Word>,
}

/// Headers of requests to the provider; null removes a header of the shipped profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Added when the agent sent none.
    pub default: Entries<PlainHeader, PlainValue>,
    /// Members added, once each, to the agent's comma-separated list.
    pub merge: Entries<PlainHeader, Vec<ListMember>>,
    /// Replaces whatever the agent sent.
    pub set: Entries<PlainHeader, PlainValue>,
    /// Copied from a claim of the login, a path like those of `identity`.
    pub claims: Entries<PlainHeader, FieldPath>,
}

/// One line of the allow-list: `POST /v1/messages`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline)]
pub struct Rule {
    /// The method, exactly.
    pub method: Method,
    /// The path.
    pub path: PathPattern,
}

/// The error shape that a provider's SDKs understand.
// Anthropic: {"type":"error","error":{"type":…,"message":…}}
// OpenAI: {"error":{"message":…,"type":…,"code":…,"param":null}}
// Google: {"error":{"code":…,"message":…,"status":…}}
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the type says it")]
pub enum ErrorShape {
    Anthropic,
    #[default]
    OpenAi,
    Google,
}

impl Api {
    /// Whether Pixy writes this field itself: a configured value, or a claim of the login. The name is folded.
    pub fn writes(&self, folded: &str) -> bool {
        let Headers { set, claims, .. } = &self.headers;
        let is = |name: &PlainHeader| pass_list::folds_to(name.as_str(), folded);
        set.given().any(|(name, _)| is(name)) || claims.given().any(|(name, _)| is(name))
    }

    /// Whether this field carries the credential. The name is folded.
    pub fn attaches(&self, folded: &str) -> bool {
        pass_list::folds_to(self.attach.header.as_str(), folded)
    }

    /// Whether Pixy adds a value, or members, to what an agent sends in this field. The name is in lower case.
    pub fn adds_to(&self, name: &str) -> bool {
        let Headers { default, merge, .. } = &self.headers;
        default.given().any(|(known, _)| known.as_str() == name)
            || merge.given().any(|(known, _)| known.as_str() == name)
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

impl Parameters {
    /// The parameters as texts; `None` removes a standard one.
    pub fn as_texts(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.iter().map(|(name, value)| (name.as_str(), value.map(|value| value.as_str())))
    }
}

impl Token {
    /// Whether an error code of the token endpoint means that the grant is dead.
    pub fn is_terminal(&self, code: &str) -> bool {
        code != "401" && self.terminal_errors.as_ref().map_or(code == "invalid_grant", |codes| lists(codes, code))
    }

    /// Whether any 401 of the token endpoint means that the grant is dead (written as the error code `401`).
    pub fn is_401_terminal(&self) -> bool {
        self.terminal_errors.as_ref().is_some_and(|codes| lists(codes, "401"))
    }
}

fn lists(words: &[Word], word: &str) -> bool {
    words.iter().any(|listed| listed.as_str() == word)
}
