//! The listeners of a running Pixy. A reload adds and removes them; one that changes in place needs a restart.
//!
//! [`bind`] binds every new listener, or fails and has changed nothing; [`Listeners::apply`] cannot fail. A listener whose
//! settings stay the same is left alone. A removed one closes its socket; its connections stay open until they end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::bind_error::BindError;
use super::clients::Clients;
use crate::config::Config;
use crate::link::api::{self, LinkApi, LinkSurface};
use crate::name::AccountName;
use crate::ops::Ops;
use crate::proxy::{self, Proxy};
use crate::server::{self, Access, Address, HostChecked, HostNames, Listener, PassedSocket, ServerLimits, Shutdown};

/// Longest drain of the page, the control socket and the probes: their calls take milliseconds.
const SHORT_DRAIN: Duration = Duration::from_secs(1);

/// The texts of the 421 for an unknown `Host`, of each surface.
const AGENT_HOSTS: &str = "Host is neither an IP address nor localhost, and no configured name: to allow it, set \
    `agent.listen: [ { address: ADDRESS, hosts: [NAME] } ]` in Pixy's configuration";
const PAGE_HOSTS: &str = "Host is neither an IP address nor localhost, and no configured name: to allow it, set \
    `link.hosts: [NAME]` in Pixy's configuration";
const OPS_HOSTS: &str = "Host is neither an IP address nor localhost, and no configured name: to allow it, set \
    `ops.hosts: [NAME]` in Pixy's configuration";

/// What answers on the listeners.
pub(super) struct Services {
    pub(super) proxy: Arc<proxy::ProxyServices>,
    pub(super) link: Arc<api::LinkServices>,
    pub(super) ops: Ops,
}

/// The listeners that serve now, and the connections of removed ones.
pub(super) struct Listeners {
    services: Services,
    open: Vec<OpenListener>,
    /// Of removed listeners that may still have connections.
    removed: Vec<watch::Sender<Shutdown>>,
    tasks: JoinSet<()>,
    agent_limits: watch::Sender<ServerLimits>,
    other_limits: watch::Sender<ServerLimits>,
    pub(super) clients: Clients,
}

pub(super) struct OpenListener {
    settings: ListenerSettings,
    address: Address,
    hosts: HostNames,
    shutdown: watch::Sender<Shutdown>,
    /// Resolves when the socket is closed.
    closed: oneshot::Receiver<()>,
    /// A service manager holds the socket too.
    is_passed: bool,
}

/// A listener as the configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ListenerSettings {
    role: ListenerRole,
    address: Address,
    access: Access,
}

/// A listener of the configuration. Other names need no other socket: `hosts` is replaced while it is open.
struct Configured {
    settings: ListenerSettings,
    hosts: Vec<String>,
}

/// The surface that a listener serves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ListenerRole {
    /// Bound to one account, or for all.
    Agents(Option<AccountName>),
    Page,
    Ops,
    Control,
}

/// All listeners of a configuration in the order of the file: those that stay open, and new ones that are bound but not served yet.
pub(super) struct BoundListeners(Vec<BoundListener>);

struct BoundListener {
    settings: ListenerSettings,
    hosts: Vec<String>,
    address: Address,
    /// `None` if a listener that is open stays.
    new: Option<Listener>,
    /// A service manager holds the socket too.
    is_passed: bool,
}

/// Binds each listener of `config` that is not among `open`, or takes the socket with its address from `passed`.
///
/// # Errors
/// The first listener that cannot be bound; then nothing has changed.
pub(super) async fn bind(
    open: &[OpenListener],
    config: &Config,
    passed: &mut Vec<PassedSocket>,
) -> Result<BoundListeners, BindError> {
    let mut listeners = Vec::new();
    for (at, (Configured { settings, hosts }, kept)) in match_open(open, config).into_iter().enumerate() {
        let passed = passed.iter().position(|socket| *socket.address() == settings.address).map(|at| passed.remove(at));
        let is_passed = passed.is_some() || kept.is_some_and(|kept| kept.is_passed);
        let (address, new) = if let Some(kept) = kept {
            (kept.address.clone(), None)
        } else {
            let bound = match passed {
                Some(passed) => Listener::from_passed(passed),
                None => Listener::bind_with_access(&settings.address, settings.access).await,
            };
            let listener = bound.map_err(|source| BindError {
                key: settings.role.key(at),
                surface: settings.role.name(),
                address: settings.address.clone(),
                source,
            })?;
            (listener.address().clone(), Some(listener))
        };
        listeners.push(BoundListener { settings, hosts, address, new, is_passed });
    }
    Ok(BoundListeners(listeners))
}

/// The configured listeners in the order of the file, agents first, each with the open one that has the same settings.
fn match_open<'a>(open: &'a [OpenListener], config: &Config) -> Vec<(Configured, Option<&'a OpenListener>)> {
    let configured = |role, address: &Address, access, hosts: &[String]| Configured {
        settings: ListenerSettings { role, address: address.clone(), access },
        hosts: hosts.to_vec(),
    };
    let own = |role, address: &Address, hosts: &[String]| configured(role, address, Access::Owner, hosts);
    let agents = config.agent_listeners.iter().map(|listener| {
        let role = ListenerRole::Agents(listener.account.clone());
        configured(role, &listener.address, listener.access, &listener.hosts)
    });
    let control = Address::Unix(config.state_dir.join("control.sock"));
    let all = agents
        .chain(config.link_listen.iter().map(|address| own(ListenerRole::Page, address, &config.link_hosts)))
        .chain([own(ListenerRole::Ops, &config.ops_listen, &config.ops_hosts)])
        .chain([own(ListenerRole::Control, &control, &[])]);
    // Several with port 0 may have the same settings: each open listener is matched once.
    let mut unmatched: Vec<&OpenListener> = open.iter().collect();
    let matched = all.map(|configured| {
        let at = unmatched.iter().position(|open| open.settings == configured.settings);
        (configured, at.map(|at| unmatched.remove(at)))
    });
    matched.collect()
}

/// Whether a socket on one address prevents the other from being bound. `[::]` includes IPv4.
fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let (a, b) = (one.ip(), other.ip());
            let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
            one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        _ => false,
    }
}

impl ListenerRole {
    fn name(&self) -> &'static str {
        match self {
            Self::Agents(_) => "agents",
            Self::Page => "the page",
            Self::Ops => "probes and metrics",
            Self::Control => "the control socket",
        }
    }

    /// The key of the configuration for the listener at this index of all, outermost first.
    fn key(&self, at: usize) -> Vec<String> {
        let mut key: Vec<String> = self.setting().split('.').map(str::to_owned).collect();
        if let Self::Agents(_) = self {
            key.extend([at.to_string(), "address".to_owned()]);
        }
        key
    }

    /// The same for a person, without the index: a single listener is written without a list.
    fn setting(&self) -> &'static str {
        match self {
            Self::Agents(_) => "agent.listen",
            Self::Page => "link.listen",
            Self::Ops => "ops.listen",
            Self::Control => "state_dir",
        }
    }
}

impl BoundListeners {
    /// Each agent listener: the account that it is bound to, and its address.
    pub(super) fn agents(&self) -> impl Iterator<Item = (Option<&AccountName>, &Address)> {
        self.0.iter().filter_map(|listener| match &listener.settings.role {
            ListenerRole::Agents(account) => Some((account.as_ref(), &listener.address)),
            ListenerRole::Page | ListenerRole::Ops | ListenerRole::Control => None,
        })
    }

    /// `None` while the page is off.
    pub(super) fn page(&self) -> Option<&Address> {
        self.address(&ListenerRole::Page)
    }

    pub(super) fn ops(&self) -> Option<&Address> {
        self.address(&ListenerRole::Ops)
    }

    fn address(&self, role: &ListenerRole) -> Option<&Address> {
        self.0.iter().find(|listener| listener.settings.role == *role).map(|listener| &listener.address)
    }
}

impl Listeners {
    /// Nothing is served yet.
    pub(super) fn new(services: Services, clients: Clients, limits: ServerLimits) -> Self {
        Self {
            services,
            open: Vec::new(),
            removed: Vec::new(),
            tasks: JoinSet::new(),
            agent_limits: watch::Sender::new(limits),
            other_limits: watch::Sender::new(with_short_drain(limits)),
            clients,
        }
    }

    /// As [`bind`], beside those that are open.
    pub(super) async fn bind(&self, config: &Config) -> Result<BoundListeners, BindError> {
        bind(&self.open, config, &mut Vec::new()).await
    }

    /// The listeners of `config` that cannot be bound while Pixy listens as it does: the same address with other settings, or one
    /// that overlaps. In the words of the file.
    pub(super) fn changed_in_place(&self, config: &Config) -> Vec<String> {
        let added = match_open(&self.open, config).into_iter().filter(|(_, kept)| kept.is_none());
        let changed = added.filter_map(|(Configured { settings, .. }, _)| {
            let held = self.open.iter().map(|open| &open.address).find(|held| overlap(held, &settings.address))?;
            Some(format!("`{}` {} (Pixy listens on {held})", settings.role.setting(), settings.address))
        });
        // Connections to a removed one would wait for ever.
        let kept: Vec<_> = match_open(&self.open, config).into_iter().filter_map(|(_, kept)| kept).collect();
        let is_removed = |open: &&OpenListener| open.is_passed && !kept.iter().any(|kept| std::ptr::eq(*kept, *open));
        let removed = self.open.iter().filter(is_removed).map(|open| {
            format!("`{}` {} (the service manager holds this socket)", open.settings.role.setting(), open.address)
        });
        changed.chain(removed).collect()
    }

    /// Serves these from now on, and new connections with these limits. When it returns, the sockets of removed listeners are closed.
    pub(super) async fn apply(&mut self, bound: BoundListeners, config: &Config) {
        self.change_limits(config);
        while self.tasks.try_join_next().is_some() {}
        self.removed.retain(|shutdown| !shutdown.is_closed());
        let mut before = std::mem::take(&mut self.open);
        for BoundListener { settings, hosts, address, new, is_passed } in bound.0 {
            let open = match (new, before.iter().position(|open| open.address == address)) {
                (Some(listener), _) => {
                    OpenListener { is_passed, ..self.serve(settings, HostNames::new(hosts), listener) }
                }
                (None, Some(at)) => {
                    let open = before.swap_remove(at);
                    open.hosts.replace(hosts);
                    open
                }
                (None, None) => continue, // `bind` found it among the open ones
            };
            self.open.push(open);
        }
        for removed in before {
            self.close(removed).await;
        }
    }

    /// Closes all listeners; resolves when all connections have ended, or their drain time is over.
    pub(super) async fn shut_down(&mut self) {
        for shutdown in self.open.iter().map(|open| &open.shutdown).chain(&self.removed) {
            shutdown.send_replace(Shutdown::Process);
        }
        while self.tasks.join_next().await.is_some() {}
    }

    async fn close(&mut self, listener: OpenListener) {
        // Connections of agents stay open until they end. Page streams are server-sent events without an end: they are closed.
        let is_agents = matches!(listener.settings.role, ListenerRole::Agents(_));
        listener.shutdown.send_replace(if is_agents { Shutdown::Listener } else { Shutdown::Process });
        let _ = listener.closed.await; // an error is the signal: the sender is dropped with the socket
        self.removed.push(listener.shutdown);
    }

    fn change_limits(&mut self, config: &Config) {
        self.agent_limits.send_replace(config.limits);
        self.other_limits.send_replace(with_short_drain(config.limits));
        let before = self.clients.capacity();
        self.clients.apply(config);
        if self.clients.capacity() != before || self.open.is_empty() {
            self.clients.report(config);
        }
    }

    fn serve(&mut self, settings: ListenerSettings, hosts: HostNames, mut listener: Listener) -> OpenListener {
        let (shutdown, ends) = watch::channel(Shutdown::No);
        let Self { services, tasks, clients, .. } = self;
        let (address, closed) = (listener.address().clone(), listener.closed());
        let limits = self.other_limits.subscribe();
        match &settings.role {
            ListenerRole::Agents(account) => {
                let local = address.is_local() && settings.access != Access::Everybody;
                let proxy = Proxy::new(Arc::clone(&services.proxy), account.clone(), local);
                let proxy = HostChecked::new(proxy, hosts.clone(), AGENT_HOSTS);
                let limits = self.agent_limits.subscribe();
                tasks.spawn(server::serve(listener, proxy, limits, clients.agents.clone(), ends));
            }
            ListenerRole::Page => {
                let page = LinkApi::new(Arc::clone(&services.link), LinkSurface::Page);
                let page = HostChecked::new(page, hosts.clone(), PAGE_HOSTS);
                tasks.spawn(server::serve(listener, page, limits, clients.page.clone(), ends));
            }
            ListenerRole::Control => {
                let control = LinkApi::new(Arc::clone(&services.link), LinkSurface::Control);
                tasks.spawn(server::serve(listener, control, limits, clients.control.clone(), ends));
            }
            ListenerRole::Ops => {
                let ops = HostChecked::new(services.ops.clone(), hosts.clone(), OPS_HOSTS);
                tasks.spawn(server::serve(listener, ops, limits, clients.ops.clone(), ends));
            }
        }
        OpenListener { settings, address, hosts, shutdown, closed, is_passed: false }
    }
}

fn with_short_drain(limits: ServerLimits) -> ServerLimits {
    ServerLimits { drain_time: limits.drain_time.min(SHORT_DRAIN), ..limits }
}
