//! Configuration: the file, read into validated values.
//!
//! [`load`] reports every fault of a file in one run, each with its position and what is allowed. A file passes four steps:
//! `spanned_yaml` parses it into a tree with positions, `check` compares the tree with the schema of `raw` and marks what is
//! faulty, `deserialize` reads the rest, and `build` checks how values relate. The faults of all steps are reported together.

mod agent_key;
mod build;
mod check;
mod deserialize;
mod env;
mod fault;
mod file_trust;
mod spanned_yaml;
mod state_dir;
mod profile_merge;
mod raw;
mod diagnostics;
mod shipped;
mod value_parsers;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use env::{Env, passed_sockets, variable, variables};
pub use fault::{Fault, Faults};
pub use shipped::profile_text as shipped_profile_text;

use diagnostics::{FaultSink, Scope};
use fault::SourceText;
use file_trust::Distrust;
use spanned_yaml::Node;

use crate::name::AccountName;
use crate::oauth::profile::{Flow, Profile, Terms};
use crate::proxy::agent::AgentKey;
use crate::server::{Access, Address, ServerLimits};
use crate::upstream::UpstreamSettings;
use crate::vault::VaultSettings;

/// Reads the configuration: `explicit` (else `PIXY_CONFIG`), else `~/.config/pixy/pixy.yaml`, `/etc/pixy/pixy.yaml`, else the
/// shipped one.
///
/// # Errors
/// Every fault of the first file that exists. A file that exists but cannot be read, or that other users may change, is a fault: no
/// other is tried.
pub fn load(explicit: Option<&Path>) -> Result<Config, Faults> {
    load_with(explicit, &Env::read())
}

/// As [`load`], with an environment that was read before.
pub fn load_with(explicit: Option<&Path>, env: &Env) -> Result<Config, Faults> {
    match find(explicit, env) {
        Some(file) => {
            let (text, warning) = read_trusted(&file)?;
            let mut config = parse(&text, Some(file), env)?;
            config.warnings.extend(warning);
            Ok(config)
        }
        None => parse(shipped::CONFIGURATION, None, env),
    }
}

/// `state_dir` of a configuration that has faults or cannot be read, if it can be found, else its default. A running Pixy with an
/// earlier version of the file is reached there. `None`: the default needs `HOME`, which is not set.
pub fn state_dir(explicit: Option<&Path>) -> Option<PathBuf> {
    let env = Env::read();
    let written = find(explicit, &env).and_then(|file| state_dir::state_dir(&read(&file).ok()?));
    let path = |text: &str| value_parsers::path(text, env.home()).ok();
    written.and_then(|text| path(&text)).or_else(|| path(build::STATE_DIR))
}

fn find(explicit: Option<&Path>, env: &Env) -> Option<PathBuf> {
    if let Some(file) = explicit.or(env.config.as_deref()) {
        return Some(file.to_path_buf());
    }
    let own = env.home.as_ref().map(|home| home.join(".config/pixy/pixy.yaml"));
    own.into_iter().chain([PathBuf::from("/etc/pixy/pixy.yaml")]).find(|file| file.symlink_metadata().is_ok())
}

/// Reads a configuration from its text; `file` is where the text came from, for messages and [`Config::file`].
pub fn parse(text: &str, file: Option<PathBuf>, env: &Env) -> Result<Config, Faults> {
    let name = file.as_ref().map_or_else(|| shipped::CONFIGURATION_NAME.to_owned(), |file| file.display().to_string());
    let source = Arc::new(SourceText { name: name.clone(), text: text.to_owned() });
    let sink = FaultSink::default();
    let built = Node::parse(&source).map_err(|fault| sink.push(*fault)).ok().and_then(|mut node| {
        if matches!(node.content, spanned_yaml::Content::Null) {
            // In an empty file every key has its default.
            node.content = spanned_yaml::Content::Map(Vec::new());
        }
        check::check(&mut node, &schema(), &sink);
        let scope = Scope::new(&sink, &node);
        let raw = deserialize::deserialize::<raw::File>(&node, &scope)?;
        build::config(raw, file, &scope, &node, env)
    });
    match built {
        Some(config) if sink.faults.borrow().is_empty() => Ok(Config { warnings: sink.warnings.take(), ..config }),
        _ => {
            let mut faults = sink.faults.take();
            if faults.is_empty() {
                faults.push(Fault::of_file(
                    name,
                    "this configuration is not valid, and Pixy cannot say why; please report this.".to_owned(),
                ));
            }
            Err(Faults::new(faults))
        }
    }
}

/// The JSON Schema of the configuration file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(raw::File).to_value();
    profile_merge::make_optional(&mut schema);
    schema
}

/// The names of the shipped provider profiles.
pub fn provider_names() -> Vec<&'static str> {
    shipped::PROFILES.iter().map(|(name, _)| *name).collect()
}

/// A shipped provider profile; `None` when there is none of this name, or when the operator must first add the keys of
/// [`shipped_profile_needs`].
pub fn shipped_profile(name: &str) -> Option<Profile> {
    let sink = FaultSink::default();
    let node = profile_merge::shipped_node(name, &sink)?;
    profile_merge::build(&node, name, &Scope::new(&sink, &node)).filter(|_| sink.faults.borrow().is_empty())
}

/// The head of a shipped provider profile, which is known before an operator has completed it.
#[derive(Debug, Clone, Deserialize)]
pub struct Outline {
    /// What a person calls it.
    pub title: String,
    /// Whether the provider allows this use.
    pub terms: Terms,
    /// How it is linked.
    pub link: OutlineLink,
}

/// How a provider is linked.
#[derive(Debug, Clone, Deserialize)]
pub struct OutlineLink {
    /// Unless an operator chooses another flow.
    pub flow: Flow,
}

/// The head of a shipped provider profile; `None` when there is none of this name.
pub fn shipped_profile_outline(name: &str) -> Option<Outline> {
    Outline::deserialize(&profile_merge::shipped_node(name, &FaultSink::default())?).ok()
}

/// The keys that an operator must add to a shipped profile, like `link.client_id`.
pub fn shipped_profile_needs(name: &str) -> Vec<String> {
    let sink = FaultSink::default();
    let Some(node) = profile_merge::shipped_node(name, &sink) else { return Vec::new() };
    let _ = profile_merge::build(&node, name, &Scope::new(&sink, &node));
    sink.missing.take()
}

fn read(file: &Path) -> Result<String, Faults> {
    let opened = std::fs::File::open(file).map_err(|error| unreadable(file, &error))?;
    content(opened, file)
}

/// The text of a file that no other user may change, and a warning where a group may.
fn read_trusted(file: &Path) -> Result<(String, Option<Fault>), Faults> {
    let opened = std::fs::File::open(file).map_err(|error| unreadable(file, &error))?;
    let of_file = |message| Fault::of_file(file.display().to_string(), message);
    let warning = match file_trust::check(&opened, file).map_err(|error| unreadable(file, &error))? {
        Some(Distrust::Refused(why)) => return Err(Faults::new(vec![of_file(why)])),
        Some(Distrust::Warning(what)) => Some(of_file(what)),
        None => None,
    };
    Ok((content(opened, file)?, warning))
}

fn unreadable(file: &Path, error: &std::io::Error) -> Faults {
    let message =
        format!("the configuration cannot be read ({}); name another with --config or PIXY_CONFIG.", error.kind());
    Faults::new(vec![Fault::of_file(file.display().to_string(), message)])
}

fn content(opened: std::fs::File, file: &Path) -> Result<String, Faults> {
    let fault = |message: String| Faults::new(vec![Fault::of_file(file.display().to_string(), message)]);
    let mut content = Vec::new();
    opened.take(LONGEST + 1).read_to_end(&mut content).map_err(|error| unreadable(file, &error))?;
    if u64::try_from(content.len()).is_ok_and(|length| length > LONGEST) {
        return Err(fault("the configuration is longer than 1 MiB; name the right file.".to_owned()));
    }
    String::from_utf8(content).map_err(|_| fault("the configuration is not UTF-8 text.".to_owned()))
}

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
    /// Names that `Host` may hold on the page, besides IP literals and `localhost`.
    pub link_hosts: Vec<String>,
    /// Probes and metrics.
    pub ops_listen: Address,
    /// As `link_hosts`, for probes and metrics.
    pub ops_hosts: Vec<String>,
    /// `control.sock` lives here.
    pub state_dir: PathBuf,
    /// Where logins are stored.
    pub vault: VaultSettings,
    /// The accounts, in the order of the file.
    pub accounts: Vec<AccountConfig>,
    /// Connections to providers.
    pub upstream: UpstreamSettings,
    /// Limits of clients.
    pub limits: ServerLimits,
    /// The ceiling of the process's resident memory, in bytes.
    pub memory: usize,
    /// The largest body of a request.
    pub body_bytes: u64,
    /// How much of a body is buffered for a retry; 0: no request is retried.
    pub replay_bytes: usize,
    /// Threads for connections, 1 or more; file access has its own threads.
    pub io_threads: usize,
    /// The process is limited to the TCP ports that the configuration names, where the kernel can.
    pub limit_network: bool,
    /// Keys that were removed and are ignored, and a file that a group may change.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// Logs the warnings, each with its position.
    pub fn log_warnings(&self) {
        for warning in &self.warnings {
            let at = warning.place().map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
            tracing::warn!("{}{at}: {}", warning.file(), warning.message());
        }
    }

    /// A fault that is found only when the configuration is applied, with its position. `path` is the key, outermost first; it may
    /// be longer than what is written.
    pub fn fault(&self, path: &[String], predicate: &str) -> Faults {
        let file = self.file.as_deref();
        let text = file.map_or_else(|| Ok(shipped::CONFIGURATION.to_owned()), read).unwrap_or_default();
        let name = file.map_or_else(|| shipped::CONFIGURATION_NAME.to_owned(), |file| file.display().to_string());
        state_dir::fault(name, text, path, predicate)
    }
}

/// Where agents connect.
#[derive(Debug, Clone)]
pub struct AgentListener {
    /// The address.
    pub address: Address,
    /// Bound to one account: then its paths have no account prefix.
    pub account: Option<AccountName>,
    /// Which users may connect, if it is a Unix socket.
    pub access: Access,
    /// Names that `Host` may hold, besides IP literals and `localhost`.
    pub hosts: Vec<String>,
}

/// One account.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// Its name, the first segment of the agent's path.
    pub name: AccountName,
    /// The profile, with the changes of the account applied.
    pub profile: Arc<Profile>,
    /// The person has read and accepted the provider's terms.
    pub accept_terms: bool,
}

/// The largest configuration file, in bytes.
const LONGEST: u64 = 1024 * 1024;
