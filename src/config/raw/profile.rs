//! A provider profile as it is written, in `config/providers/*.yaml` and under an account's `profile`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{DURATION, Pairs};

/// A provider profile. Under an account only what differs from the shipped profile is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Profile {
    /// What a person calls it: "Claude subscription".
    pub(in crate::config) title: Option<String>,
    /// Whether the provider allows this use of a login.
    pub(in crate::config) terms: Option<Terms>,
    /// How a person links the account.
    pub(in crate::config) link: Option<Link>,
    /// How tokens are exchanged and refreshed.
    pub(in crate::config) token: Option<Token>,
    /// What tells a person whose account it is: paths that start with `token` (the token endpoint's reply) or `id_token`
    /// (its claims). Each that is found is shown.
    pub(in crate::config) identity: Option<Vec<Vec<String>>>,
    /// How a grant is ended at the provider (RFC 7009), if it can be.
    pub(in crate::config) revoke: Option<Revoke>,
    /// Where requests go and what may be asked there.
    pub(in crate::config) api: Option<Api>,
}

/// Whether the provider allows this use of a login.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Terms {
    /// All but `open` link only with `accept_terms: true`.
    pub(in crate::config) status: Option<TermsStatus>,
    /// Where the provider says so.
    pub(in crate::config) url: Option<String>,
    /// What it says, in a sentence or two.
    pub(in crate::config) says: Option<String>,
}

/// Made for programs like this; allowed under conditions; not permitted in general.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum TermsStatus {
    Open,
    Conditional,
    Restricted,
}

/// How a person links the account.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Link {
    /// The grant, or a static key.
    pub(in crate::config) flow: Option<Flow>,
    /// The authorization server, for discovery (RFC 8414 or OpenID Connect), its `iss` (RFC 9207) and id_tokens.
    pub(in crate::config) issuer: Option<String>,
    /// The keys that its id_tokens are signed with, if not discovered.
    pub(in crate::config) jwks_url: Option<String>,
    /// The authorization endpoint (RFC 6749 §3.1), if not discovered.
    pub(in crate::config) authorize_url: Option<String>,
    /// Added to the authorization request; null takes a standard parameter away. Values may hold {redirect_uri},
    /// {redirect_uri_with_state}, {nonce} and {installation}.
    #[schemars(with = "Option<BTreeMap<String, Option<String>>>")]
    pub(in crate::config) authorize_params: Option<Pairs<Option<String>>>,
    /// Where the provider sends the code.
    pub(in crate::config) redirect: Option<Redirect>,
    /// The public client's id.
    pub(in crate::config) client_id: Option<String>,
    /// The callback's `client_id` replaces ours. Default: false
    pub(in crate::config) client_id_from_callback: Option<bool>,
    /// Scopes that are asked for.
    pub(in crate::config) scopes: Option<Vec<String>>,
    /// Scopes without which the grant is useless.
    pub(in crate::config) required_scopes: Option<Vec<String>>,
    /// Device authorization (RFC 8628).
    pub(in crate::config) device: Option<Device>,
}

/// The grant, or a static key.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Flow {
    AuthorizationCode,
    DeviceCode,
    ClientCredentials,
    ApiKey,
}

/// Where the provider sends the code: one of the two.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Redirect {
    /// A page of the provider's that shows the code for pasting.
    pub(in crate::config) paste: Option<String>,
    /// The person's own machine (RFC 8252 §7.3).
    pub(in crate::config) loopback: Option<Loopback>,
}

/// A redirect to the person's own machine, exactly as the provider has it registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Loopback {
    /// 127.0.0.1, localhost or [::1]. Default: 127.0.0.1
    pub(in crate::config) host: Option<String>,
    /// The ports that the provider accepts: any, or a list. Default: any
    pub(in crate::config) ports: Option<Ports>,
    /// Default: /callback
    pub(in crate::config) path: Option<String>,
}

/// Ports that the provider accepts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum Ports {
    /// Every port (RFC 8252 §7.3).
    Word(Any),
    /// Only these, the preferred one first.
    Only(Vec<u16>),
}

/// The word `any`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Any {
    Any,
}

/// Device authorization (RFC 8628).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Device {
    /// Where the device code is asked for.
    pub(in crate::config) url: Option<String>,
    /// Where the person types the user code, if the reply does not say.
    pub(in crate::config) verification_url: Option<String>,
    /// Where the server hands out an authorization code instead of tokens, which is not RFC 8628.
    pub(in crate::config) code_url: Option<String>,
    /// The redirect URI that such a code is exchanged with.
    pub(in crate::config) code_redirect: Option<String>,
}

/// How tokens are exchanged and refreshed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Token {
    /// The token endpoint (RFC 6749 §3.2), if not discovered.
    pub(in crate::config) url: Option<String>,
    /// How bodies are written. Default: form
    pub(in crate::config) body: Option<Body>,
    /// Whether the exchange repeats `state`. Default: false
    pub(in crate::config) send_state: Option<bool>,
    /// Added to the exchange; null takes a standard field away.
    #[schemars(with = "Option<BTreeMap<String, Option<String>>>")]
    pub(in crate::config) exchange_extra: Option<Pairs<Option<String>>>,
    /// Added to a refresh; null takes a standard field away.
    #[schemars(with = "Option<BTreeMap<String, Option<String>>>")]
    pub(in crate::config) refresh_extra: Option<Pairs<Option<String>>>,
    /// The reply's field with the token that is attached. Default: access_token
    pub(in crate::config) access_token_field: Option<String>,
    /// How it is known when the access token ends: the reply's expires_in, the token's own exp, or it does not.
    /// Default: expires_in; for the flow api_key: never
    pub(in crate::config) expiry: Option<Expiry>,
    /// Refresh this long before the end, at most 10 % of the lifetime. Default: 10m
    #[schemars(extend("pattern" = DURATION))]
    pub(in crate::config) refresh_lead: Option<String>,
    /// A field of the reply before whose time a refresh must not be tried.
    pub(in crate::config) not_before_field: Option<String>,
    /// Error codes that mean that the grant is dead; "401" means any such answer. Default: [invalid_grant]
    pub(in crate::config) terminal_errors: Option<Vec<String>>,
}

/// How a body is written.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Body {
    Form,
    Json,
}

/// How it is known when an access token ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Expiry {
    ExpiresIn,
    Jwt,
    Never,
}

/// Revocation (RFC 7009).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Revoke {
    /// The revocation endpoint.
    pub(in crate::config) url: Option<String>,
    /// How its body is written. Default: form
    pub(in crate::config) body: Option<Body>,
}

/// Where requests go and what may be asked there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Api {
    /// https only, or http to this machine; no query. The rules below are relative to it.
    pub(in crate::config) base_url: Option<String>,
    /// How the token is attached.
    pub(in crate::config) attach: Option<Attach>,
    /// Headers that the provider needs.
    pub(in crate::config) headers: Option<Headers>,
    /// What an agent may call: METHOD /path, where a `*` stands for one segment or its beginning.
    pub(in crate::config) allow: Option<Vec<String>>,
    /// Paths on which a WebSocket may be opened.
    pub(in crate::config) websocket: Option<Vec<String>>,
    /// The error shape that this provider's SDKs understand. Default: openai
    pub(in crate::config) errors: Option<Errors>,
    /// Response headers that tell the quota; a `*` at the end matches any end.
    pub(in crate::config) quota_headers: Option<Vec<String>>,
}

/// How the token is attached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Attach {
    /// authorization, x-api-key, … Default: authorization
    pub(in crate::config) header: Option<String>,
    /// A word before the token, such as Bearer.
    pub(in crate::config) scheme: Option<String>,
}

/// Headers that the provider needs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Headers {
    /// Added when the agent sent none.
    #[schemars(with = "Option<BTreeMap<String, Option<String>>>")]
    pub(in crate::config) default: Option<Pairs<Option<String>>>,
    /// Members added, once each, to the agent's comma list.
    #[schemars(with = "Option<BTreeMap<String, Option<Vec<String>>>>")]
    pub(in crate::config) merge: Option<Pairs<Option<Vec<String>>>>,
    /// Always ours, whatever the agent sent.
    #[schemars(with = "Option<BTreeMap<String, Option<String>>>")]
    pub(in crate::config) set: Option<Pairs<Option<String>>>,
    /// Copied from a claim of the login, a path like those of `identity`.
    #[schemars(with = "Option<BTreeMap<String, Option<Vec<String>>>>")]
    pub(in crate::config) claims: Option<Pairs<Option<Vec<String>>>>,
}

/// The error shape that a provider's SDKs understand.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Errors {
    Anthropic,
    Openai,
    Google,
}
