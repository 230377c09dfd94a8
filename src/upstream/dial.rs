//! Opens a connection: name resolution, TCP, TLS.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service as _;

use super::resolve::{AddressFilter, FilteredResolver};
use super::{BoxError, SendError};

/// Plain to loopback hosts, TLS to all others.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Connector = HttpsConnector<HttpConnector<FilteredResolver>>;

/// Opens connections, each within the timeout.
pub(super) struct Dialer {
    /// Offers `h2` and `http/1.1` over TLS.
    any: Connector,
    /// Offers `http/1.1` alone, for WebSockets.
    http1: Connector,
    /// For name resolution, TCP and TLS together.
    pub(super) timeout: Duration,
}

impl Dialer {
    pub(super) fn new(tls: &ClientConfig, resolver: FilteredResolver, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let builder = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let any = builder().enable_all_versions().wrap_connector(tcp.clone());
        // `enable_http1` alone omits ALPN, and then a server may choose any protocol.
        let mut only_http1 = tls.clone();
        only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = HttpsConnector::from((tcp, Arc::new(only_http1)));
        Self { any, http1, timeout }
    }

    /// Opens a connection with HTTP/2 or HTTP/1.1, as the server chooses.
    pub(super) async fn dial(&self, to: &Uri) -> Result<Stream, BoxError> {
        self.within(self.any.clone(), to).await
    }

    /// Opens a connection with HTTP/1.1.
    pub(super) async fn dial_http1(&self, to: &Uri) -> Result<Stream, BoxError> {
        self.within(self.http1.clone(), to).await
    }

    async fn within(&self, mut connector: Connector, to: &Uri) -> Result<Stream, BoxError> {
        let timed_out = |_| BoxError::from(format!("no connection within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, connector.call(to.clone())).await.map_err(timed_out)?
    }
}

/// Fails unless [`may_be_dialed`] allows the URI.
pub(super) fn check(uri: &Uri) -> Result<(), SendError> {
    let refused = "plain http is allowed to loopback hosts alone, and some addresses are never allowed";
    may_be_dialed(uri).then_some(()).ok_or_else(|| SendError::Unreachable(refused.into()))
}

/// Plain HTTP is allowed to loopback hosts alone, and an address in a URL must be one that a provider can have (it is configured, or
/// `oauth::discovery` has checked it); the addresses of names are checked when they are resolved.
fn may_be_dialed(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let fits = bare.parse().map_or(true, |address| AddressFilter::default().allows(host, address));
    match uri.scheme_str() {
        Some("https") => fits,
        Some("http") => fits && super::is_loopback_host(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_hosts_alone() {
        for good in [
            "https://api.example.com/",
            "http://127.0.0.1:8791/",
            "http://[::1]:80/",
            "http://localhost/",
            "https://127.0.0.1/",
        ] {
            assert!(may_be_dialed(&Uri::from_static(good)), "{good}");
        }
        for bad in ["http://api.example.com/", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/", "/only/a/path"] {
            assert!(!may_be_dialed(&Uri::from_static(bad)), "{bad}");
        }
        for bad in [
            "https://169.254.169.254/",
            "https://[fe80::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://0.0.0.0/",
            "https://[64:ff9b::7f00:1]/",
        ] {
            assert!(!may_be_dialed(&Uri::from_static(bad)), "{bad}");
        }
    }
}
