//! The configuration file as it is written: structures that mirror it key by key.
//!
//! They define the shape of the file: `pixy schema` prints their schema, and [`super::check`] checks a file against it. Nearly
//! every key is optional; [`super::build`] decides what must be given, and its default.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::value_parsers::{Range, Size, Time, Timeout};
use crate::oauth::profile::values::DURATION_PATTERN;
use crate::oauth::profile::{Entries, Profile};
use crate::proxy::agent::AgentLimits;

/// The configuration of Pixy, a sidecar that holds LLM logins so that the agent beside it never does.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Pixy configuration")]
pub(super) struct File {
    /// Where agents connect, and which may.
    pub(super) agent: Option<Agent>,
    /// The page on which a person links accounts: `off`, or where it listens.
    pub(super) link: Option<Link>,
    /// Probes and metrics.
    pub(super) ops: Option<Ops>,
    /// Holds the control socket and what must not be rolled back together with the vault. Default: ~/.local/state/pixy
    pub(super) state_dir: Option<String>,
    /// Where logins are stored, encrypted, and the key.
    pub(super) vault: Option<Vault>,
    /// The accounts by name. The name is the first segment of the agent's path.
    #[schemars(with = "Option<BTreeMap<String, Account>>")]
    pub(super) accounts: Option<Entries<String, Account>>,
    /// Connections to providers.
    pub(super) upstream: Option<Upstream>,
    /// Limits of clients.
    pub(super) limits: Option<Intake>,
    /// Restrictions that Pixy puts on its own process.
    pub(super) hardening: Option<Hardening>,
}

/// Restrictions that Pixy puts on its own process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Hardening {
    /// Use only the TCP ports that this file names at the start, 443 and 53; a reload that needs another port then needs a restart.
    /// Needs Linux 6.7. Default: true
    pub(super) network: Option<bool>,
}

/// Where agents connect, and which may.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    /// One address or a list. Default: 127.0.0.1:8700
    pub(super) listen: Option<Listen>,
    /// The agents and what each may use. Without keys every client may use every account: then the address must be loopback
    /// or a Unix socket.
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
    /// An address with options.
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
    /// Which users may connect to a Unix socket: Pixy's own ("0600"), its group too ("0660"), or every user who can reach its
    /// directory ("0666", which needs keys). Default: "0600"
    #[schemars(extend("pattern" = "^0?6(00|60|66)$"))]
    pub(super) mode: Option<String>,
    /// The names that clients may address this listener by, besides IP addresses and `localhost`: a Compose service, a
    /// Kubernetes service, host.docker.internal. Requests that name another host get a 421. Default: none
    pub(super) hosts: Option<Vec<String>>,
}

/// An agent's key and the accounts it may use.
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
    /// Its limits; a limit that is absent does not apply.
    pub(super) limits: Option<AgentLimits>,
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
    /// The names that a browser may address the page by, besides IP addresses and `localhost`. Default: none
    pub(super) hosts: Option<Vec<String>>,
}

/// Probes and metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ops {
    /// 127.0.0.1:8702, 0.0.0.0:8702 in a pod, or unix:/path. Default: 127.0.0.1:8702
    pub(super) listen: Option<String>,
    /// The names that probes and scrapers may address it by, besides IP addresses and `localhost`. Default: none
    pub(super) hosts: Option<Vec<String>>,
}

/// Where logins are stored, encrypted, and the key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    /// A directory that only this Pixy uses. Default: ~/.local/state/pixy/vault
    pub(super) dir: Option<String>,
    /// The key of the vault; generated on the first start. Default: pixy-key in $CREDENTIALS_DIRECTORY or /run/secrets if it
    /// exists, else ~/.config/pixy/key
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
    /// You have read the provider's terms (`pixy providers NAME`) and are responsible for this use. Default: false
    pub(super) accept_terms: Option<bool>,
    /// Changes to the shipped profile: maps are merged key by key, other values replace, null removes.
    // Deserialized from the tree after it is merged with the shipped profile.
    #[schemars(with = "Option<Profile>")]
    pub(super) profile: Option<IgnoredAny>,
}

/// Connections to providers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// Additional trusted root certificates, PEM; those of the system are always trusted.
    pub(super) extra_ca_file: Option<String>,
    /// Addresses that a provider's name may resolve to although they are not globally reachable, such as a company's gateway: a
    /// list of addresses and ranges in CIDR notation. Loopback and link-local addresses are never allowed. Default: none
    pub(super) allow_addresses: Option<Vec<Range>>,
    /// For TCP and TLS together. Default: 10s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) connect_timeout: Option<Timeout>,
    /// From the end of the request to the head of the response; models can take minutes to begin. Default: 10m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) head_timeout: Option<Timeout>,
    /// Between two pieces of a response. Default: 10m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) idle_timeout: Option<Timeout>,
}

/// Limits of clients, of all together or of each connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Intake {
    /// The process's resident memory: bytes, or a number with KiB, MiB or GiB; at least 40MiB. What no longer fits waits or is
    /// refused. Default: 128MiB
    pub(super) memory: Option<Size>,
    /// Concurrent connections of agents; further ones queue. At most half of the open files that the system allows, and as many as
    /// fit into `memory`. Default: 1024
    #[schemars(range(min = 1))]
    pub(super) connections: Option<u32>,
    /// Bytes of a request's head, from 1024 to 1048576. Default: 65536
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub(super) header_bytes: Option<u32>,
    /// Fields of a request's head, from 10 to 1000. Default: 100
    #[schemars(range(min = 10, max = 1000))]
    pub(super) header_fields: Option<u16>,
    /// Bytes of a request's path and query, from 64 to 65000. Default: 8192
    #[schemars(range(min = 64, max = 65_000))]
    pub(super) uri_bytes: Option<u16>,
    /// A request's body: bytes, or a number with KiB, MiB or GiB. Default: 64MiB
    pub(super) body_bytes: Option<Size>,
    /// How much of a body is buffered while it streams, up to 64MiB and while `memory` has room: when the provider rejects a token
    /// early, the request is sent again with a new one. 0: never. Default: 1MiB
    pub(super) replay_bytes: Option<Size>,
    /// For a request's head. Default: 10s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) header_time: Option<Timeout>,
    /// Without progress in a request's body or in reading the response, and between two requests. Default: 2m
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) idle_time: Option<Timeout>,
    /// For open streams to finish after SIGTERM. Default: 20s
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    pub(super) drain_time: Option<Time>,
    /// Threads for connections, from 1 to 64; a change needs a restart. One suffices for the agents of one person: more threads
    /// serve more connections, but each request costs more CPU time. Default: 1
    #[schemars(range(min = 1, max = 64))]
    pub(super) io_threads: Option<u16>,
}
