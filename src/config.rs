//! Configuration: the file, read into values that mean something.
//!
//! [`load`] reports every fault of a file in one run, each with its place and what is allowed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::name::AccountName;
use crate::oauth::profile::Profile;
use crate::proxy::agent::AgentKey;
use crate::server::Address;
use crate::{upstream, vault};

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None` for the one that is shipped in the binary.
    pub file: Option<PathBuf>,
    /// Where agents connect; never empty.
    pub agent_listeners: Vec<AgentListener>,
    /// Empty: agents need no key (only on loopback and Unix sockets).
    pub agent_keys: Vec<AgentKey>,
    /// The person's page; `None` when off.
    pub link_listen: Option<Address>,
    /// Probes and metrics.
    pub ops_listen: Address,
    /// `control.sock` lives here.
    pub state_dir: PathBuf,
    /// Where logins are kept.
    pub vault: vault::Settings,
    /// The accounts, in the order of the file.
    pub accounts: Vec<AccountConfig>,
    /// Connections to providers.
    pub upstream: upstream::Settings,
}

/// Where agents connect.
#[derive(Debug, Clone)]
pub struct AgentListener {
    /// The address.
    pub address: Address,
    /// Bound to one account: then its paths have no account prefix.
    pub account: Option<AccountName>,
}

/// One account.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// Its name, the first segment of the agent's path.
    pub name: AccountName,
    /// The provider, overrides applied.
    pub profile: Arc<Profile>,
    /// The person has read and accepted the provider's terms.
    pub accept_terms: bool,
}
// STUB
#[derive(Debug)]
pub struct Faults;
impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
pub fn load(_p: Option<&std::path::Path>) -> Result<Config, Faults> {
    Err(Faults)
}
pub fn schema() -> serde_json::Value {
    serde_json::Value::Null
}
