//! The check of `Host` on TCP listeners. A web page whose name was made to resolve to Pixy's address (DNS rebinding) has Pixy's
//! origin for its browser, but sends its own name as `Host`.

use std::future::{Future, ready};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::Either;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;

use super::listener::Peer;
use super::rejection::Rejection;
use super::surface::Surface;

/// The configured names of a listener, which a reload may replace. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct HostNames(Arc<ArcSwap<Vec<String>>>);

/// A surface that gets only requests whose `Host` is an IP literal, `localhost` or a configured name. Others get a 421 (RFC 9110
/// §15.5.20) before any other work. Clients of a Unix socket, which no browser can be made to open, are not checked.
pub struct HostChecked<S> {
    surface: S,
    names: HostNames,
    refusal: &'static str,
}

impl HostNames {
    /// These names.
    pub fn new(names: Vec<String>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(names)))
    }

    /// Replaces the names, also for open connections.
    pub fn replace(&self, names: Vec<String>) {
        self.0.store(Arc::new(names));
    }

    /// The port is ignored.
    fn allow(&self, headers: &HeaderMap) -> bool {
        headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(|host| self.allow_host(without_port(host))))
    }

    /// Of `localhost` only the name itself: some resolvers send `x.localhost` and `localhost.` to the network's name server. A
    /// configured name may end in the dot of the root.
    fn allow_host(&self, host: &str) -> bool {
        is_ip_literal(host) || host.eq_ignore_ascii_case("localhost") || {
            let host = host.strip_suffix('.').unwrap_or(host);
            self.0.load().iter().any(|name| name.eq_ignore_ascii_case(host))
        }
    }
}

impl<S> HostChecked<S> {
    /// `surface` under these names. `refusal` says what to configure, without a final full stop.
    pub fn new(surface: S, names: HostNames, refusal: &'static str) -> Self {
        Self { surface, names, refusal }
    }
}

impl<S: Surface> Surface for HostChecked<S> {
    type Body = S::Body;
    /// Whether it is a TCP connection, and what the surface knows about it.
    type Connection = (bool, S::Connection);

    async fn connect(&self, peer: Peer) -> Self::Connection {
        (peer.address.is_some(), self.surface.connect(peer).await)
    }

    fn call(
        &self,
        (is_tcp, connection): Self::Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<S::Body>> + Send {
        if is_tcp && !self.names.allow(request.headers()) {
            let mut response = self.surface.reject(Rejection::UnknownHost(self.refusal));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Either::Left(ready(response));
        }
        Either::Right(self.surface.call(connection, request))
    }

    fn reject(&self, rejection: Rejection) -> Response<S::Body> {
        self.surface.reject(rejection)
    }
}

fn is_ip_literal(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_89_only_literals_localhost_and_configured_names() {
        let names = HostNames::new(vec!["pixy".to_owned(), "pixy.team.svc".to_owned()]);
        let allows = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            names.allow(&headers)
        };
        for host in [
            "127.0.0.1",
            "127.0.0.1:8700",
            "10.1.2.3:1",
            "0.0.0.0:8700",
            "[::1]",
            "[::1]:8700",
            "[2001:db8::1]:8700",
            "[::ffff:127.0.0.1]",
            "localhost",
            "LocalHost:8700",
            "pixy",
            "PIXY:8700",
            "pixy.:8700",
            "pixy.team.svc",
        ] {
            assert!(allows(host), "{host}");
        }
        for host in [
            "",
            ":8700",
            "evil.example",
            "evil.example:8700",
            "EVIL.example.",
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "localhost.",
            "evil.localhost",
            "localhost.evil.example",
            "notlocalhost",
            "pixy..",
            ".pixy",
            "evil.pixy",
            "pixy.evil.example",
            "pixy.team",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "[::1].evil.example",
            "[::1",
            "::1",
            "[127.0.0.1]",
            "[::1%25lo]",
            "pixy@evil.example",
            "evil.example@pixy",
            "127.0.0.1@evil.example",
            "pixy,evil.example",
            "pixy evil",
            "pix%79",
            "pixy:8700:8700",
            "pixy:x",
        ] {
            assert!(!allows(host), "{host}");
        }
        let mut two = HeaderMap::new();
        two.append(HOST, HeaderValue::from_static("pixy"));
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(!names.allow(&two));
        names.replace(Vec::new());
        assert!(!allows("pixy"), "a reload takes the name away");
    }
}
