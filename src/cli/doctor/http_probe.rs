//! One request as an agent would send it: over TCP or a Unix socket, without TLS.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::secret::Secret;

/// Where a program may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeTarget {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// An answer, with at most [`MAX_BODY_BYTES`] of body.
#[derive(Debug)]
pub(super) struct ProbeAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum ProbeError {
    NotConnected(std::io::Error),
    TimedOut,
    NotHttp(hyper::Error),
    /// The path is not one of HTTP.
    BadRequest(http::Error),
}

/// Sends `GET path`, with the key as bearer token if there is one.
pub(super) async fn get(target: &ProbeTarget, path: &str, key: Option<&Secret>) -> Result<ProbeAnswer, ProbeError> {
    let call = async {
        match target {
            ProbeTarget::Tcp { host, port } => {
                let stream =
                    TcpStream::connect((without_brackets(host), *port)).await.map_err(ProbeError::NotConnected)?;
                exchange(stream, &format!("{host}:{port}"), path, key).await
            }
            ProbeTarget::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(ProbeError::NotConnected)?;
                exchange(stream, "localhost", path, key).await
            }
        }
    };
    timeout(TIMEOUT, call).await.unwrap_or(Err(ProbeError::TimedOut))
}

/// Whether a TCP connection can be opened.
pub(super) async fn is_open(host: &str, port: u16) -> bool {
    matches!(timeout(TIMEOUT, TcpStream::connect((without_brackets(host), port))).await, Ok(Ok(_)))
}

impl ProbeAnswer {
    /// The code with which Pixy, and no other program, refuses a request.
    pub(super) fn code(&self) -> Option<&str> {
        self.headers.get("x-pixy-error")?.to_str().ok()
    }
}

impl ProbeTarget {
    /// The target and the path of a base URL; only the path `/` ends with a slash.
    pub(super) fn parse(url: &str) -> Option<(Self, String)> {
        if let Some(socket) = url.strip_prefix("unix:") {
            return socket.starts_with('/').then(|| (Self::Unix(PathBuf::from(socket)), "/".to_owned()));
        }
        let uri: Uri = url.parse().ok()?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http"))?.to_owned();
        let path = uri.path().trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        Some((Self::Tcp { host, port: uri.port_u16().unwrap_or(80) }, path.to_owned()))
    }
}

impl std::fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(socket) => write!(f, "unix:{}", socket.display()),
        }
    }
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotConnected(error) => error.fmt(f),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::NotHttp(error) => write!(f, "it does not speak HTTP ({error})"),
            Self::BadRequest(error) => error.fmt(f),
        }
    }
}

async fn exchange<S>(stream: S, host: &str, path: &str, key: Option<&Secret>) -> Result<ProbeAnswer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(ProbeError::NotHttp)?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, host);
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(ProbeError::BadRequest)?;
    let (head, body) = sender.send_request(request).await.map_err(ProbeError::NotHttp)?.into_parts();
    let body =
        Limited::new(body, MAX_BODY_BYTES).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(ProbeAnswer { status: head.status, headers: head.headers, body })
}

/// An IPv6 address has brackets in a URL, but not in a socket address.
fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_parsed() {
        let tcp = |host: &str, port| ProbeTarget::Tcp { host: host.to_owned(), port };
        assert_eq!(
            ProbeTarget::parse("http://127.0.0.1:8700/claude/"),
            Some((tcp("127.0.0.1", 8700), "/claude".to_owned()))
        );
        assert_eq!(ProbeTarget::parse("http://pixy"), Some((tcp("pixy", 80), "/".to_owned())));
        assert_eq!(ProbeTarget::parse("http://[::1]:8700/a"), Some((tcp("[::1]", 8700), "/a".to_owned())));
        let socket = ProbeTarget::Unix("/run/pixy/agent.sock".into());
        assert_eq!(ProbeTarget::parse("unix:/run/pixy/agent.sock"), Some((socket, "/".to_owned())));
        assert_eq!(ProbeTarget::parse("https://api.anthropic.com"), None, "Pixy speaks no TLS to agents");
        assert_eq!(ProbeTarget::parse("nonsense"), None);
    }
}
