//! The configuration file as it is written: plain structures that mirror it key by key.
//!
//! They are the one source of truth for the file's shape: `pixy schema` prints their schema, and the checker walks it.
//! Nearly everything is optional here; what must be given, and what it means, is decided where [`super::Config`] is built.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::oauth::profile::values::DURATION_PATTERN;
use crate::oauth::profile::{Entries, Profile};

/// The configuration of Pixy, a sidecar that holds LLM logins so that the agent beside it never does.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Pixy configuration")]
pub(super) struct File {
    /// Where agents connect, and who may.
    pub(super) agent: Option<Agent>,
    /// The page on which a person links accounts: `off`, or where it listens.
    pub(super) link: Option<Link>,
    /// Probes and metrics.
    pub(super) ops: Option<Ops>,
    /// Holds the control socket and what must not be rolled back together with the vault. Default: ~/.local/state/pixy
    pub(super) state_dir: Option<String>,
    /// Where logins are kept, sealed, and what opens them.
    pub(super) vault: Option<Vault>,
    /// The accounts by name. The name is the first segment of the agent's path.
    #[schemars(with = "Option<BTreeMap<String, Account>>")]
    pub(super) accounts: Option<Entries<String, Account>>,
    /// Connections to providers.
    pub(super) upstream: Option<Upstream>,
    /// What clients may take of Pixy.
    pub(super) limits: Option<Intake>,
}

/// Where agents connect, and who may.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    /// One address or a list. Default: 127.0.0.1:8700
    pub(super) listen: Option<Listen>,
    /// The agents and what each may use. Without any, whoever reaches the address may use every account: such an address
    /// must be loopback or a Unix socket.
    pub(super) keys: Option<Vec<AgentKey>>,
}

/// One address or a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Listen {
    /// An address: 127.0.0.1:8700, [::1]:8700 or unix:/run/pixy/agent.sock
    One(String),
    /// Several addresses.
    Many(Vec<Listener>),
}

/// An address, bound to one account or not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Listener {
    /// An address for all accounts.
    Open(String),
    /// An address with more to say about it.
    Bound(BoundListener),
}

/// An address, bound to one account or not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BoundListener {
    /// 127.0.0.1:8711, [::1]:8711 or unix:/run/pixy/claude.sock
    #[schemars(required)]
    pub(super) address: Option<String>,
    /// The one account that is served here; its paths then have no account prefix.
    pub(super) account: Option<String>,
    /// Whom a Unix socket lets in: Pixy's own user ("0600"), its group too ("0660"), or everybody who reaches its directory
    /// ("0666", which needs keys). Default: "0600"
    #[schemars(extend("pattern" = "^0?6(00|60|66)$"))]
    pub(super) mode: Option<String>,
}

/// An agent's key and what it opens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AgentKey {
    /// The agent's name in logs and metrics.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// A file with the key: at least 16 characters, not readable by others. Either this or sha256.
    pub(super) key_file: Option<String>,
    /// The SHA-256 of the key, 64 hexadecimal digits. Either this or key_file.
    #[schemars(extend("pattern" = "^[0-9A-Fa-f]{64}$"))]
    pub(super) sha256: Option<String>,
    /// The accounts that this agent may use.
    #[schemars(required)]
    pub(super) accounts: Option<Vec<String>>,
    /// How much it may use them; what is absent is not limited.
    pub(super) limits: Option<Limits>,
}

/// Limits of one agent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Requests started in any minute.
    #[schemars(range(min = 1))]
    pub(super) requests_per_minute: Option<u32>,
    /// Requests and streams under way at once.
    #[schemars(range(min = 1))]
    pub(super) concurrent: Option<u32>,
    /// Tokens of the model, in and out, in a calendar day (UTC).
    #[schemars(range(min = 1))]
    pub(super) tokens_per_day: Option<u64>,
}

/// The page on which a person links accounts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Link {
    /// No page: accounts are linked in the terminal.
    Word(Off),
    /// Where it listens.
    Surface(LinkSurface),
}

/// The word `off`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Off {
    Off,
}

/// Where the page listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkSurface {
    /// 127.0.0.1:8701, unix:/path or off. Default: 127.0.0.1:8701
    pub(super) listen: Option<String>,
}

/// Probes and metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ops {
    /// 127.0.0.1:8702, 0.0.0.0:8702 in a pod, or unix:/path. Default: 127.0.0.1:8702
    pub(super) listen: Option<String>,
}

/// Where logins are kept, sealed, and what opens them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    /// A directory of this Pixy's own. Default: ~/.local/state/pixy/vault
    pub(super) dir: Option<String>,
    /// The key that opens the vault; made on the first start. Default: pixy-key in $CREDENTIALS_DIRECTORY or /run/secrets
    /// where there is one, else ~/.config/pixy/key
    pub(super) key_file: Option<String>,
    /// A file with a passphrase, instead of a key file.
    pub(super) passphrase_file: Option<String>,
}

/// One account.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    /// A shipped profile; `pixy providers` lists them.
    #[schemars(required)]
    pub(super) provider: Option<String>,
    /// You have read the provider's terms (`pixy providers NAME`) and answer for this use. Default: false
    pub(super) accept_terms: Option<bool>,
    /// Changes to the shipped profile: maps are merged key by key, everything else replaces, null takes away.
    // It is read from the tree, after it is merged with the shipped profile.
    #[schemars(with = "Option<Profile>")]
    pub(super) profile: Option<IgnoredAny>,
}

/// Connections to providers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// Further trusted root certificates, PEM; the machine's own are always trusted.
    pub(super) extra_ca_file: Option<String>,
    /// For TCP and TLS together. Default: 10s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) connect_timeout: Option<String>,
    /// From the end of the request to the head of the response; models think before they speak. Default: 10m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) head_timeout: Option<String>,
    /// Between two pieces of a response. Default: 10m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) idle_timeout: Option<String>,
}

/// What clients may take of Pixy, all of them together or each connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Intake {
    /// Connections of agents at once; further ones wait. Never more than half of the open files that the system allows.
    /// Default: 1024
    #[schemars(range(min = 1))]
    pub(super) connections: Option<u32>,
    /// Bytes of a request's head, from 1024 to 1048576. Default: 65536
    #[schemars(range(min = 1024))]
    pub(super) header_bytes: Option<u32>,
    /// Fields of a request's head, from 10 to 1000. Default: 100
    #[schemars(range(min = 10))]
    pub(super) header_fields: Option<u16>,
    /// Bytes of a request's path and query, from 64 to 65000. Default: 8192
    #[schemars(range(min = 64))]
    pub(super) uri_bytes: Option<u16>,
    /// Bytes of a request's body. Default: 67108864 (64 MiB)
    #[schemars(range(min = 1))]
    pub(super) body_bytes: Option<u64>,
    /// Bytes of a body that are kept while it streams, up to 67108864: when the provider ends a token early, the request is sent
    /// once more with a new one. 0: no request is. Default: 1048576 (1 MiB)
    pub(super) replay_bytes: Option<u32>,
    /// For a request's head. Default: 10s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) header_time: Option<String>,
    /// Without a byte of a request's body, without a byte of an answer being taken, or between two requests. Default: 2m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) idle_time: Option<String>,
    /// For open streams after SIGTERM. Default: 20s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) drain_time: Option<String>,
    /// Threads for connections, from 1 to 64; to change it needs a restart. One is enough for a person's agents: more serve
    /// more at once, and each request costs more. Default: 1
    #[schemars(range(min = 1, max = 64))]
    pub(super) io_threads: Option<u16>,
}
