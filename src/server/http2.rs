//! HTTP/2 with prior knowledge: its bounds, and what a request must be before it is asked for anything.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri};
use hyper::server::conn::http2::Builder;
use hyper_util::rt::TokioTimer;

use super::Limits;
use super::framing::request_target;
use super::reject::Rejection;
use super::stall::{STREAM, StallTracker};

/// A client that answers no PING is gone.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client may send before it is read: a stream's, and a connection's.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Of an answer, a stream keeps no more than this for a client that does not make room.
const SEND_BUFFER: usize = 64 * 1024;

/// Streams that were reset before they were looked at (rapid reset, CVE-2023-44487), and streams that we had to reset: past
/// these, the connection ends.
const PENDING_RESETS: usize = 20;
const OUR_RESETS: usize = 64;

/// Runs the tasks of streams, and ends one whose client does not make room for its answer, or whose place another needs.
#[derive(Clone)]
pub(super) struct Streams {
    idle_time: Duration,
}

/// Everything that a client can grow is bounded here, but for CONTINUATION frames, empty DATA, PING and SETTINGS: h2 bounds
/// those itself (Cargo.toml asks for a version that does).
pub(super) fn builder(limits: &Limits) -> Builder<Streams> {
    let mut builder = Builder::new(Streams { idle_time: limits.idle_time });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_frame_size(16 * 1024)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OUR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Judges a request by the rules of HTTP/1 heads (h2 has seen to the rest of RFC 9113 §8: pseudo-fields, fields of one
/// connection, Content-Length against DATA), and puts it into the form in which one comes over HTTP/1: the authority in
/// `Host`, the target a path.
pub(super) fn normalise<B>(request: &mut Request<B>, limits: &Limits) -> Result<(), Rejection> {
    request_target::check_method(request.method().as_str().as_bytes())?;
    let path = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    request_target::check(path.as_bytes(), limits)?;
    let headers = request.headers();
    if headers.len() > limits.header_fields {
        return Err(Rejection::HeadTooLarge);
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Rejection::BadRequest("a request may carry one Content-Length"));
    }
    for value in headers.get_all(EXPECT) {
        request_target::check_expectation(value.as_bytes())?;
    }
    let host = authority(request)?;
    let path: PathAndQuery = path.parse().map_err(|_| Rejection::BadRequest("the request target is not one"))?;
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(HOST, host);
    Ok(())
}

/// The one authority: `:authority`, or `Host`, or both with one text (RFC 9113 §8.3.1).
fn authority<B>(request: &Request<B>) -> Result<HeaderValue, Rejection> {
    const ONE: Rejection = Rejection::BadRequest("a request must carry exactly one authority");
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = match (request.uri().authority(), host, more) {
        (_, _, Some(_)) | (None, None, None) => return Err(ONE),
        (None, Some(host), None) => host.clone(),
        (Some(authority), host, None) => {
            if host.is_some_and(|host| host.as_bytes() != authority.as_str().as_bytes()) {
                return Err(Rejection::BadRequest("Host and :authority differ"));
            }
            HeaderValue::from_str(authority.as_str()).map_err(|_| ONE)?
        }
    };
    request_target::check_authority(authority.as_bytes())?;
    Ok(authority)
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (waits, idle_time) = (StallTracker::of_stream(), self.idle_time);
        let stream = STREAM.scope(Arc::clone(&waits), stream);
        tokio::spawn(async move {
            tokio::select! {
                () = stream => {}
                () = waits.gone() => tracing::debug!("a client that waited gave its place to another"),
                () = waits.stalled(idle_time) => tracing::debug!("a client stopped taking an answer"),
            }
        });
    }
}
