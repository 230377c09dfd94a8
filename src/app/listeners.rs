//! The listeners of a running Pixy, which a new configuration may add, take away and change while streams go on.
//!
//! [`prepare`] binds all that is new, or fails and has changed nothing; [`Listeners::take_up`] cannot fail. A listener of which
//! nothing changes is left alone. One at the same place for another purpose, or with another mode, keeps its socket and is handed
//! over: no connection is missed, and those that came before are served as before until nothing is under way on them. One that is
//! taken out accepts no more; what it accepted goes on to its end, and who waits to be accepted is let in as far as there are places.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::{Service as _, ServiceExt as _};

use super::StartError;
use crate::config::Config;
use crate::hardening::PeerAudit;
use crate::link::api::{self, LinkApi};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::ops::Ops;
use crate::proxy::{self, Proxy};
use crate::server::{self, Access, Address, Capacity, Limits, Listener, Peer, Share, Shutdown};

/// Of the page, the control socket and the probes: calls that take milliseconds.
const BRIEF_DRAIN: Duration = Duration::from_secs(1);

/// Connections of each surface but the agents'.
const OTHER_CONNECTIONS: usize = 64;

/// What answers on the listeners.
pub(super) struct Services {
    pub(super) proxy: Arc<proxy::ProxyServices>,
    pub(super) link: Arc<api::LinkServices>,
    pub(super) ops: Ops,
    pub(super) neighbours: Arc<PeerAudit>,
    pub(super) metrics: Arc<Metrics>,
}

/// What serves now.
pub(super) struct Listeners {
    services: Services,
    open: Vec<Open>,
    /// Of those that were closed and may still have connections.
    closed: Vec<watch::Sender<Shutdown>>,
    tasks: JoinSet<()>,
    limits: watch::Sender<Limits>,
    /// The limits of surfaces whose calls take milliseconds.
    brief: watch::Sender<Limits>,
    capacity: Capacities,
}

/// Agents share one.
struct Capacities {
    agents: Capacity,
    page: Capacity,
    control: Capacity,
    ops: Capacity,
}

pub(super) struct Open {
    wanted: Wanted,
    listener: Arc<Listener>,
    shutdown: watch::Sender<Shutdown>,
}

/// A listener as the configuration wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    purpose: Purpose,
    address: Address,
    access: Access,
}

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Agents { bound: Option<AccountName> },
    Page,
    Ops,
    Control,
}

/// All listeners of a configuration, bound; the new ones are not served yet.
pub(super) struct Prepared(Vec<(Wanted, Arc<Listener>)>);

/// A listener that cannot be had.
pub(super) struct Unbound {
    /// The key of the configuration, outermost first.
    pub(super) key: Vec<String>,
    pub(super) error: StartError,
    /// Pixy holds it itself, by a listener that goes: it would have to be given up before it could be taken.
    pub(super) overlaps: Option<Address>,
}

/// Binds what `config` wants and `open` does not have. On failure nothing has changed.
pub(super) async fn prepare(open: &[Open], config: &Config) -> Result<Prepared, Unbound> {
    let wanted = wanted(config);
    let matched = matched(open, &wanted);
    let mut prepared = Vec::new();
    for (at, wanted) in wanted.iter().enumerate() {
        let listener = match matched[at] {
            Some(known) => Arc::clone(&open[known].listener),
            None => match Listener::bind_for(&wanted.address, wanted.access).await {
                Ok(listener) => Arc::new(listener),
                Err(error) => return Err(unbound(open, wanted, at, error)),
            },
        };
        prepared.push((wanted.clone(), listener));
    }
    // Last, for it is the one thing that would have to be undone.
    let mut changed: Vec<(&Listener, Access)> = Vec::new();
    for (at, (wanted, listener)) in prepared.iter().enumerate() {
        let Some(before) = matched[at].map(|known| open[known].wanted.access) else { continue };
        if before == wanted.access {
            continue;
        }
        if let Err(error) = listener.set_access(wanted.access) {
            for (listener, before) in changed {
                let _ = listener.set_access(before); // it could be changed a moment ago
            }
            return Err(unbound(open, wanted, at, error));
        }
        changed.push((listener, before));
    }
    Ok(Prepared(prepared))
}

/// In the order of the file: agents first.
fn wanted(config: &Config) -> Vec<Wanted> {
    let own = |purpose, address: &Address| Wanted { purpose, address: address.clone(), access: Access::Owner };
    let agents = config.agent_listeners.iter().map(|listener| Wanted {
        purpose: Purpose::Agents { bound: listener.account.clone() },
        address: listener.address.clone(),
        access: listener.access,
    });
    let control = Address::Unix(config.state_dir.join("control.sock"));
    agents
        .chain(config.link_listen.iter().map(|address| own(Purpose::Page, address)))
        .chain([own(Purpose::Ops, &config.ops_listen), own(Purpose::Control, &control)])
        .collect()
}

/// Which of `open` each one goes on with. Where the system chooses ports, several may have one address: those of which nothing
/// changes come first, and a port that the system chose for one surface is never another one's.
fn matched(open: &[Open], wanted: &[Wanted]) -> Vec<Option<usize>> {
    let rules: [fn(&Open, &Wanted) -> bool; 2] = [
        |open, wanted| open.wanted == *wanted,
        |open, wanted| {
            let is_chosen = matches!(wanted.address, Address::Tcp(address) if address.port() == 0);
            let is_same = open.wanted.address == wanted.address || *open.listener.address() == wanted.address;
            is_same && (!is_chosen || open.wanted.purpose.surface() == wanted.purpose.surface())
        },
    ];
    let mut matched = vec![None; wanted.len()];
    for rule in rules {
        for (at, wanted) in wanted.iter().enumerate() {
            if matched[at].is_none() {
                let is_free = |known: &usize| !matched.contains(&Some(*known));
                matched[at] = (0..open.len()).filter(is_free).find(|&known| rule(&open[known], wanted));
            }
        }
    }
    matched
}

fn unbound(open: &[Open], wanted: &Wanted, at: usize, source: io::Error) -> Unbound {
    let overlaps = open.iter().map(|open| open.listener.address()).find(|held| overlap(held, &wanted.address));
    let overlaps = overlaps.filter(|_| source.kind() == io::ErrorKind::AddrInUse).cloned();
    let (surface, address) = (wanted.purpose.surface(), wanted.address.clone());
    Unbound { key: wanted.purpose.key(at), error: StartError::Bind { surface, address, source }, overlaps }
}

/// Whoever has one of them keeps the other from being bound.
fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Tcp(one), Address::Tcp(other)) => {
            let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() == other.port() && (everywhere || one.ip() == other.ip())
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        _ => false,
    }
}

impl Purpose {
    fn surface(&self) -> &'static str {
        match self {
            Self::Agents { .. } => "agents",
            Self::Page => "the page",
            Self::Ops => "probes and metrics",
            Self::Control => "the control socket",
        }
    }

    /// The key that says so, of the listener that stands at this place among all.
    fn key(&self, at: usize) -> Vec<String> {
        let at = at.to_string();
        let key: &[&str] = match self {
            Self::Agents { .. } => &["agent", "listen", &at, "address"],
            Self::Page => &["link", "listen"],
            Self::Ops => &["ops", "listen"],
            Self::Control => &["state_dir"],
        };
        key.iter().map(|&step| step.to_owned()).collect()
    }
}

impl Prepared {
    /// Where agents connect, and the account that a listener is bound to.
    pub(super) fn agents(&self) -> impl Iterator<Item = (Option<&AccountName>, &Address)> {
        self.0.iter().filter_map(|(wanted, listener)| match &wanted.purpose {
            Purpose::Agents { bound } => Some((bound.as_ref(), listener.address())),
            Purpose::Page | Purpose::Ops | Purpose::Control => None,
        })
    }

    /// The page, while it is on.
    pub(super) fn page(&self) -> Option<&Address> {
        self.of(&Purpose::Page)
    }

    /// Probes and metrics.
    pub(super) fn ops(&self) -> Option<&Address> {
        self.of(&Purpose::Ops)
    }

    fn of(&self, purpose: &Purpose) -> Option<&Address> {
        self.0.iter().find(|(wanted, _)| wanted.purpose == *purpose).map(|(_, listener)| listener.address())
    }
}

impl Listeners {
    /// Nothing is served yet.
    pub(super) fn new(services: Services, limits: Limits) -> Self {
        let share = share(limits.connections);
        let others = || Capacity::new(share.others);
        Self {
            services,
            open: Vec::new(),
            closed: Vec::new(),
            tasks: JoinSet::new(),
            limits: watch::Sender::new(limits),
            brief: watch::Sender::new(brief(limits)),
            capacity: Capacities {
                agents: Capacity::new(share.agents),
                page: others(),
                control: others(),
                ops: others(),
            },
        }
    }

    /// Binds what is new in `config`.
    ///
    /// # Errors
    /// The first listener that cannot be had; then nothing has changed.
    pub(super) async fn prepare(&self, config: &Config) -> Result<Prepared, Unbound> {
        prepare(&self.open, config).await
    }

    /// Serves these from now on, with these limits for every connection that comes. When this is over, nobody is accepted any more
    /// by what has changed or is gone.
    pub(super) async fn take_up(&mut self, prepared: Prepared, limits: Limits) {
        self.change_limits(limits);
        while self.tasks.try_join_next().is_some() {}
        self.closed.retain(|shutdown| !shutdown.is_closed());
        let mut before = std::mem::take(&mut self.open);
        for (wanted, listener) in prepared.0 {
            let known = before.iter().position(|open| Arc::ptr_eq(&open.listener, &listener));
            let open = match known.map(|known| before.swap_remove(known)) {
                Some(open) if (&open.wanted.purpose, open.wanted.access) == (&wanted.purpose, wanted.access) => {
                    Open { wanted, ..open }
                }
                Some(open) => {
                    let before = open.wanted.access;
                    self.close(open).await;
                    if before != wanted.access {
                        // There was no place for them, and they may be such as could not connect now.
                        listener.turn_away();
                    }
                    self.serve(wanted, listener)
                }
                None => self.serve(wanted, listener),
            };
            self.open.push(open);
        }
        for gone in before {
            gone.listener.withdraw();
            self.close(gone).await;
        }
    }

    /// Nothing is accepted any more; resolves when all open streams have ended, or had their time.
    pub(super) async fn go_down(&mut self) {
        // Let go of as well: who came by a socket that stayed open would wait for the end of other people's streams.
        let open = std::mem::take(&mut self.open);
        for shutdown in open.iter().map(|open| &open.shutdown).chain(&self.closed) {
            shutdown.send_replace(Shutdown::GoingDown);
        }
        drop(open);
        while self.tasks.join_next().await.is_some() {}
    }

    async fn close(&mut self, open: Open) {
        open.shutdown.send_replace(Shutdown::Closed);
        open.listener.rested().await;
        if !matches!(open.wanted.purpose, Purpose::Agents { .. }) {
            // Here a stream without end is a page that watches; it is not let be where it is to be no more.
            open.shutdown.send_replace(Shutdown::GoingDown);
        }
        self.closed.push(open.shutdown);
    }

    fn change_limits(&mut self, limits: Limits) {
        let before = self.limits.send_replace(limits);
        if before == limits {
            return;
        }
        self.brief.send_replace(brief(limits));
        let share = share(limits.connections);
        let Capacities { agents, page, control, ops } = &self.capacity;
        agents.resize(share.agents);
        for other in [page, control, ops] {
            other.resize(share.others);
        }
    }

    fn serve(&mut self, wanted: Wanted, listener: Arc<Listener>) -> Open {
        let (shutdown, ends) = watch::channel(Shutdown::No);
        let Self { services, tasks, capacity, .. } = self;
        let (served, brief) = (Arc::clone(&listener), self.brief.subscribe());
        match &wanted.purpose {
            Purpose::Agents { bound } => {
                let local = listener.address().is_local() && wanted.access != Access::Everybody;
                let proxy = Proxy::new(Arc::clone(&services.proxy), bound.clone(), local);
                let (neighbours, metrics) = (Arc::clone(&services.neighbours), Arc::clone(&services.metrics));
                let proxy = tower::service_fn(move |request: http::Request<_>| {
                    let (mut proxy, neighbours, metrics) =
                        (proxy.clone(), Arc::clone(&neighbours), Arc::clone(&metrics));
                    async move {
                        if let Some(&peer) = request.extensions().get::<Peer>() {
                            neighbours.look(peer, &metrics).await;
                        }
                        proxy.ready().await?.call(request).await
                    }
                });
                tasks.spawn(server::serve(served, self.limits.subscribe(), capacity.agents.clone(), proxy, ends));
            }
            Purpose::Page => {
                let page = LinkApi::new(Arc::clone(&services.link), api::Surface::Page);
                tasks.spawn(server::serve(served, brief, capacity.page.clone(), page, ends));
            }
            Purpose::Control => {
                let control = LinkApi::new(Arc::clone(&services.link), api::Surface::Control);
                tasks.spawn(server::serve(served, brief, capacity.control.clone(), control, ends));
            }
            Purpose::Ops => {
                tasks.spawn(server::serve(served, brief, capacity.ops.clone(), services.ops.clone(), ends));
            }
        }
        Open { wanted, listener, shutdown }
    }
}

fn brief(limits: Limits) -> Limits {
    Limits { drain_time: limits.drain_time.min(BRIEF_DRAIN), ..limits }
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
