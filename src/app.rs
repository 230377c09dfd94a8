//! Puts a running Pixy together from its configuration, and takes it down again. The one place that knows all parts.

mod reload;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::account::{self, Account, Book, Wanted};
use crate::clock::Clock;
use crate::config::{AccountConfig, Config};
use crate::hardening::{Neighbours, Places};
use crate::link::api::{self, LinkApi, Surface};
use crate::link::guard::Guard;
use crate::link::{Door, Facts, Key, Linker};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::oauth::profile::TermsStatus;
use crate::ops::Ops;
use crate::proxy::agent::Agents;
use crate::proxy::{self, Proxy};
use crate::server::{self, Access, Address, Capacity, Listener, Peer, Share};
use crate::traces::Traces;
use crate::upstream::{RootsError, Upstream};
use crate::vault::{self, Vault, VaultError};

use reload::Reloading;
pub use reload::Watched;

/// Of the page, the control socket and the probes: calls that take milliseconds.
const BRIEF_DRAIN: Duration = Duration::from_secs(1);

/// Connections of each surface but the agents'.
const OTHER_CONNECTIONS: usize = 64;

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
    pub book: Book,
    surfaces: JoinSet<()>,
    keepers: JoinSet<()>,
    shutdown: watch::Sender<bool>,
    going_down: watch::Receiver<bool>,
    reloading: Reloading,
    traces: Traces,
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
    start_beside(config, Neighbours::new()).await
}

/// As [`start`], with what was opened before the process was confined.
pub async fn start_beside(config: Config, neighbours: Neighbours) -> Result<Running, StartError> {
    make_state_dir(&config.state_dir)?;
    let vault = Vault::open(&config.vault).map_err(StartError::Vault)?;
    let upstream = Upstream::new(&config.upstream).map_err(StartError::Roots)?;
    upstream.warm_up();
    let (clock, metrics) = (Clock::default(), Arc::new(Metrics::new()));
    let traces = Traces::start(&config.traces, &upstream, &metrics);
    let (shutdown, going_down) = watch::channel(false);
    let (changes, seen) = watch::channel(0);

    let control = config.state_dir.join("control.sock");
    let control_listener = bind("the control socket", &Address::Unix(control.clone())).await?;
    let mut agent_listeners = Vec::new();
    for listener in &config.agent_listeners {
        let socket = bind_for("agents", &listener.address, listener.access).await?;
        agent_listeners.push((socket, listener.account.clone()));
    }
    let page_listener = match &config.link_listen {
        Some(address) => Some(bind("the page", address).await?),
        None => None,
    };
    let ops_listener = bind("probes and metrics", &config.ops_listen).await?;
    let agents: Vec<Address> = agent_listeners.iter().map(|(listener, _)| listener.address().clone()).collect();
    let page = page_listener.as_ref().map(|listener| listener.address().clone());
    let ops = ops_listener.address().clone();

    let shared = account::Parts {
        vault: vault.clone(),
        upstream: upstream.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(&metrics),
        changes: changes.clone(),
    };
    let book = Book::default();
    let mut keepers = JoinSet::new();
    book.serve(config.accounts.iter().map(wanted).collect(), &shared, &mut keepers, &going_down);

    let linker = Linker::new(book.clone(), upstream.clone(), clock.clone(), page.clone(), changes);
    let keys = Arc::new(ArcSwap::from_pointee(door_keys(&config)));
    let (problem, problem_seen) = watch::channel(None);
    let link_parts = Arc::new(api::Parts {
        linker: Arc::new(linker),
        guard: Guard::new(clock.clone()),
        door: Box::new(doors(&config, &agents, Arc::clone(&keys))),
        facts: facts(&config, &agents, page.as_ref()),
        page: page.clone(),
        changes: seen,
        problem: problem_seen,
    });
    let proxy_parts = Arc::new(proxy::Parts {
        book: book.clone(),
        agents: Agents::new(config.agent_keys.clone(), clock.clone()),
        upstream,
        metrics: Arc::clone(&metrics),
        traces: traces.clone(),
        limits: ArcSwap::from_pointee(proxy_limits(&config)),
    });

    let neighbours = Arc::new(neighbours);
    let mut surfaces = JoinSet::new();
    let share = share(config.limits.connections);
    let (limits, agents_capacity) = (config.limits, Capacity::new(share.agents));
    let brief = server::Limits { drain_time: limits.drain_time.min(BRIEF_DRAIN), ..limits };
    let own = || Capacity::new(share.others);
    for (listener, bound) in agent_listeners {
        let proxy = Proxy::new(Arc::clone(&proxy_parts), bound);
        let (neighbours, metrics) = (Arc::clone(&neighbours), Arc::clone(&metrics));
        let proxy = tower::service_fn(move |request: http::Request<_>| {
            let (proxy, neighbours, metrics) = (proxy.clone(), Arc::clone(&neighbours), Arc::clone(&metrics));
            async move {
                if let Some(&peer) = request.extensions().get::<Peer>() {
                    neighbours.look(peer, &metrics).await;
                }
                proxy.oneshot(request).await
            }
        });
        surfaces.spawn(server::serve(listener, limits, agents_capacity.clone(), proxy, going_down.clone()));
    }
    if let Some(listener) = page_listener {
        let page = LinkApi::new(Arc::clone(&link_parts), Surface::Page);
        surfaces.spawn(server::serve(listener, brief, own(), page, going_down.clone()));
    }
    let control_api = LinkApi::new(link_parts, Surface::Control);
    surfaces.spawn(server::serve(control_listener, brief, own(), control_api, going_down.clone()));
    let probes = Ops { book: book.clone(), metrics, clock, shutdown: going_down.clone() };
    surfaces.spawn(server::serve(ops_listener, brief, own(), probes, going_down.clone()));
    let reloading = Reloading { config, shared, proxy: proxy_parts, keys, problem };

    Ok(Running {
        agents,
        page,
        ops,
        control,
        book,
        surfaces,
        keepers,
        shutdown,
        going_down,
        reloading,
        traces,
        _vault: vault,
    })
}

impl Running {
    /// Stops accepting, lets streams and a refresh under way finish, and says if a refresh could not.
    pub async fn stop(mut self) -> Result<(), &'static str> {
        self.shutdown.send_replace(true);
        let surfaces = async { while self.surfaces.join_next().await.is_some() {} };
        let keepers = async {
            let all = async { while self.keepers.join_next().await.is_some() {} };
            tokio::time::timeout(LAST_REFRESH, all).await
        };
        let ended = tokio::join!(surfaces, keepers);
        self.traces.finish().await;
        match ended {
            ((), Ok(())) => Ok(()),
            ((), Err(_)) => Err("a refresh did not end in time: at the next start its token is tried once more"),
        }
    }
}

async fn bind(surface: &'static str, address: &Address) -> Result<Listener, StartError> {
    bind_for(surface, address, Access::Owner).await
}

async fn bind_for(surface: &'static str, address: &Address, access: Access) -> Result<Listener, StartError> {
    let fault = |source| StartError::Bind { surface, address: address.clone(), source };
    Listener::bind_for(address, access).await.map_err(fault)
}

/// How many connections each surface may have, with a word when that is less than was asked for.
fn share(connections: usize) -> Share {
    let share = server::share(connections, OTHER_CONNECTIONS);
    if share.agents < connections {
        tracing::warn!(
            configured = connections,
            connections = share.agents,
            "fewer connections than `limits.connections`: the system's limit of open files (ulimit -n) allows no more"
        );
    }
    share
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

/// What agents' keys open, and the files that they are in.
type DoorKeys = Vec<(Vec<AccountName>, Option<PathBuf>)>;

fn door_keys(config: &Config) -> DoorKeys {
    config.agent_keys.iter().map(|key| (key.accounts.clone(), key.key_file.clone())).collect()
}

fn proxy_limits(config: &Config) -> proxy::Limits {
    proxy::Limits {
        body_bytes: config.body_bytes,
        replay_bytes: config.replay_bytes,
        idle_time: config.limits.idle_time,
    }
}

fn wanted(account: &AccountConfig) -> Wanted {
    let terms_accepted = account.accept_terms || account.profile.terms.status == TermsStatus::Open;
    Wanted { name: account.name.clone(), profile: Arc::clone(&account.profile), terms_accepted }
}

/// Where each account's agents connect: a listener bound to the account first, then one for all.
fn doors(
    config: &Config,
    agents: &[Address],
    keys: Arc<ArcSwap<DoorKeys>>,
) -> impl Fn(&Account) -> Door + Send + Sync + use<> {
    let listeners: Vec<_> =
        config.agent_listeners.iter().map(|listener| listener.account.clone()).zip(agents.iter().cloned()).collect();
    move |account| {
        let bound = listeners.iter().find(|(bound, _)| bound.as_ref() == Some(account.name()));
        let open = || listeners.iter().find(|(bound, _)| bound.is_none());
        let fallback = || Address::Tcp(([127, 0, 0, 1], 8700).into());
        let address = bound.or_else(open).map_or_else(fallback, |(_, address)| address.clone());
        let keys = keys.load();
        let key = match keys.iter().find(|(accounts, _)| accounts.contains(account.name())) {
            None => Key::Any,
            Some((_, Some(file))) => Key::File(file.clone()),
            Some((_, None)) => Key::Known,
        };
        Door { address, bound: bound.is_some(), key }
    }
}

fn facts(config: &Config, agents: &[Address], page: Option<&Address>) -> Facts {
    let store = match &config.vault.store {
        vault::StoreSettings::Files(path) => path.display().to_string(),
        vault::StoreSettings::Postgres { .. } => "PostgreSQL".to_owned(),
    };
    Facts {
        version: crate::VERSION,
        agent_addresses: agents.iter().map(ToString::to_string).collect(),
        store,
        port: page.and_then(|address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }),
    }
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
