//! Loopback redirects (RFC 8252 §7.3): at the page's port where the provider accepts it, else at a listener of their own that is
//! open only while an attempt needs it (§8.3). A port that another program holds is left to it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use url::Url;

use super::authentication;
use super::callback::CallbackReceiver;
use super::http::{self, LinkBody, RequestBody};
use super::page;
use super::problem::Problem;
use super::redirect_target::{CallbackListener, RedirectTarget};
use crate::oauth::profile::{Ports, Redirect};
use crate::server::{
    self, Address, ConnectionLimit, HostChecked, HostNames, Listener, Peer, Rejection, ServerLimits, Shutdown, Surface,
};

/// Connections of all redirects to one port; a browser opens a few.
const CONNECTIONS: usize = 16;

/// The outcome page may be loaded from a listener for this long after its last attempt has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// A port that Pixy closed a moment ago can be bound again after at most this many pauses of [`BIND_PAUSE`].
const BIND_TRIES: usize = 25;

/// See [`BIND_TRIES`].
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Used where the provider accepts any port, and another program holds a part of the page's. A fixed one, because Landlock may
/// limit the ports.
pub const SPARE_PORT: u16 = 8704;

/// Lets the system choose a port.
const SYSTEM_CHOSEN: u16 = 0;

/// The port of a redirect URI that no listener serves.
const UNSERVED_PORT: u16 = 8701;

/// The text of the 421 for an unknown `Host`.
const CALLBACK_HOSTS: &str = "Host must be an IP address or localhost";

/// The addresses and the port that a callback needs.
type AskedFor = (Vec<IpAddr>, u16);

/// The open listeners, by what was asked for.
pub struct CallbackListeners {
    receiver: Arc<CallbackReceiver>,
    open: tokio::sync::Mutex<HashMap<AskedFor, Weak<CallbackListener>>>,
}

impl CallbackListeners {
    /// None is open yet; what arrives goes to `receiver`.
    pub fn new(receiver: Arc<CallbackReceiver>) -> Self {
        Self { receiver, open: tokio::sync::Mutex::default() }
    }

    /// Chooses where the provider sends the browser, and opens a listener there if need be. Every address that a browser may
    /// resolve the host to is held: of the two of `localhost`, another program could hold one, and would get the code.
    pub async fn redirect_target(
        &self,
        redirect: &Redirect,
        page: Option<SocketAddr>,
    ) -> Result<RedirectTarget, Problem> {
        let (host, ports, path) = match redirect {
            Redirect::Paste(page) => {
                let redirect_uri = Url::clone(page);
                return Ok(RedirectTarget { redirect_uri, reaches_pixy: false, notice: None, listener: None });
            }
            Redirect::Loopback(loopback) => (loopback.host.as_str(), &loopback.ports, &*loopback.path),
            Redirect::None => return Err(Problem::no_endpoint("redirect")),
        };
        let uri = |port: u16| {
            Url::parse(&format!("http://{host}:{port}{path}")).map_err(|_| Problem::no_endpoint("redirect"))
        };
        let page_port = page.map(|page| page.port());
        let mut wanted: Vec<u16> = match ports {
            Ports::Any if page_port.is_none() => vec![SYSTEM_CHOSEN],
            Ports::Any => page_port.into_iter().chain([SPARE_PORT, SYSTEM_CHOSEN]).collect(),
            Ports::Only(list) => list.clone(),
        };
        wanted.sort_by_key(|&port| Some(port) != page_port); // the page's port first, which may be reachable from elsewhere
        for &port in &wanted {
            let is_held = |address: &IpAddr| page.is_some_and(|page| page.port() == port && covers(page, *address));
            let (held, missing): (Vec<IpAddr>, Vec<IpAddr>) =
                addresses(host).iter().partition(|address| is_held(address));
            let listener = match self.open(missing, port, !held.is_empty()).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::debug!(host, port, %error, "a callback port cannot be held");
                    continue;
                }
            };
            let moved = page_port.filter(|&page| page != port && matches!(ports, Ports::Any));
            let port = listener.as_ref().map_or(port, |listener| listener.port);
            let notice = moved.map(|page| moved_from(page, port));
            return Ok(RedirectTarget { redirect_uri: uri(port)?, reaches_pixy: true, notice, listener });
        }
        let ports: Vec<u16> = wanted.into_iter().filter(|&port| port != SYSTEM_CHOSEN).collect();
        let port = ports.first().copied().unwrap_or(UNSERVED_PORT);
        let notice = Some(held_by_others(&ports));
        Ok(RedirectTarget { redirect_uri: uri(port)?, reaches_pixy: false, notice, listener: None })
    }

    /// Opens a listener on these addresses, all with this port; one that is open for another attempt is shared. `None`: the page
    /// holds the others (`page_serves`), and this machine does not have these.
    async fn open(
        &self,
        addresses: Vec<IpAddr>,
        port: u16,
        page_serves: bool,
    ) -> io::Result<Option<Arc<CallbackListener>>> {
        let mut open = self.open.lock().await;
        let key = (addresses, port);
        if let Some(listener) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(Some(listener));
        }
        let mut tries = if open.remove(&key).is_some() || port == SYSTEM_CHOSEN { BIND_TRIES } else { 1 };
        let sockets = loop {
            match bind(&key.0, port).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                sockets => break sockets?,
            }
            tokio::time::sleep(BIND_PAUSE).await;
        };
        let Some(port) = sockets.iter().find_map(port_of) else {
            return if page_serves { Ok(None) } else { Err(io::ErrorKind::AddrNotAvailable.into()) };
        };
        let (close, closed) = watch::channel(Shutdown::No);
        let (_, limits) = watch::channel(ServerLimits { drain_time: DRAIN, ..ServerLimits::default() });
        for socket in sockets {
            let surface = CallbackSurface(Arc::downgrade(&self.receiver));
            let surface = HostChecked::new(surface, HostNames::default(), CALLBACK_HOSTS);
            let limits = limits.clone();
            tokio::spawn(server::serve(socket, surface, limits, ConnectionLimit::new(CONNECTIONS), closed.clone()));
        }
        let listener = Arc::new(CallbackListener::new(port, close));
        open.retain(|_, listener| listener.strong_count() > 0);
        open.insert(key, Arc::downgrade(&listener));
        Ok(Some(listener))
    }
}

/// The addresses that a browser may resolve the host of a redirect URI to.
fn addresses(host: &str) -> Vec<IpAddr> {
    let (ipv4, ipv6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    match host {
        "[::1]" => vec![ipv6],
        "localhost" => vec![ipv4, ipv6],
        _ => vec![ipv4],
    }
}

/// Whether a socket on `listening` gets the connections to `address`. `[::]` includes IPv4.
fn covers(listening: SocketAddr, address: IpAddr) -> bool {
    let all = listening.ip();
    all == address || (all.is_unspecified() && (all.is_ipv6() || address.is_ipv4()))
}

/// Binds these addresses with one port, without those of a family that this machine does not have.
async fn bind(addresses: &[IpAddr], mut port: u16) -> io::Result<Vec<Listener>> {
    let mut sockets = Vec::new();
    for &address in addresses {
        match Listener::bind(&Address::Tcp((address, port).into())).await {
            Ok(socket) => {
                port = port_of(&socket).unwrap_or(port);
                sockets.push(socket);
            }
            Err(error) if is_missing_family(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// The kernel has no IPv6, or no interface has an address of it.
fn is_missing_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn port_of(listener: &Listener) -> Option<u16> {
    match listener.address() {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

fn moved_from(port: u16, to: u16) -> String {
    format!(
        "Port {port} of this machine is in use by another program, which could receive the code, so the provider redirects the \
         browser to port {to}. If the browser cannot open that page, copy its whole address and paste it here."
    )
}

fn held_by_others(ports: &[u16]) -> String {
    let named: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let (what, are) = match ports.len() {
        0 => ("Every port", "is"),
        1 => ("Port", "is"),
        _ => ("Ports", "are"),
    };
    format!(
        "{what} {} of this machine, where the provider redirects the browser, {are} in use by another program. \
         Allow the access at the provider, then copy the whole address that the browser ends at and paste it here. The other \
         program may see the code, which only this Pixy can redeem.",
        named.join(" and ")
    )
}

/// Serves the callback path and the assets of its page: neither reveals anything of an account.
// Weak: an open listener must not keep a stopped Pixy, and the lock of its vault, alive.
struct CallbackSurface(Weak<CallbackReceiver>);

impl CallbackSurface {
    async fn answer(&self, request: Request<RequestBody>) -> Result<Response<LinkBody>, Problem> {
        let receiver = self.0.upgrade().ok_or_else(Problem::no_call)?;
        let path = request.uri().path();
        let is_callback = receiver.is_callback_path(path);
        authentication::check_origin(request.method(), request.headers(), is_callback)?;
        if request.method() != Method::GET {
            return Err(Problem::no_call());
        }
        if let Some(asset) = page::asset(path) {
            return Ok(http::response(asset.content_type, asset.body));
        }
        if !is_callback {
            return Err(Problem::no_call());
        }
        let outcome = receiver.receive(path, request.uri().query().unwrap_or_default()).await;
        Ok(http::html_response(page::callback(&outcome)))
    }
}

impl Surface for CallbackSurface {
    type Body = LinkBody;
    type Connection = ();

    async fn connect(&self, _: Peer) {}

    fn call(&self, (): (), request: Request<Incoming>) -> impl Future<Output = Response<LinkBody>> + Send {
        http::serve(request, |request| self.answer(request))
    }

    fn reject(&self, rejection: Rejection) -> Response<LinkBody> {
        http::reject(rejection)
    }
}
