//! One connection: name, TCP, TLS.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service as _;

use super::resolve::Resolver;
use super::{BoxError, SendError, resolve};

/// Plain to this machine, TLS to everything else.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Makes connections, each within the time limit.
pub(super) struct Dialler {
    /// Offers `h2` and `http/1.1` over TLS.
    any: Connector,
    /// Offers `http/1.1` alone: WebSockets.
    http1: Connector,
    /// For name resolution, TCP and TLS together.
    pub(super) timeout: Duration,
}

impl Dialler {
    pub(super) fn new(tls: &ClientConfig, resolver: Resolver, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let builder = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let any = builder().enable_all_versions().wrap_connector(tcp.clone());
        // `enable_http1` alone leaves ALPN out, and then a server may speak what it likes.
        let mut only_http1 = tls.clone();
        only_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = HttpsConnector::from((tcp, Arc::new(only_http1)));
        Self { any, http1, timeout }
    }

    /// The server chooses between HTTP/2 and HTTP/1.1.
    pub(super) async fn dial(&self, to: &Uri) -> Result<Stream, BoxError> {
        self.within(self.any.clone(), to).await
    }

    /// HTTP/1.1, whatever else the server speaks.
    pub(super) async fn dial_http1(&self, to: &Uri) -> Result<Stream, BoxError> {
        self.within(self.http1.clone(), to).await
    }

    async fn within(&self, mut connector: Connector, to: &Uri) -> Result<Stream, BoxError> {
        let late = |_| BoxError::from(format!("no connection within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, connector.call(to.clone())).await.map_err(late)?
    }
}

/// Refuses what [`may_be_dialled`] does not allow.
pub(super) fn check(uri: &Uri) -> Result<(), SendError> {
    if may_be_dialled(uri) {
        Ok(())
    } else {
        Err(SendError::Unreachable("plain http is for loopback hosts alone, and some addresses are for nobody".into()))
    }
}

/// Plain HTTP is for this machine alone, and an address in a URL has to be one that a provider may have: names are
/// judged when they are looked up.
fn may_be_dialled(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let fits = bare.parse().map_or(true, |address| resolve::may_be_dialled(host, address));
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
    fn plain_http_is_for_this_machine_alone() {
        for good in [
            "https://api.example.com/",
            "http://127.0.0.1:8791/",
            "http://[::1]:80/",
            "http://localhost/",
            "https://127.0.0.1/",
        ] {
            assert!(may_be_dialled(&Uri::from_static(good)), "{good}");
        }
        for bad in ["http://api.example.com/", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/", "/only/a/path"] {
            assert!(!may_be_dialled(&Uri::from_static(bad)), "{bad}");
        }
        for bad in
            ["https://169.254.169.254/", "https://[fe80::1]/", "https://[::ffff:169.254.169.254]/", "https://0.0.0.0/"]
        {
            assert!(!may_be_dialled(&Uri::from_static(bad)), "{bad}");
        }
    }
}
