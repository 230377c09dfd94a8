//! The configuration file as it is written: the one source of `pixy schema`, of the checks on keys and types, and of what is
//! parsed into [`Config`](super::Config).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Pixy configuration")]
pub(super) struct File {
    /// Where agents connect and which keys they hold.
    pub(super) agent: Option<Agent>,
    /// The person's page.
    pub(super) link: Option<Link>,
    /// Probes and metrics.
    pub(super) ops: Option<Ops>,
    /// Where the control socket lives.
    pub(super) state_dir: Option<String>,
    /// Where logins are kept, sealed.
    pub(super) vault: Option<Vault>,
    /// The accounts, by name: the first segment of the agent's path.
    pub(super) accounts: Option<BTreeMap<String, Option<Account>>>,
    /// Connections to providers.
    pub(super) upstream: Option<Upstream>,
}

/// Where agents connect.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Agent {
    /// An address, or a list of listeners.
    pub(super) listen: Option<Listen>,
    /// Agent keys; optional on loopback and Unix sockets.
    pub(super) keys: Option<Vec<AgentKey>>,
}

/// An address, or a list of listeners.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Listen {
    /// `127.0.0.1:8700` or `unix:/path`.
    One(String),
    /// Several.
    Many(Vec<Listener>),
}

/// One listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// `127.0.0.1:8700` or `unix:/path`.
    pub(super) address: String,
    /// Bound to this account: its paths have no account prefix.
    pub(super) account: Option<String>,
}

/// A key that an agent presents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentKey {
    /// The agent's name.
    pub(super) name: String,
    /// The file that holds the key.
    pub(super) key_file: Option<String>,
    /// Or the SHA-256 of the key, in hexadecimal.
    pub(super) sha256: Option<String>,
    /// The accounts that the agent may use.
    pub(super) accounts: Vec<String>,
    /// How much it may use them.
    pub(super) limits: Option<Limits>,
}

/// Limits of an agent; absent means none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Requests started in any minute.
    pub(super) requests_per_minute: Option<u32>,
    /// Requests and streams at once.
    pub(super) concurrent: Option<u32>,
    /// Tokens of the model in a day (UTC).
    pub(super) tokens_per_day: Option<u64>,
}

/// The person's page.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Link {
    /// `127.0.0.1:8701`, `unix:/path`, or `off`.
    pub(super) listen: Option<String>,
}

/// Probes and metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ops {
    /// `127.0.0.1:8702`, or `unix:/path`.
    pub(super) listen: Option<String>,
}

/// Where logins are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Vault {
    /// A directory of sealed files.
    pub(super) dir: Option<String>,
    /// Or a PostgreSQL database.
    pub(super) postgres: Option<Postgres>,
    /// The file with the key that opens records; made on first start.
    pub(super) key_file: Option<String>,
    /// Or a file with a passphrase.
    pub(super) passphrase_file: Option<String>,
}

/// A PostgreSQL database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgres {
    /// The file that holds the database URL.
    pub(super) url_file: String,
}

/// Connections to providers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    /// Further trusted roots, PEM.
    pub(super) extra_ca_file: Option<String>,
    /// Name resolution, TCP and TLS together.
    pub(super) connect_timeout: Option<String>,
    /// From the request to the response's head.
    pub(super) head_timeout: Option<String>,
    /// Between two pieces of a response.
    pub(super) idle_timeout: Option<String>,
}

/// One account.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Account {
    /// One of `pixy providers`.
    pub(super) provider: Option<String>,
    /// You have read the provider's terms, and may use your login like this.
    pub(super) accept_terms: Option<bool>,
    /// Keys of the provider's profile that are different here.
    pub(super) profile: Option<Profile>,
}

/// A provider profile: the whole of `config/providers/NAME.yaml`, or what an account changes of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Profile {
    /// What a person calls it.
    pub(super) title: Option<String>,
    /// Whether the provider allows this use.
    pub(super) terms: Option<Terms>,
    /// How a person links it.
    pub(super) link: Option<ProfileLink>,
    /// How tokens are exchanged and refreshed.
    pub(super) token: Option<Token>,
    /// Paths to what tells whose account it is: `[token, account, email]` or `[id_token, email]`.
    pub(super) identity: Option<Vec<Vec<String>>>,
    /// How a login is ended at the provider.
    pub(super) revoke: Option<Revoke>,
    /// Where requests go and what may be asked there.
    pub(super) api: Option<Api>,
}

/// The provider's terms.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Terms {
    /// Whether they allow it.
    pub(super) status: Option<Status>,
    /// Where they stand.
    pub(super) url: Option<String>,
    /// What they say.
    pub(super) says: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Open,
    Conditional,
    Restricted,
}

/// How a person links.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProfileLink {
    /// The grant.
    pub(super) flow: Option<Flow>,
    /// Discovery (RFC 8414, OpenID Connect) and the expected `iss`.
    pub(super) issuer: Option<String>,
    /// The authorization endpoint.
    pub(super) authorize_url: Option<String>,
    /// Added to the authorization request; null leaves a standard parameter out.
    pub(super) authorize_params: Option<BTreeMap<String, Option<String>>>,
    /// Where the code is sent.
    pub(super) redirect: Option<Redirect>,
    /// The public client's id.
    pub(super) client_id: Option<String>,
    /// The callback's `client_id` takes its place.
    pub(super) client_id_from_callback: Option<bool>,
    /// Scopes that are asked for.
    pub(super) scopes: Option<Vec<String>>,
    /// Scopes without which a login is useless.
    pub(super) required_scopes: Option<Vec<String>>,
    /// Device authorization (RFC 8628).
    pub(super) device: Option<Device>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Flow {
    AuthorizationCode,
    DeviceCode,
    ClientCredentials,
    ApiKey,
}

/// Where the code is sent: one of the two.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Redirect {
    /// A page of the provider's that shows it.
    pub(super) paste: Option<String>,
    /// The person's own machine.
    pub(super) loopback: Option<Loopback>,
}

/// A loopback redirect (RFC 8252 §7.3).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Loopback {
    /// `127.0.0.1`, `localhost` or `[::1]`.
    pub(super) host: Option<String>,
    /// `any`, or a list of ports.
    pub(super) ports: Option<Ports>,
    /// The path.
    pub(super) path: Option<String>,
}

/// `any`, or a list of ports.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Ports {
    /// `any`.
    Word(String),
    /// These.
    List(Vec<u16>),
}

/// Device authorization.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Device {
    /// The device authorization endpoint.
    pub(super) url: Option<String>,
    /// Where the person types the code.
    pub(super) verification_url: Option<String>,
}

/// The token endpoint.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Token {
    /// The token endpoint.
    pub(super) url: Option<String>,
    /// How bodies are written.
    pub(super) body: Option<Body>,
    /// The exchange repeats `state`.
    pub(super) send_state: Option<bool>,
    /// Added to the exchange; null leaves a standard field out.
    pub(super) exchange_extra: Option<BTreeMap<String, Option<String>>>,
    /// Added to a refresh; null leaves a standard field out.
    pub(super) refresh_extra: Option<BTreeMap<String, Option<String>>>,
    /// The reply's field that is attached to requests.
    pub(super) access_token_field: Option<String>,
    /// How it is known when the token ends.
    pub(super) expiry: Option<Expiry>,
    /// Refresh this long before the end, at most 10 % of the lifetime.
    pub(super) refresh_lead: Option<String>,
    /// A reply field before whose time a refresh must not be tried.
    pub(super) not_before_field: Option<String>,
    /// Error codes that mean that the login is dead; `401` for any answer with that status.
    pub(super) terminal_errors: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    Form,
    Json,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Expiry {
    ExpiresIn,
    Jwt,
    Never,
}

/// Revocation (RFC 7009).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Revoke {
    /// The revocation endpoint.
    pub(super) url: Option<String>,
    /// How its body is written.
    pub(super) body: Option<Body>,
}

/// The provider's API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    /// Scheme, host, port and a path prefix.
    pub(super) base_url: Option<String>,
    /// How the token is attached.
    pub(super) attach: Option<Attach>,
    /// Headers that the provider needs.
    pub(super) headers: Option<Headers>,
    /// What an agent may call: `POST /v1/messages`; `*` is one segment.
    pub(super) allow: Option<Vec<String>>,
    /// Paths on which a WebSocket may be opened.
    pub(super) websocket: Option<Vec<String>>,
    /// The error shape that its SDKs understand.
    pub(super) errors: Option<Errors>,
    /// Response headers that tell the quota.
    pub(super) quota_headers: Option<Vec<String>>,
}

/// How the token is attached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attach {
    /// The header.
    pub(super) header: Option<String>,
    /// What stands before the token.
    pub(super) scheme: Option<String>,
}

/// Headers of requests to the provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Headers {
    /// Added when the agent sent none.
    pub(super) default: Option<BTreeMap<String, Option<String>>>,
    /// Members added to the agent's comma list.
    pub(super) merge: Option<BTreeMap<String, Option<Vec<String>>>>,
    /// Always ours.
    pub(super) set: Option<BTreeMap<String, Option<String>>>,
    /// Copied from the login: `[id_token, claim, …]`.
    pub(super) claims: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Errors {
    Anthropic,
    Openai,
}
