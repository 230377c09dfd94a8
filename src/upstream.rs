//! The way out: TLS connections to providers.
//!
//! Everything that leaves Pixy leaves through [`Upstream`]: it follows no redirect, reads no proxy setting from the
//! environment, and speaks plain HTTP to loopback hosts alone.

mod body;
mod dial;
mod h2_settings;
mod h1;
mod h2;
mod head;
mod idle;
mod pool;
mod resolve;
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

pub use body::Incoming;
use dial::Dialler;
use pool::{Lease, Pool};
pub use resolve::Resolver;
pub use roots::RootsError;

/// Any error, boxed: bodies and connectors have many.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A request's body on its way out.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How connections to providers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What no setting changes, but a test.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How often an HTTP/2 connection is asked whether it lives.
    pub ping_interval: Duration,
    /// How long it may take to answer.
    pub ping_timeout: Duration,
    /// When a connection that nobody uses is closed.
    pub idle: Duration,
    /// Who looks names up.
    pub resolver: Resolver,
}

/// A pool of connections to providers; cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    pool: Arc<Pool>,
    dialler: Arc<Dialler>,
    tls: Arc<ClientConfig>,
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

/// What becomes of an answer that does not say clearly where it ends, or that switches protocols unasked. Its connection
/// is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unclear {
    /// It goes on to an agent, who could read it otherwise than we do.
    Refused,
    /// It is read here, and may hold the only copy of a refresh token.
    Read,
}

/// Why one connection gave no answer.
enum Failure {
    /// The request never left and may be sent on another connection.
    NeverSent(Box<Request<Body>>, BoxError),
    /// It may have left, whole or in part: nobody may send it again.
    Broken(BoxError),
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
    /// Loads the trusted roots and makes an empty pool.
    pub fn new(settings: &Settings) -> Result<Self, RootsError> {
        Self::tuned(settings, Tuning::default())
    }

    /// The same for a test that cannot wait as long as a person, or must not ask a name server.
    pub fn tuned(settings: &Settings, tuning: Tuning) -> Result<Self, RootsError> {
        let tls = roots::client_config(settings.extra_ca_file.as_deref())?;
        let dialler = Arc::new(Dialler::new(&tls, tuning.resolver.clone(), settings.connect_timeout));
        let pool = Arc::new(Pool::new(Arc::clone(&dialler), tuning));
        let (head_timeout, idle_timeout) = (settings.head_timeout, settings.idle_timeout);
        Ok(Self { pool, dialler, tls: Arc::new(tls), head_timeout, idle_timeout })
    }

    /// Makes TLS ready, so that the first request does not pay for it. Takes tens of milliseconds of computing.
    pub fn warm_up(&self) {
        roots::warm_up(&self.tls);
    }

    /// The longest silence between two pieces of a response.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// Sends a request and waits for the head of its answer. Dropping the answer's body before its end ends the stream.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        self.exchange(request, Unclear::Refused).await
    }

    async fn exchange(&self, mut request: Request<Body>, unclear: Unclear) -> Result<Response<Incoming>, SendError> {
        let deadline = Instant::now() + self.head_timeout;
        let origin = self.pool.origin(request.uri())?;
        loop {
            let late = |_| SendError::Unreachable("no connection was free in time".into());
            let lease = timeout_at(deadline, origin.lease()).await.map_err(late)??;
            let (reused, sent) = match lease {
                Lease::Http1(lease) => (lease.is_reused(), timeout_at(deadline, lease.send(request, unclear)).await),
                Lease::Http2(lease) => (lease.is_reused(), timeout_at(deadline, lease.send(request, unclear)).await),
            };
            match sent {
                Err(_) => return Err(SendError::Timeout),
                Ok(Ok(response)) => return Ok(response),
                // A kept connection may have been closed by its server (RFC 9112 §9.3.1); that a fresh one is too
                // is worth no third try.
                Ok(Err(Failure::NeverSent(unsent, _))) if reused => request = *unsent,
                Ok(Err(Failure::NeverSent(_, error))) => return Err(SendError::Unreachable(error)),
                Ok(Err(Failure::Broken(error))) => return Err(SendError::Broken(error)),
            }
        }
    }

    /// Sends a request that asks for another protocol (RFC 9110 §7.8), over HTTP/1.1 on a connection of its own, and waits for
    /// the head of its answer. After a 101 `hyper::upgrade::on(response)` gives the stream; any other answer is one like
    /// those of [`Upstream::send`].
    pub async fn upgrade(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        dial::check(request.uri())?;
        let deadline = Instant::now() + self.head_timeout;
        let stream = self.dialler.dial_http1(request.uri()).await.map_err(SendError::Unreachable)?;
        match timeout_at(deadline, h1::upgrade(stream, request)).await {
            Err(_) => Err(SendError::Timeout),
            Ok(answer) => answer.map_err(SendError::Broken),
        }
    }

    /// Sends a request and reads its whole answer, at most `limit` bytes within `timeout`.
    pub async fn fetch(&self, request: Request<Body>, limit: usize, timeout: Duration) -> Result<Fetched, SendError> {
        let whole = async {
            let (head, body) = self.exchange(request, Unclear::Read).await?.into_parts();
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

/// Whether `host` (as in a URL, IPv6 in brackets or not) is this machine itself.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_that_is_not_one_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let settings = Settings { extra_ca_file: Some(file.path().to_owned()), ..Settings::default() };
        let error = Upstream::new(&settings).err().unwrap().to_string();
        assert!(error.contains("holds no certificate") && error.contains("extra_ca_file"), "{error}");
    }
}
