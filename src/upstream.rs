//! Connections to providers, over TLS.
//!
//! All outgoing requests pass [`Upstream`]: it follows no redirect, reads no proxy setting from the environment, and uses plain HTTP
//! to loopback hosts alone.

mod address_class;
mod checked_stream;
mod dial;
mod h1;
mod h2;
mod h2_peer_settings;
mod idle;
mod incoming_body;
mod pool;
mod request_body;
mod resolve;
mod response_framer;
mod roots;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

pub use address_class::{AddressRange, is_globally_reachable};
use dial::Dialer;
use incoming_body::BodyConnection;
pub use incoming_body::Incoming;
use pool::{Lease, Pool};
pub use resolve::Resolver;
use resolve::{AddressFilter, FilteredResolver};
pub use roots::RootsError;

/// Any error of bodies and connectors.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// UpstreamSettings of connections to providers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Additional trusted roots, PEM (a company's gateway).
    pub extra_ca_file: Option<PathBuf>,
    /// Ranges that a provider's name may resolve to, besides the addresses that are globally reachable.
    pub allow_addresses: Vec<AddressRange>,
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the start of the request to the head of the response.
    pub head_timeout: Duration,
    /// The longest wait for the next piece of a response.
    pub idle_timeout: Duration,
}

/// Parameters that only tests change.
#[derive(Clone)]
pub struct Tuning {
    /// Interval of HTTP/2 keep-alive pings.
    pub ping_interval: Duration,
    /// A connection without an answer to a ping within this time is dead.
    pub ping_timeout: Duration,
    /// The longest time that a connection is idle.
    pub idle: Duration,
    /// Resolves names.
    pub resolver: Resolver,
}

/// A pool of connections to providers; cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    pool: Arc<Pool>,
    dialer: Arc<Dialer>,
    tls: Arc<ClientConfig>,
    head_timeout: Duration,
    idle_timeout: Duration,
}

/// A complete response of bounded size.
pub struct FetchedResponse {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body; zeroed on drop, as it may hold tokens.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no response.
#[derive(Debug)]
pub enum SendError {
    /// No connection: nothing was sent.
    Unreachable(BoxError),
    /// Connected, but no response in time.
    Timeout,
    /// The connection failed, or the peer violated HTTP; it may have processed the request.
    Broken(BoxError),
    /// The response is larger than allowed.
    TooLarge,
}

/// What is done with a response that is malformed, has ambiguous framing, or is an unrequested 101. Its connection is not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AmbiguousFraming {
    /// For a response that is forwarded: the agent could read it differently.
    Refuse,
    /// For a response that Pixy reads: it may hold the only copy of a refresh token.
    Accept,
}

/// Why an attempt on one connection failed.
enum AttemptError {
    /// Nothing was sent: the request may be sent on another connection.
    NotSent(Box<Request<Body>>, BoxError),
    /// The request may have been sent, whole or in part: it must not be sent again.
    MaybeSent(BoxError),
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            extra_ca_file: None,
            allow_addresses: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_mins(10),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            idle: pool::IDLE,
            resolver: Resolver::default(),
        }
    }
}

impl Upstream {
    /// Loads the trusted roots and creates an empty pool.
    pub fn new(settings: &UpstreamSettings) -> Result<Self, RootsError> {
        Self::tuned(settings, Tuning::default())
    }

    /// As [`Upstream::new`], for tests with shorter times or a resolver of their own.
    pub fn tuned(settings: &UpstreamSettings, tuning: Tuning) -> Result<Self, RootsError> {
        let tls = roots::client_config(settings.extra_ca_file.as_deref())?;
        let filter = AddressFilter::new(&settings.allow_addresses);
        let resolver = FilteredResolver::new(tuning.resolver.clone(), filter);
        let dialer = Arc::new(Dialer::new(&tls, resolver, settings.connect_timeout));
        let pool = Arc::new(Pool::new(Arc::clone(&dialer), tuning));
        let (head_timeout, idle_timeout) = (settings.head_timeout, settings.idle_timeout);
        Ok(Self { pool, dialer, tls: Arc::new(tls), head_timeout, idle_timeout })
    }

    /// Initialises TLS, so that the first request is not delayed. Takes tens of milliseconds of CPU time.
    pub fn warm_up(&self) {
        roots::warm_up(&self.tls);
    }

    /// The longest wait for the next piece of a response.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Sends a request and waits for the head of its response. Dropping the body before its end aborts the stream.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.exchange(request, AmbiguousFraming::Refuse).await
    }

    async fn exchange(
        &self,
        mut request: Request<Body>,
        ambiguous: AmbiguousFraming,
    ) -> Result<Response<Incoming>, SendError> {
        let deadline = Instant::now() + self.head_timeout;
        let origin = self.pool.origin(request.uri())?;
        loop {
            let timed_out = |_| SendError::Unreachable("no connection was free in time".into());
            let lease = timeout_at(deadline, origin.lease()).await.map_err(timed_out)??;
            let (reused, sent) = match lease {
                Lease::Http1(lease) => {
                    let reused = lease.reused;
                    let sent = timeout_at(deadline, lease.send(request, ambiguous)).await;
                    (reused, sent.map(|sent| sent.map(|(head, connection)| (head, BodyConnection::Http1(connection)))))
                }
                Lease::Http2(lease) => {
                    let reused = lease.reused;
                    let sent = timeout_at(deadline, lease.send(request, ambiguous)).await;
                    (reused, sent.map(|sent| sent.map(|(head, permit)| (head, BodyConnection::Http2(permit)))))
                }
            };
            match sent {
                Err(_) => return Err(SendError::Timeout),
                Ok(Ok((response, connection))) => {
                    return Ok(response.map(|body| Incoming::new(body, connection, ambiguous)));
                }
                // The server may have closed an idle connection (RFC 9112 §9.3.1). There is no further attempt after a new
                // connection was closed, too.
                Ok(Err(AttemptError::NotSent(unsent, _))) if reused => request = *unsent,
                Ok(Err(AttemptError::NotSent(_, error))) => return Err(SendError::Unreachable(error)),
                Ok(Err(AttemptError::MaybeSent(error))) => return Err(SendError::Broken(error)),
            }
        }
    }

    /// Sends a request that asks for another protocol (RFC 9110 §7.8), over HTTP/1.1 on a connection of its own, and waits for the
    /// head of its response. After a 101 `hyper::upgrade::on(response)` returns the stream; any other response is as of
    /// [`Upstream::send`].
    pub async fn upgrade(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        dial::check(request.uri())?;
        let deadline = Instant::now() + self.head_timeout;
        let stream = self.dialer.dial_http1(request.uri()).await.map_err(SendError::Unreachable)?;
        match timeout_at(deadline, h1::upgrade(stream, request)).await {
            Err(_) => Err(SendError::Timeout),
            Ok(Err(error)) => Err(SendError::Broken(error)),
            Ok(Ok((response, connection))) => {
                let connection = connection.map_or(BodyConnection::None, BodyConnection::Exclusive);
                Ok(response.map(|body| Incoming::new(body, connection, AmbiguousFraming::Refuse)))
            }
        }
    }

    /// Sends a request and reads its complete response, at most `limit` bytes within `timeout`.
    pub async fn fetch(
        &self,
        request: Request<Body>,
        limit: usize,
        timeout: Duration,
    ) -> Result<FetchedResponse, SendError> {
        let whole = async {
            let (head, body) = self.exchange(request, AmbiguousFraming::Accept).await?.into_parts();
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
            Ok(FetchedResponse { status: head.status, headers: head.headers, body: collected })
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(SendError::Timeout))
    }
}

impl SendError {
    /// Nothing was sent to the peer.
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Inner errors contain addresses and TLS alerts, never data that was sent.
        match self {
            Self::Unreachable(error) => write!(f, "no connection: {}", innermost(error.as_ref())),
            Self::Timeout => f.write_str("no response in time"),
            Self::Broken(error) => write!(f, "the connection failed: {}", innermost(error.as_ref())),
            Self::TooLarge => f.write_str("the response was too large"),
        }
    }
}

impl Error for SendError {}

/// Whether `host` (as in a URL, IPv6 in brackets or not) is a loopback host.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The cause of an error: that of hyper's errors says what happened.
pub fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_certificates_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = UpstreamSettings { extra_ca_file: Some(file.path().to_owned()), ..UpstreamSettings::default() };
        let error = Upstream::new(&settings).err().unwrap().to_string();
        assert!(error.contains("holds no certificate") && error.contains("extra_ca_file"), "{error}");
    }
}
