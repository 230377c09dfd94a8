//! Configuration: the file, read into values that mean something.
//!
//! [`load`] reports every fault of a file in one run, each with its place and what is allowed:
//! `node` is the file as a tree with places, `check` compares its keys and types with the schema of `raw`, and here and in
//! `profile` the values are parsed. The one module that reads the environment.

mod check;
mod fault;
mod node;
mod parse;
mod profile;
mod raw;
mod report;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use fault::{Fault, Faults};
use report::Reporter;

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

/// What is read from the environment, so that tests need none.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `$HOME`, for `~`.
    pub home: Option<PathBuf>,
    /// A key file that was put in place for us (systemd's `$CREDENTIALS_DIRECTORY`, `/run/secrets`); used when the
    /// configuration names none.
    pub given_key: Option<PathBuf>,
}

/// The configuration that is built in.
const SHIPPED: &str = include_str!("../config/pixy.yaml");

/// Reads the configuration: the file that is named, else `~/.config/pixy/pixy.yaml`, `/etc/pixy/pixy.yaml`, or the one that is
/// built in.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(named: Option<&Path>) -> Result<Config, Faults> {
    let env = Env::of_process();
    let usual = [env.home.as_ref().map(|home| home.join(".config/pixy/pixy.yaml")), Some("/etc/pixy/pixy.yaml".into())];
    let found = usual.into_iter().flatten().find(|path| path.exists());
    let Some(file) = named.map(Path::to_owned).or(found) else { return parse(SHIPPED, None, &env) };
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text, Some(file), &env),
        Err(error) => {
            let message = format!("this file cannot be read ({error}).");
            Err(Faults::new(vec![Fault::of_file(file.display().to_string(), message)]))
        }
    }
}

/// Reads a configuration from text; `file` names it in messages.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(text: &str, file: Option<PathBuf>, env: &Env) -> Result<Config, Faults> {
    parse::parse(text, file, env)
}

/// The JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(raw::File).to_value()
}

/// The names of the shipped profiles.
pub fn provider_names() -> impl Iterator<Item = &'static str> {
    profile::SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of a shipped profile.
pub fn shipped_profile_text(name: &str) -> Option<&'static str> {
    profile::SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

impl Env {
    fn of_process() -> Self {
        let credentials =
            std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| PathBuf::from(directory).join("pixy-key"));
        let given_key =
            credentials.into_iter().chain([PathBuf::from("/run/secrets/pixy-key")]).find(|path| path.exists());
        Self { home: std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()), given_key }
    }
}
