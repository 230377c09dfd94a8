//! One request to a neighbour, as an agent would send it: over TCP or a Unix socket, without TLS.

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

/// Where somebody may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// An answer; of its body only the beginning.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// `GET path`, with a key where one is given. The error is a sentence's end.
pub(super) async fn get(place: &Place, path: &str, key: Option<&Secret>) -> Result<Answer, String> {
    let call = async {
        match place {
            Place::Tcp { host, port } => {
                let stream = TcpStream::connect((bare(host), *port)).await.map_err(|error| error.to_string())?;
                exchange(stream, &format!("{host}:{port}"), path, key).await
            }
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
                exchange(stream, "localhost", path, key).await
            }
        }
    };
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Whether somebody listens there.
pub(super) async fn is_open(host: &str, port: u16) -> Result<(), String> {
    match timeout(PATIENCE, TcpStream::connect((bare(host), port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

impl Answer {
    /// The code by which Pixy, and nobody else, says why it did not pass a request on.
    pub(super) fn code(&self) -> Option<&str> {
        self.headers.get("x-pixy-error")?.to_str().ok()
    }
}

impl Place {
    /// The place and the path in it, with `/` at its end only when it is no more than that.
    pub(super) fn of(url: &str) -> Option<(Self, String)> {
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

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(socket) => write!(f, "unix:{}", socket.display()),
        }
    }
}

async fn exchange<S>(stream: S, host: &str, path: &str, key: Option<&Secret>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn std::fmt::Display| format!("it does not speak HTTP ({error})");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header(HOST, host);
    if let Some(key) = key {
        request = request.header(AUTHORIZATION, format!("Bearer {}", key.expose()));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let (head, body) = sender.send_request(request).await.map_err(|error| failed(&error))?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// An IPv6 address in a URL has brackets; in a connection it has none.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_says_where_and_what() {
        let tcp = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        assert_eq!(Place::of("http://127.0.0.1:8700/claude/"), Some((tcp("127.0.0.1", 8700), "/claude".to_owned())));
        assert_eq!(Place::of("http://pixy"), Some((tcp("pixy", 80), "/".to_owned())));
        assert_eq!(Place::of("http://[::1]:8700/a"), Some((tcp("[::1]", 8700), "/a".to_owned())));
        let socket = Place::Unix("/run/pixy/agent.sock".into());
        assert_eq!(Place::of("unix:/run/pixy/agent.sock"), Some((socket, "/".to_owned())));
        assert_eq!(Place::of("https://api.anthropic.com"), None, "Pixy speaks no TLS to agents");
        assert_eq!(Place::of("nonsense"), None);
    }
}
