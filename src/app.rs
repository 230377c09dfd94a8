//! Builds a running Pixy from its configuration, and shuts it down. The one module that knows all components.

mod bind_error;
mod clients;
mod listeners;
mod ports;
mod reload;
mod endpoints;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::account::{self, AccountSettings, Accounts};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config};
use crate::hardening::{AllowedPaths, AllowedPorts, PeerAudit};
use crate::link::Linker;
use crate::link::api;
use crate::link::authentication::Guard;
use crate::metrics::Metrics;
use crate::oauth::profile::TermsStatus;
use crate::ops::Ops;
use crate::proxy;
use crate::proxy::BodyLimits;
use crate::proxy::agent::Agents;
use crate::server::{Address, Capacity, PassedSocket};
use crate::upstream::{RootsError, Upstream};
use crate::vault::{self, Vault, VaultError};

pub use bind_error::BindError;
use clients::Clients;
pub use clients::capacity;
use endpoints::Endpoints;
use listeners::{BoundListeners, Listeners, Services};
pub use ports::allowed_ports;
use reload::ReloadState;
pub use reload::{ReloadError, WatchedFiles};

/// How long a shutdown waits for a refresh under way: longer than the timeout of a token request.
const REFRESH_DRAIN: Duration = Duration::from_secs(35);

/// Why Pixy did not start.
#[derive(Debug)]
pub enum StartError {
    /// The directory of the control socket.
    StateDir(PathBuf, io::Error),
    /// It is a symbolic link, which may lead elsewhere later.
    StateDirIsLink(PathBuf),
    /// The vault.
    Vault(VaultError),
    /// The trusted roots.
    Roots(RootsError),
    /// A listener.
    Bind(BindError),
    /// A socket of the service manager has the address of no listener.
    UnusedSocket(Address),
}

/// What was prepared in the process before it was confined.
pub struct Process {
    /// Reads tables of the kernel.
    pub peer_audit: PeerAudit,
    /// Sockets of the service manager.
    pub passed: Vec<PassedSocket>,
    /// The ports that the process is limited to, if it is.
    pub ports: Option<AllowedPorts>,
    /// Resident memory in bytes; `None` if the process is not Pixy's alone.
    pub resident: Option<usize>,
}

impl Default for Process {
    fn default() -> Self {
        Self { peer_audit: PeerAudit::open(), passed: Vec::new(), ports: None, resident: None }
    }
}

/// A refresh did not end within the time that a shutdown waits for it.
#[derive(Debug)]
pub struct RefreshNotFinished;

/// A Pixy that serves, with its bound addresses.
pub struct Running {
    /// The agent listeners, in the order of the file.
    pub agents: Vec<Address>,
    /// The page; `None` while it is off.
    pub page: Option<Address>,
    /// Probes and metrics.
    pub ops: Address,
    /// The control socket.
    pub control: PathBuf,
    /// The accounts.
    pub accounts: Accounts,
    listeners: Listeners,
    account_tasks: JoinSet<()>,
    shutdown: watch::Sender<bool>,
    shutdown_signal: watch::Receiver<bool>,
    reload: ReloadState,
    /// Keeps the vault locked as long as this Pixy runs, even without accounts.
    _vault: Vault,
}

/// The paths that this configuration needs. Creates missing directories, because Landlock can only allow paths that exist;
/// [`start`] reports a directory that cannot be created.
pub fn allowed_paths(config: &Config) -> AllowedPaths {
    let _ = make_state_dir(&config.state_dir);
    let _ = vault::make_directories(&config.vault);
    let written = vec![config.state_dir.clone(), config.vault.directory.clone()];
    let mut paths = AllowedPaths { written, ..AllowedPaths::default() };
    match &config.vault.key {
        // A new key is written to the directory of the old one, or of the target of a symbolic link.
        vault::KeySettings::File(file) => {
            let real = file.canonicalize().ok();
            paths.written.extend([Some(file), real.as_ref()].into_iter().flatten().filter_map(|file| directory(file)));
        }
        vault::KeySettings::Passphrase(file) => paths.read.push(file.clone()),
    }
    let listeners = config.agent_listeners.iter().map(|listener| &listener.address);
    for address in listeners.chain(&config.link_listen).chain([&config.ops_listen]) {
        if let Address::Unix(path) = address {
            paths.sockets.extend(directory(path));
        }
    }
    paths.read.extend(config.agent_keys.iter().filter_map(|key| key.key_file.clone()));
    paths.read.extend(config.file.iter().chain(&config.upstream.extra_ca_file).cloned());
    paths
}

/// Bytes of this process that are in memory (proc_pid_status(5)).
pub fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib * 1024)
}

/// Starts all components or none: every address is bound before the first connection is accepted.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_with(config, Process::default()).await
}

/// As [`start`], in a process that was prepared for it.
pub async fn start_with(config: Config, process: Process) -> Result<Running, StartError> {
    let Process { peer_audit, mut passed, ports, resident } = process;
    make_state_dir(&config.state_dir)?;
    let vault = Vault::open(&config.vault).map_err(StartError::Vault)?;
    let upstream = Upstream::new(&config.upstream).map_err(StartError::Roots)?;
    upstream.warm_up();
    let (clock, metrics) = (Clock::default(), Arc::new(Metrics::new()));
    let (shutdown, shutdown_signal) = watch::channel(false);
    let (changes, change_receiver) = watch::channel(0);

    let bound = listeners::bind(&[], &config, &mut passed).await.map_err(StartError::Bind)?;
    if let Some(unused) = passed.first() {
        return Err(StartError::UnusedSocket(unused.address().clone()));
    }
    let endpoints = Endpoints::new(&config, &bound);

    let shared = account::AccountServices {
        vault: vault.clone(),
        upstream: upstream.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        changes,
    };
    let accounts = Accounts::default();
    let mut account_tasks = JoinSet::new();
    let settings = config.accounts.iter().map(account_settings).collect();
    accounts.serve(settings, &shared, &mut account_tasks, &shutdown_signal);

    let clients = Clients::new(&config, resident);
    vault::reserve_memory_in(clients.memory.clone());
    let (problem, shown_problem) = watch::channel(None);
    let link = link_services(&shared, &accounts, &endpoints, change_receiver, shown_problem);
    let proxy_services = Arc::new(proxy::ProxyServices {
        accounts: accounts.clone(),
        agents: Agents::new(config.agent_keys.clone(), clock.clone(), clients.agents.clone()),
        upstream,
        metrics: Arc::clone(&metrics),
        peer_audit: Arc::new(peer_audit),
        limits: ArcSwap::from_pointee(body_limits(&config)),
        memory: clients.variable.clone(),
    });

    let services = Services {
        proxy: Arc::clone(&proxy_services),
        link,
        ops: Ops { accounts: accounts.clone(), metrics, clock, shutdown: shutdown_signal.clone() },
    };
    let mut running = Running {
        agents: Vec::new(),
        page: None,
        ops: config.ops_listen.clone(),
        control: config.state_dir.join("control.sock"),
        accounts,
        listeners: Listeners::new(services, clients, config.limits),
        account_tasks,
        shutdown,
        shutdown_signal,
        reload: ReloadState { config, shared, proxy: proxy_services, endpoints, ports, problem },
        _vault: vault,
    };
    running.apply_listeners(bound).await;
    Ok(running)
}

impl Running {
    /// Stops accepting, and waits for streams and refreshes under way.
    ///
    /// # Errors
    /// A refresh did not end in time.
    pub async fn stop(mut self) -> Result<(), RefreshNotFinished> {
        self.shutdown.send_replace(true);
        let surfaces = self.listeners.shut_down();
        let account_tasks = async {
            let all = async { while self.account_tasks.join_next().await.is_some() {} };
            tokio::time::timeout(REFRESH_DRAIN, all).await
        };
        let ((), refreshed) = tokio::join!(surfaces, account_tasks);
        refreshed.map_err(|_| RefreshNotFinished)
    }

    /// How many connections fit.
    pub fn capacity(&self) -> Capacity {
        self.listeners.clients.capacity()
    }

    /// Serves these listeners, with the limits of the configuration.
    async fn apply_listeners(&mut self, bound: BoundListeners) {
        self.agents = bound.agents().map(|(_, address)| address.clone()).collect();
        self.page = bound.page().cloned();
        if let Some(ops) = bound.ops() {
            self.ops = ops.clone();
        }
        self.listeners.apply(bound, &self.reload.config).await;
    }
}

fn link_services(
    shared: &account::AccountServices,
    accounts: &Accounts,
    endpoints: &Endpoints,
    change_receiver: watch::Receiver<u64>,
    problem: watch::Receiver<Option<String>>,
) -> Arc<api::LinkServices> {
    let page = Arc::clone(&endpoints.page);
    let account::AccountServices { upstream, clock, changes, .. } = shared;
    let linker = Linker::new(accounts.clone(), upstream.clone(), clock.clone(), Arc::clone(&page), changes.clone());
    let agent_endpoints = endpoints.clone();
    Arc::new(api::LinkServices {
        linker: Arc::new(linker),
        guard: Guard::new(clock.clone()),
        endpoint_of: Box::new(move |account| agent_endpoints.of_account(account)),
        facts: Arc::clone(&endpoints.facts),
        page,
        changes: change_receiver,
        problem,
    })
}

fn make_state_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::StateDir(path.to_owned(), error))?;
    // Owner and mode are checked with the vault. Without a slash at its end, a link is seen as such.
    let itself: PathBuf = path.components().collect();
    match itself.symlink_metadata() {
        Ok(found) if found.is_symlink() => Err(StartError::StateDirIsLink(itself)),
        _ => Ok(()),
    }
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

fn body_limits(config: &Config) -> BodyLimits {
    BodyLimits { body_bytes: config.body_bytes, replay_bytes: config.replay_bytes, idle_time: config.limits.idle_time }
}

fn account_settings(account: &AccountConfig) -> AccountSettings {
    let terms_accepted = account.accept_terms || account.profile.terms.status == TermsStatus::Open;
    AccountSettings { name: account.name.clone(), profile: Arc::clone(&account.profile), terms_accepted }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateDir(path, error) => write!(
                f,
                "the state directory {} cannot be created ({error}); set `state_dir` to a directory that Pixy may write to",
                path.display()
            ),
            Self::StateDirIsLink(path) => write!(
                f,
                "the state directory {} is a symbolic link; set `state_dir` to the directory that it leads to",
                path.display()
            ),
            Self::Vault(error) => write!(f, "{error}"),
            Self::Roots(error) => write!(f, "{error}"),
            Self::Bind(error) => write!(f, "{error}"),
            Self::UnusedSocket(address) => write!(
                f,
                "the service manager passed a socket on {address}, but no listener of the configuration has this address: give \
                 one of `agent.listen`, `link.listen` and `ops.listen` the address of each `ListenStream=`"
            ),
        }
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for RefreshNotFinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a refresh did not end in time: the next start tries its token once more")
    }
}

impl std::error::Error for RefreshNotFinished {}
