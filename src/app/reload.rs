//! Reload: applies a changed configuration while Pixy runs, all of it or nothing.
//!
//! Agent keys and accounts apply to new requests, limits to new connections, and listeners as `listeners` says. Requests under way
//! are not disturbed. Settings that are used once at the start, or that need a lock or a path that the process has closed to
//! itself, need a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::task::JoinError;
use zeroize::Zeroizing;

use super::bind_error::BindError;
use super::endpoints::Endpoints;
use super::listeners::BoundListeners;
use super::{Running, account_settings, body_limits, ports};
use crate::account;
use crate::config::{self, Config, Env, Faults};
use crate::hardening::AllowedPorts;
use crate::proxy;
use crate::server::Address;

/// Polling interval for changed files. Polled because inotify does not see every change: a mounted directory is replaced by
/// a symbolic link, and network file systems send no events.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What a reload reads and changes.
pub(super) struct ReloadState {
    pub(super) config: Config,
    pub(super) shared: account::AccountServices,
    pub(super) proxy: Arc<proxy::ProxyServices>,
    pub(super) endpoints: Endpoints,
    /// The ports that the process is limited to, if it is.
    pub(super) ports: Option<AllowedPorts>,
    /// Why the last reload failed; `None` if it succeeded.
    pub(super) problem: watch::Sender<Option<String>>,
}

/// Polls files for changed content.
pub struct WatchedFiles {
    files: Vec<PathBuf>,
    digests: Vec<Option<[u8; 32]>>,
}

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// Pixy was started without a configuration file.
    NoFile,
    /// The task that reads the file failed.
    ReadTask(JoinError),
    /// The file, or a key file, is missing or faulty.
    BadFile(Faults),
    /// These settings changed, in the words of the file.
    NeedsRestart(Vec<String>),
    /// A new listener cannot be bound.
    NotBound {
        /// Where the file configures it, and why it cannot be bound.
        fault: Faults,
        /// A Unix socket in a directory that Landlock does not allow.
        denied: bool,
    },
}

impl Running {
    /// Reads the configuration again and applies it. The outcome is logged, counted, and shown by `pixy status`.
    ///
    /// # Errors
    /// The file is faulty, a change needs a restart, or a new listener cannot be bound; then nothing has changed.
    pub async fn reload(&mut self, env: &Env) -> Result<(), ReloadError> {
        let outcome = self.try_reload(env).await;
        let ReloadState { shared, problem, .. } = &self.reload;
        match &outcome {
            Ok(()) => {
                shared.metrics.record_reload("taken_up", Some(shared.clock.wall().as_seconds()));
                tracing::info!("the configuration was reloaded");
            }
            Err(error) => {
                shared.metrics.record_reload(error.outcome(), None);
                tracing::error!("the configuration was not reloaded: {error}");
            }
        }
        problem.send_replace(outcome.as_ref().err().map(ToString::to_string));
        outcome
    }

    /// The configuration file and the agents' key files.
    pub fn watched_files(&self) -> WatchedFiles {
        let config = &self.reload.config;
        let keys = config.agent_keys.iter().filter_map(|key| key.key_file.clone());
        WatchedFiles::new(config.file.iter().cloned().chain(keys).collect())
    }

    async fn try_reload(&mut self, env: &Env) -> Result<(), ReloadError> {
        let file = self.reload.config.file.clone().ok_or(ReloadError::NoFile)?;
        let env = env.clone();
        // In a blocking thread: a mounted directory may be slow.
        let read = tokio::task::spawn_blocking(move || config::load_with(Some(&file), &env)).await;
        let config = read.map_err(ReloadError::ReadTask)?.map_err(ReloadError::BadFile)?;
        let changes = self.changes_that_need_a_restart(&config);
        if !changes.is_empty() {
            return Err(ReloadError::NeedsRestart(changes));
        }
        let bound = self.listeners.bind(&config).await.map_err(|error| ReloadError::not_bound(&config, &error))?;
        config.log_warnings();
        self.apply(config, bound).await;
        Ok(())
    }

    /// Cannot fail.
    async fn apply(&mut self, config: Config, bound: BoundListeners) {
        let Self { reload, accounts, account_tasks, shutdown_signal, .. } = self;
        let removed =
            reload.config.accounts.iter().filter(|old| config.accounts.iter().all(|new| new.name != old.name));
        let removed: Vec<_> = removed.map(|account| account.name.clone()).collect();
        // Keys before accounts: a key that lost an account must not be able to use one that is added under the same name.
        reload.proxy.agents.replace(config.agent_keys.clone());
        reload.proxy.limits.store(Arc::new(body_limits(&config)));
        reload.endpoints.replace(&config, &bound);
        let served = config.accounts.iter().map(account_settings).collect();
        accounts.serve(served, &reload.shared, account_tasks, shutdown_signal);
        for name in &removed {
            reload.shared.metrics.remove_account(name);
        }
        reload.config = config;
        self.apply_listeners(bound).await;
    }

    /// In the words of the file.
    fn changes_that_need_a_restart(&self, new: &Config) -> Vec<String> {
        let old = &self.reload.config;
        let settings = [
            ("`state_dir`", old.state_dir != new.state_dir),
            ("`vault`", old.vault != new.vault),
            ("`upstream`", old.upstream != new.upstream),
            ("`limits.io_threads`", old.io_threads != new.io_threads),
            ("`hardening`", old.limit_network != new.limit_network),
        ];
        let mut changes: Vec<String> =
            settings.iter().filter(|(_, differs)| *differs).map(|(setting, _)| (*setting).to_owned()).collect();
        for account in &new.accounts {
            let Some(known) = self.accounts.known(&account.name) else { continue };
            if known.profile().provider != account.profile.provider {
                // Its stored login, and an attempt to link it, belong to the old provider.
                changes.push(format!("the provider of the account {} (or give it another name)", account.name));
            }
        }
        changes.extend(self.listeners.changed_in_place(new));
        if let Some(allowed) = &self.reload.ports {
            changes.extend(allowed.lacking(&ports::allowed_ports(new)));
        }
        changes
    }
}

impl ReloadError {
    /// The label of `pixy_config_reloads_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::NoFile | Self::NeedsRestart(_) => "restart",
            Self::ReadTask(_) | Self::BadFile(_) => "bad_file",
            Self::NotBound { .. } => "not_bound",
        }
    }

    fn not_bound(config: &Config, error: &BindError) -> Self {
        Self::NotBound {
            fault: config.fault(&error.key, &format!("cannot be applied: {error}")),
            denied: matches!(error.address, Address::Unix(_)) && error.source.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = |f: &mut fmt::Formatter<'_>, what: &str| {
            write!(
                f,
                "\nA {what} in a directory that the configuration did not name at the start is closed to Pixy: that needs a restart."
            )
        };
        match self {
            Self::NoFile => write!(f, "Pixy runs without a configuration file; to use one needs a restart."),
            Self::ReadTask(error) => write!(f, "The configuration could not be read: {error}. {SENTENCE}"),
            Self::NeedsRestart(changes) => {
                write!(f, "What is changed needs a restart of Pixy: {}. {SENTENCE}", changes.join(", "))
            }
            Self::BadFile(faults) => {
                write!(f, "{}", faults.with_consequence(CLAUSE))?;
                let denied = faults.iter().any(|fault| fault.message().contains("permission denied"));
                if denied { closed(f, "file") } else { Ok(()) }
            }
            Self::NotBound { fault, denied } => {
                write!(f, "{}", fault.with_consequence(CLAUSE))?;
                if *denied { closed(f, "socket") } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for ReloadError {}

impl WatchedFiles {
    /// With their current content.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let digests = digests(&files);
        Self { files, digests }
    }

    /// Takes the content of files that `before` also watched from there: a change since then is still reported.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (file, digest) in self.files.iter().zip(&mut self.digests) {
            if let Some(at) = before.files.iter().position(|other| other == file) {
                *digest = before.digests[at];
            }
        }
        self
    }

    /// Resolves when the content has changed and then stayed the same for one interval: an editor may be writing. Cancel safe.
    pub async fn changed(&mut self) {
        let mut previous = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let files = self.files.clone();
            let Ok(current) = tokio::task::spawn_blocking(move || digests(&files)).await else { continue };
            if current != self.digests && previous.as_ref() == Some(&current) {
                self.digests = current;
                return;
            }
            previous = Some(current);
        }
    }
}

fn digests(files: &[PathBuf]) -> Vec<Option<[u8; 32]>> {
    files.iter().map(|file| digest(file)).collect()
}

/// `None` if the file cannot be read.
fn digest(file: &Path) -> Option<[u8; 32]> {
    use std::io::Read as _;
    // Checked before opening: opening a named pipe blocks until there is a writer.
    if !std::fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut content = Zeroizing::new(Vec::new());
    std::fs::File::open(file).ok()?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).ok()?;
    Some(Sha256::digest(&*content).into())
}

/// Closes the list of faults.
const CLAUSE: &str = "the configuration before stays in force";

const SENTENCE: &str = "The configuration before stays in force.";

/// A longer file is no valid configuration; changes beyond this length are not noticed.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
