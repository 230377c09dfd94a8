//! Puts a running Pixy together from its configuration, and takes it down again. The one place that knows all parts.

mod listeners;
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
use crate::hardening::{PeerAudit, Places};
use crate::link::Linker;
use crate::link::api;
use crate::link::guard::Guard;
use crate::metrics::Metrics;
use crate::oauth::profile::TermsStatus;
use crate::ops::Ops;
use crate::proxy;
use crate::proxy::agent::Agents;
use crate::server::{self, Address};
use crate::upstream::{RootsError, Upstream};
use crate::vault::{self, Vault, VaultError};

use endpoints::Endpoints;
use listeners::{Listeners, Prepared, Services};
use reload::Reloading;
pub use reload::Watched;

/// A refresh under way is waited for this long: longer than the token endpoint may take.
const LAST_REFRESH: Duration = Duration::from_secs(35);

/// Why Pixy did not start.
#[derive(Debug)]
pub enum StartError {
    /// The directory of the control socket.
    StateDir(PathBuf, io::Error),
    /// Where logins are kept.
    Vault(VaultError),
    /// The trusted roots.
    Roots(RootsError),
    /// A listener.
    Bind {
        /// Which surface: "agents", "the page", …
        surface: &'static str,
        /// Where.
        address: Address,
        /// Why not.
        source: io::Error,
    },
}

/// A Pixy that serves: its addresses, as the system gave them.
pub struct Running {
    /// Where agents connect.
    pub agents: Vec<Address>,
    /// The page, if it is on.
    pub page: Option<Address>,
    /// Probes and metrics.
    pub ops: Address,
    /// The control socket.
    pub control: PathBuf,
    /// The accounts.
    pub book: Accounts,
    listeners: Listeners,
    keepers: JoinSet<()>,
    shutdown: watch::Sender<bool>,
    going_down: watch::Receiver<bool>,
    reloading: Reloading,
    /// Locked for as long as this Pixy runs, accounts or none.
    _vault: Vault,
}

/// Where the files of this configuration are. Directories that are missing are made now, for only what exists can be allowed;
/// why one cannot be made is told by [`start`].
pub fn places(config: &Config) -> Places {
    let _ = make_state_dir(&config.state_dir);
    let _ = vault::make_directories(&config.vault);
    let mut places = Places { changed: vec![config.state_dir.clone()], ..Places::default() };
    match &config.vault.store {
        vault::StoreSettings::Files(directory) => places.changed.push(directory.clone()),
        vault::StoreSettings::Postgres { url_file } => places.read.push(url_file.clone()),
    }
    match &config.vault.key {
        // Made and rotated beside the old one, or beside what the path points to.
        vault::KeySettings::File(file) => {
            let real = file.canonicalize().ok();
            places.changed.extend([Some(file), real.as_ref()].into_iter().flatten().filter_map(|file| directory(file)));
        }
        vault::KeySettings::Passphrase(file) => places.read.push(file.clone()),
    }
    let listeners = config.agent_listeners.iter().map(|listener| &listener.address);
    for address in listeners.chain(&config.link_listen).chain([&config.ops_listen]) {
        if let Address::Unix(path) = address {
            places.sockets.extend(directory(path));
        }
    }
    places.read.extend(config.agent_keys.iter().filter_map(|key| key.key_file.clone()));
    places.read.extend(config.file.iter().chain(&config.upstream.extra_ca_file).cloned());
    places
}

/// Starts everything, or nothing: every address is bound before the first connection is accepted.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_beside(config, PeerAudit::new()).await
}

/// As [`start`], with what was opened before the process was confined.
pub async fn start_beside(config: Config, neighbours: PeerAudit) -> Result<Running, StartError> {
    make_state_dir(&config.state_dir)?;
    let vault = Vault::open(&config.vault).map_err(StartError::Vault)?;
    let upstream = Upstream::new(&config.upstream).map_err(StartError::Roots)?;
    upstream.warm_up();
    let (clock, metrics) = (Clock::default(), Arc::new(Metrics::new()));
    let (shutdown, going_down) = watch::channel(false);
    let (changes, seen) = watch::channel(0);

    let prepared = listeners::prepare(&[], &config).await.map_err(|unbound| unbound.error)?;
    let signs = Endpoints::new(&config, &prepared);

    let shared = account::AccountServices {
        vault: vault.clone(),
        upstream: upstream.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        changes: changes.clone(),
    };
    let book = Accounts::default();
    let mut keepers = JoinSet::new();
    book.serve(config.accounts.iter().map(wanted).collect(), &shared, &mut keepers, &going_down);

    let page = Arc::clone(&signs.page);
    let linker = Linker::new(book.clone(), upstream.clone(), clock.clone(), Arc::clone(&page), changes);
    let (problem, problem_seen) = watch::channel(None);
    let door = signs.clone();
    let link = Arc::new(api::LinkServices {
        linker: Arc::new(linker),
        guard: Guard::new(clock.clone()),
        door: Box::new(move |account| door.door(account)),
        facts: Arc::clone(&signs.facts),
        page,
        changes: seen,
        problem: problem_seen,
    });
    let proxy_parts = Arc::new(proxy::ProxyServices {
        book: book.clone(),
        agents: Agents::new(config.agent_keys.clone(), clock.clone()),
        upstream,
        metrics: Arc::clone(&metrics),
        limits: ArcSwap::from_pointee(proxy_limits(&config)),
    });

    let services = Services {
        proxy: Arc::clone(&proxy_parts),
        link,
        ops: Ops { book: book.clone(), metrics: Arc::clone(&metrics), clock, shutdown: going_down.clone() },
        neighbours: Arc::new(neighbours),
        metrics,
    };
    let mut running = Running {
        agents: Vec::new(),
        page: None,
        ops: config.ops_listen.clone(),
        control: config.state_dir.join("control.sock"),
        book,
        listeners: Listeners::new(services, config.limits),
        keepers,
        shutdown,
        going_down,
        reloading: Reloading { config, shared, proxy: proxy_parts, signs, problem },
        _vault: vault,
    };
    let limits = running.reloading.config.limits;
    running.listen(prepared, limits).await;
    Ok(running)
}

impl Running {
    /// Stops accepting, lets streams and a refresh under way finish, and says if a refresh could not.
    pub async fn stop(mut self) -> Result<(), &'static str> {
        self.shutdown.send_replace(true);
        let surfaces = self.listeners.go_down();
        let keepers = async {
            let all = async { while self.keepers.join_next().await.is_some() {} };
            tokio::time::timeout(LAST_REFRESH, all).await
        };
        let ended = tokio::join!(surfaces, keepers);
        match ended {
            ((), Ok(())) => Ok(()),
            ((), Err(_)) => Err("a refresh did not end in time: at the next start its token is tried once more"),
        }
    }

    async fn listen(&mut self, prepared: Prepared, limits: server::Limits) {
        self.agents = prepared.agents().map(|(_, address)| address.clone()).collect();
        self.page = prepared.page().cloned();
        if let Some(ops) = prepared.ops() {
            self.ops = ops.clone();
        }
        self.listeners.take_up(prepared, limits).await;
    }
}

fn make_state_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| StartError::StateDir(path.to_owned(), error))
}

fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

fn proxy_limits(config: &Config) -> proxy::Limits {
    proxy::Limits {
        body_bytes: config.body_bytes,
        replay_bytes: config.replay_bytes,
        idle_time: config.limits.idle_time,
    }
}

fn wanted(account: &AccountConfig) -> AccountSettings {
    let terms_accepted = account.accept_terms || account.profile.terms.status == TermsStatus::Open;
    AccountSettings { name: account.name.clone(), profile: Arc::clone(&account.profile), terms_accepted }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateDir(path, error) => write!(
                f,
                "the state directory {} cannot be made ({error}); set `state_dir` to a place that Pixy may write",
                path.display()
            ),
            Self::Vault(error) => write!(f, "{error}"),
            Self::Roots(error) => write!(f, "{error}"),
            Self::Bind { surface, address, source } if source.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "{address}, the address for {surface}, is held by another program. Pixy takes no other port by itself: \
                 whoever holds this one could pass for Pixy. Find it (`ss -ltnp`), or set another address in the configuration"
            ),
            Self::Bind { surface, address, source } => {
                write!(f, "{address}, the address for {surface}, cannot be listened on: {source}")
            }
        }
    }
}

impl std::error::Error for StartError {}
