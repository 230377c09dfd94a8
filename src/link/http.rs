//! HTTP of every link surface: the layers that each request passes, and how calls, answers and problems are read and written.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use tower::{ServiceBuilder, ServiceExt as _};

use super::page::SECURITY_HEADERS;
use super::problem::Problem;
use crate::api::Call;
use crate::server::{Rejection, TimeoutBody};
use crate::upstream::BoxError;

/// The body of a response.
pub type LinkBody = UnsyncBoxBody<Bytes, BoxError>;

/// The body of a request, bounded in size and in time.
pub(super) type RequestBody = Limited<TimeoutBody<Incoming>>;

/// The largest body is an export of many logins.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A body fails when no byte arrives for this long.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer than discovery, token endpoint and the keys of an id_token together.
const CALL_TIMEOUT: Duration = Duration::from_mins(2);

/// Serves one request of a link surface: bounded by the layers, answered by `handler`, with the security headers in any case.
pub(super) fn serve<F, A>(request: Request<Incoming>, handler: F) -> impl Future<Output = Response<LinkBody>> + Send
where
    F: FnMut(Request<RequestBody>) -> A + Send,
    A: Future<Output = Result<Response<LinkBody>, Problem>> + Send,
{
    let bounded = ServiceBuilder::new()
        // Ends with the head of the response: server-sent events have no time limit.
        .timeout(CALL_TIMEOUT)
        // No call reads an unbounded body, or waits without end for the rest of one.
        .map_request(|request: Request<Incoming>| {
            request.map(|body| Limited::new(TimeoutBody::new(body, BODY_IDLE_TIMEOUT), MAX_BODY_BYTES))
        })
        .service_fn(handler);
    let answer = bounded.oneshot(request);
    let answer = answer.map(|result| result.unwrap_or_else(|error: BoxError| problem_response(&problem_of(error))));
    answer.map(with_security_headers)
}

/// The response of every link surface to a rejected request.
pub(super) fn reject(rejection: Rejection) -> Response<LinkBody> {
    with_security_headers(problem_response(&Problem::rejected(rejection)))
}

/// The handler fails with a [`Problem`], the layers with a timeout.
fn problem_of(error: BoxError) -> Problem {
    error.downcast().map_or_else(|_elapsed| Problem::timed_out(), |problem: Box<Problem>| *problem)
}

fn with_security_headers(mut response: Response<LinkBody>) -> Response<LinkBody> {
    let headers = SECURITY_HEADERS.iter();
    let headers = headers.map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

/// Reads the body of a call; without one, the call must accept `null`.
pub(super) async fn read<C: Call>(request: Request<RequestBody>) -> Result<C::Request, Problem> {
    read_at_most::<C>(MAX_BODY_BYTES, request).await
}

/// As [`read`], with a smaller bound in bytes.
pub(super) async fn read_at_most<C: Call>(most: usize, request: Request<RequestBody>) -> Result<C::Request, Problem> {
    let body = read_body(most, request).await?;
    let body = if body.is_empty() { b"null" } else { &*body };
    // serde's own message could repeat what was sent.
    serde_json::from_slice(body).map_err(|_| Problem::bad_body("The body is not the JSON that this call takes."))
}

async fn read_body(most: usize, request: Request<RequestBody>) -> Result<Vec<u8>, Problem> {
    if request.body().is_end_stream() {
        return Ok(Vec::new());
    }
    let is_json =
        request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        // A form of another site can send text/plain without a preflight request, but not JSON.
        return Err(Problem::bad_body("The body must be application/json."));
    }
    let unreadable = || Problem::bad_body("The body is too large, or ended early.");
    let mut body = std::pin::pin!(request.into_body());
    // Copied: a client that sends each byte as a chunk must not occupy a buffer for each.
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| unreadable())?.into_data() {
            if data.len() > most - text.len() {
                return Err(unreadable());
            }
            text.extend_from_slice(&data);
        }
    }
    Ok(text)
}

pub(super) fn response(content_type: &'static str, body: impl Into<Bytes>) -> Response<LinkBody> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn html_response(document: String) -> Response<LinkBody> {
    response("text/html; charset=utf-8", document)
}

/// The answer of a call.
#[allow(clippy::unnecessary_wraps, reason = "the end of every call, which may fail")]
pub(super) fn answer<C: Call>(body: &C::Answer) -> Result<Response<LinkBody>, Problem> {
    // No answer holds a map with keys that are not strings, the one thing that JSON cannot write.
    Ok(response("application/json", serde_json::to_string(body).unwrap_or_default()))
}

pub(super) fn problem_response(problem: &Problem) -> Response<LinkBody> {
    let body = serde_json::to_string(problem).unwrap_or_default(); // four strings and a number always serialise
    let mut response = response("application/problem+json", body);
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
