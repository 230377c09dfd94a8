//! The way out: TLS connections to providers.
//!
//! Everything that leaves Pixy leaves through [`Upstream`]: it follows no redirect, reads no proxy setting from the
//! environment, and speaks plain HTTP to loopback hosts alone.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use zeroize::Zeroizing;

/// Any error, boxed: bodies and connectors have many.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body on its way out.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Connects to the host of a URI; boxed, because hyper wants a future that can be moved.
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// How connections to providers are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Further trusted roots, PEM (a company's gateway).
    pub extra_ca_file: Option<PathBuf>,
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the request's start to the response's head.
    pub head_timeout: Duration,
    /// Between two pieces of a response.
    pub idle_timeout: Duration,
}

/// A pool of connections to providers; cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    client: Client<Connector, Body>,
    head_timeout: Duration,
    idle_timeout: Duration,
}

/// A whole, bounded answer.
pub struct Fetched {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; zeroed on drop, as it may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why no answer came.
#[derive(Debug)]
pub enum SendError {
    /// No connection: nothing was sent.
    Unreachable(BoxError),
    /// Connected, but no answer in time.
    Timeout,
    /// The connection ended, or the peer did not speak HTTP; what was sent may have been acted on.
    Broken(BoxError),
    /// The answer was larger than allowed.
    TooLarge,
}

/// The roots could not be set up.
#[derive(Debug)]
pub struct RootsError {
    /// The file that was asked for.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            extra_ca_file: None,
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_mins(10),
        }
    }
}

impl Upstream {
    /// Loads the trusted roots and makes an empty pool.
    pub fn new(settings: &Settings) -> Result<Self, RootsError> {
        let tls = client_config(settings.extra_ca_file.as_deref())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_mins(1)));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(tcp);
        // The time limit covers name resolution, TCP and TLS together: hyper's own covers TCP alone.
        let connector = BoxCloneSyncService::new(Timeout::new(https, settings.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(50)) // below the usual 60 s of load balancers, so that we close first
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_adaptive_window(true)
            .build(connector);
        Ok(Self { client, head_timeout: settings.head_timeout, idle_timeout: settings.idle_timeout })
    }

    /// The longest silence between two pieces of a response.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        if !may_be_dialled(request.uri()) {
            return Err(SendError::Unreachable("plain http is for loopback hosts alone".into()));
        }
        match tokio::time::timeout(self.head_timeout, self.client.request(request)).await {
            Err(_) => Err(SendError::Timeout),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(SendError::Unreachable(error.into())),
            Ok(Err(error)) => Err(SendError::Broken(error.into())),
        }
    }

    /// Sends a request and reads its whole answer, at most `limit` bytes within `timeout`.
    pub async fn fetch(&self, request: Request<Body>, limit: usize, timeout: Duration) -> Result<Fetched, SendError> {
        let whole = async {
            let (head, body) = self.send(request).await?.into_parts();
            let mut collected = Zeroizing::new(Vec::new());
            let mut body = Limited::new(body, limit);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    if error.is::<http_body_util::LengthLimitError>() {
                        SendError::TooLarge
                    } else {
                        SendError::Broken(error)
                    }
                })?;
                if let Some(data) = frame.data_ref() {
                    collected.extend_from_slice(data);
                }
            }
            Ok(Fetched { status: head.status, headers: head.headers, body: collected })
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(SendError::Timeout))
    }
}

impl SendError {
    /// Surely nothing reached the peer.
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Inner errors name addresses and TLS alerts, never what was sent.
        match self {
            Self::Unreachable(error) => write!(f, "no connection: {}", innermost(error.as_ref())),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Broken(error) => write!(f, "the connection broke: {}", innermost(error.as_ref())),
            Self::TooLarge => f.write_str("the answer was too large"),
        }
    }
}

impl Error for SendError {}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream.extra_ca_file {}: {}", self.file.display(), self.reason)
    }
}

impl Error for RootsError {}

/// Whether `host` (as in a URL, IPv6 in brackets or not) is this machine itself.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn may_be_dialled(uri: &Uri) -> bool {
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => uri.host().is_some_and(is_loopback_host),
        _ => false,
    }
}

fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

fn client_config(extra: Option<&Path>) -> Result<ClientConfig, RootsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(machine_roots());
    if added == 0 {
        // A bare image has no CA bundle: Mozilla's list is compiled in.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = extra {
        let fault = |reason: String| RootsError { file: file.to_owned(), reason };
        let certificates = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| fault(format!("cannot be read as PEM certificates ({error})")))?;
        if certificates.is_empty() {
            return Err(fault("holds no certificate".to_owned()));
        }
        for certificate in certificates {
            roots
                .add(certificate)
                .map_err(|error| fault(format!("holds a certificate that cannot be used ({error})")))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3, which is all that this can fail on")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The machine's own roots, from the places where distributions keep them. `SSL_CERT_FILE` and its kin are not asked: who can
/// set a variable must not choose whom we trust.
#[cfg(target_os = "linux")]
fn machine_roots() -> Vec<CertificateDer<'static>> {
    const BUNDLES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch, distroless
        "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
        "/etc/ssl/ca-bundle.pem",             // openSUSE
        "/etc/ssl/cert.pem",                  // Alpine, others
    ];
    BUNDLES
        .iter()
        .map(Path::new)
        .find(|bundle| bundle.exists())
        .map(|bundle| rustls_native_certs::load_certs_from_paths(Some(bundle), None).certs)
        .unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn machine_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        for good in ["https://api.example.com/", "http://127.0.0.1:8791/", "http://[::1]:80/", "http://localhost/"] {
            assert!(may_be_dialled(&Uri::from_static(good)), "{good}");
        }
        for bad in ["http://api.example.com/", "http://127.0.0.1.example.com/", "ftp://127.0.0.1/", "/only/a/path"] {
            assert!(!may_be_dialled(&Uri::from_static(bad)), "{bad}");
        }
    }

    #[test]
    fn a_ca_file_that_is_not_one_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = Settings { extra_ca_file: Some(file.path().to_owned()), ..Settings::default() };
        let error = Upstream::new(&settings).err().unwrap().to_string();
        assert!(error.contains("holds no certificate") && error.contains("extra_ca_file"), "{error}");
    }
}
