//! Loopback redirects (RFC 8252 §7.3): at the page's port where the provider accepts it, else at a listener of their own that is
//! open only while an attempt needs it (§8.3). A port that another program holds is left to it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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

/// The port of a redirect URI that no listener serves.
const UNSERVED_PORT: u16 = 8701;

/// What the client of an unknown `Host` is told.
const CALLBACK_HOSTS: &str = "Host must be an IP address or localhost";

/// The open listeners, by the host and port of their redirect URI.
pub struct CallbackListeners {
    receiver: Arc<CallbackReceiver>,
    open: tokio::sync::Mutex<HashMap<(String, u16), Weak<CallbackListener>>>,
}

impl CallbackListeners {
    /// None is open yet; what arrives goes to `receiver`.
    pub fn new(receiver: Arc<CallbackReceiver>) -> Self {
        Self { receiver, open: tokio::sync::Mutex::default() }
    }

    /// Chooses where the provider sends the browser, and opens a listener there if need be.
    pub async fn redirect_target(
        &self,
        redirect: &Redirect,
        page_port: Option<u16>,
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
        let wanted = match ports {
            Ports::Any => page_port.map_or_else(|| vec![0], |_| Vec::new()), // 0: the system chooses
            Ports::Only(list) => list.clone(),
        };
        if let Some(port) = page_port.filter(|port| wanted.is_empty() || wanted.contains(port)) {
            let redirect_uri = uri(port)?;
            return Ok(RedirectTarget { redirect_uri, reaches_pixy: true, notice: None, listener: None });
        }
        for &port in &wanted {
            if let Ok(listener) = self.open(host, port).await {
                let redirect_uri = uri(listener.port)?;
                return Ok(RedirectTarget { redirect_uri, reaches_pixy: true, notice: None, listener: Some(listener) });
            }
        }
        let port = wanted.first().copied().filter(|&port| port != 0).unwrap_or(UNSERVED_PORT);
        let notice = Some(held_by_others(&wanted));
        Ok(RedirectTarget { redirect_uri: uri(port)?, reaches_pixy: false, notice, listener: None })
    }

    /// Opens the listener of a port; one that is open for another attempt is shared.
    async fn open(&self, host: &str, port: u16) -> io::Result<Arc<CallbackListener>> {
        let mut open = self.open.lock().await;
        let key = (host.to_owned(), port);
        if let Some(listener) = open.get(&key).and_then(Weak::upgrade) {
            return Ok(listener);
        }
        let mut tries = if open.remove(&key).is_some() { BIND_TRIES } else { 1 };
        let sockets = loop {
            match bind(host, port).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                sockets => break sockets?,
            }
            tokio::time::sleep(BIND_PAUSE).await;
        };
        let port = sockets.iter().find_map(port_of).ok_or(io::ErrorKind::AddrNotAvailable)?;
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
        Ok(listener)
    }
}

/// Binds every address that a browser may resolve `host` to: of the two of `localhost`, another program could hold one, and
/// would get the code.
async fn bind(host: &str, port: u16) -> io::Result<Vec<Listener>> {
    let bind_to = async |ip: IpAddr, port: u16| Listener::bind(&Address::Tcp((ip, port).into())).await;
    match host {
        "[::1]" => Ok(vec![bind_to(Ipv6Addr::LOCALHOST.into(), port).await?]),
        "localhost" => {
            let ipv4 = bind_to(Ipv4Addr::LOCALHOST.into(), port).await?;
            let port = port_of(&ipv4).unwrap_or(port);
            match bind_to(Ipv6Addr::LOCALHOST.into(), port).await {
                Ok(ipv6) => Ok(vec![ipv4, ipv6]),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                Err(_) => Ok(vec![ipv4]), // this machine has no IPv6
            }
        }
        _ => Ok(vec![bind_to(Ipv4Addr::LOCALHOST.into(), port).await?]),
    }
}

fn port_of(listener: &Listener) -> Option<u16> {
    match listener.address() {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    }
}

fn held_by_others(ports: &[u16]) -> String {
    let named: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let (what, are) = if ports.len() == 1 { ("Port", "is") } else { ("Ports", "are") };
    format!(
        "{what} {} of this machine, where the provider redirects the browser, {are} in use by another program. \
         Allow the access at the provider, then copy the whole address that the browser ends at and paste it here.",
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
