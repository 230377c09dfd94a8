//! Loopback redirects (RFC 8252 §7.3): the link port where the provider takes it, else a port of its own that is open only while
//! an attempt needs it (§8.3). A port that somebody else holds is left to them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Method, Request, Response};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use tokio::sync::watch;
use url::Url;

use super::attempt::Landing;
use super::http::{self, LinkBody, RequestBody};
use super::page::{self, CallbackOutcome};
use super::problem::Problem;
use super::{Linker, guard};
use crate::oauth::profile::{Ports, Redirect};
use crate::server::{self, Address, Capacity, Limits, Listener, Rejection, Shutdown};

/// A person's browser needs a few.
const CONNECTIONS: usize = 16;

/// The page that says how it went is read from these connections after the last attempt is over.
const DRAIN: Duration = Duration::from_secs(2);

/// A port that was closed a moment ago is free after so many of [`PORT_PAUSE`].
const PORT_TRIES: usize = 25;

/// See [`PORT_TRIES`].
const PORT_PAUSE: Duration = Duration::from_millis(20);

/// An open port that redirects come back to; closed when the last attempt that holds it is over.
pub struct CallbackListener {
    port: u16,
    close: watch::Sender<Shutdown>,
}

/// Ports that are open now, with the host that they were opened for.
#[derive(Default)]
pub struct CallbackListeners(tokio::sync::Mutex<HashMap<(String, u16), Weak<CallbackListener>>>);

impl Drop for CallbackListener {
    fn drop(&mut self) {
        self.close.send_replace(Shutdown::GoingDown);
    }
}

impl Linker {
    /// Where the provider is to send the code.
    pub(super) async fn landing(self: &Arc<Self>, redirect: &Redirect) -> Result<Landing, Problem> {
        let (host, ports, path) = match redirect {
            Redirect::Paste(page) => {
                return Ok(Landing { redirect_uri: Url::clone(page), comes_back: false, notice: None, door: None });
            }
            Redirect::Loopback(loopback) => (loopback.host.as_str(), &loopback.ports, &*loopback.path),
            Redirect::None => return Err(Problem::no_endpoint("redirect")),
        };
        let uri = |port: u16| {
            Url::parse(&format!("http://{host}:{port}{path}")).map_err(|_| Problem::no_endpoint("redirect"))
        };
        let page = match self.link_port.load().as_deref() {
            Some(Address::Tcp(address)) => Some(address.port()),
            Some(Address::Unix(_)) | None => None,
        };
        let wanted = match ports {
            Ports::Any => page.map_or_else(|| vec![0], |_| Vec::new()), // 0: the system chooses
            Ports::Only(list) => list.clone(),
        };
        if let Some(port) = page.filter(|port| wanted.is_empty() || wanted.contains(port)) {
            return Ok(Landing { redirect_uri: uri(port)?, comes_back: true, notice: None, door: None });
        }
        for &port in &wanted {
            if let Ok(door) = self.open(host, port).await {
                return Ok(Landing { redirect_uri: uri(door.port)?, comes_back: true, notice: None, door: Some(door) });
            }
        }
        let port = wanted.first().copied().filter(|&port| port != 0).unwrap_or(FALLBACK_PORT);
        Ok(Landing { redirect_uri: uri(port)?, comes_back: false, notice: Some(held_by_others(&wanted)), door: None })
    }

    /// The door at a port: one that is open for another attempt serves this one too.
    async fn open(self: &Arc<Self>, host: &str, port: u16) -> io::Result<Arc<CallbackListener>> {
        let mut doors = self.doors.0.lock().await;
        let key = (host.to_owned(), port);
        if let Some(door) = doors.get(&key).and_then(Weak::upgrade) {
            return Ok(door);
        }
        let mut tries = if doors.remove(&key).is_some() { PORT_TRIES } else { 1 };
        let listeners = loop {
            match listen(host, port).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
                listeners => break listeners?,
            }
            tokio::time::sleep(PORT_PAUSE).await;
        };
        let port = listeners.iter().find_map(port_of).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (close, closed) = watch::channel(Shutdown::No);
        let (_, limits) = watch::channel(Limits { drain_time: DRAIN, ..Limits::default() });
        for listener in listeners {
            let surface = CallbackSurface(Arc::downgrade(self));
            let limits = limits.clone();
            tokio::spawn(server::serve(listener, limits, Capacity::new(CONNECTIONS), surface, closed.clone()));
        }
        let door = Arc::new(CallbackListener { port, close });
        doors.retain(|_, door| door.strong_count() > 0);
        doors.insert(key, Arc::downgrade(&door));
        Ok(door)
    }
}

/// Every address that a browser may take the host for: `localhost` is two, and one that somebody else holds would get the code.
async fn listen(host: &str, port: u16) -> io::Result<Vec<Listener>> {
    let bind = async |ip: IpAddr, port: u16| Listener::bind(&Address::Tcp((ip, port).into())).await;
    match host {
        "[::1]" => Ok(vec![bind(Ipv6Addr::LOCALHOST.into(), port).await?]),
        "localhost" => {
            let four = bind(Ipv4Addr::LOCALHOST.into(), port).await?;
            let port = port_of(&four).unwrap_or(port);
            match bind(Ipv6Addr::LOCALHOST.into(), port).await {
                Ok(six) => Ok(vec![four, six]),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
                Err(_) => Ok(vec![four]), // no IPv6 here
            }
        }
        _ => Ok(vec![bind(Ipv4Addr::LOCALHOST.into(), port).await?]),
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
        "{what} {} of this machine, where the provider sends the browser back to, {are} held by another program, and Pixy takes no \
         port away from anybody. Allow it at the provider, then copy the whole address that the browser ends at and paste it here.",
        named.join(" and ")
    )
}

/// What stands in a redirect that nobody catches.
const FALLBACK_PORT: u16 = 8701;

/// All that is served there: the way back, and what its page is made of. Neither tells anything.
#[derive(Clone)]
struct CallbackSurface(Weak<Linker>);

impl CallbackSurface {
    async fn answer(self, request: Request<RequestBody>) -> Result<Response<LinkBody>, Problem> {
        if let Some(refused) = request.extensions().get::<Rejection>() {
            return Err(Problem::refused(*refused));
        }
        let linker = self.0.upgrade().ok_or_else(Problem::no_call)?;
        let path = request.uri().path();
        let is_callback = linker.is_callback_path(path);
        guard::check_origin(request.method(), request.headers(), is_callback)?;
        if request.method() != Method::GET {
            return Err(Problem::no_call());
        }
        if let Some(asset) = page::asset(path) {
            return Ok(http::response(asset.content_type, asset.body));
        }
        if !is_callback {
            return Err(Problem::no_call());
        }
        let outcome: CallbackOutcome = linker.come_back(path, request.uri().query().unwrap_or_default()).await;
        Ok(http::html_response(page::callback(&outcome)))
    }
}

impl tower::Service<Request<Incoming>> for CallbackSurface {
    type Response = Response<LinkBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        http::serve(request, move |request| this.clone().answer(request))
    }
}
