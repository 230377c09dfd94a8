//! HTTP helpers of both servers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

/// A response.
pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A server: answers requests.
pub(crate) trait Answer: Clone + Send + 'static {
    /// One request, one reply.
    fn answer(self, request: Request<Incoming>) -> impl Future<Output = Reply> + Send;
}

/// Serves `server` on `listener` until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, server: impl Answer) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            // Ignores errors of a connection, such as a client's disconnect.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A complete response.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", value.to_string())
}

/// Server-sent events, each after its delay.
pub(crate) fn events(events: Vec<(Duration, String)>) -> Reply {
    let frames = stream::unfold(events.into_iter(), |mut rest| async move {
        let (pause, event) = rest.next()?;
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from(event))), rest))
    });
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// The request's body, or `None` above the limit.
pub(crate) async fn body(request: Request<Incoming>) -> Option<Bytes> {
    let whole = Limited::new(request.into_body(), BODY_LIMIT).collect().await.ok()?;
    Some(whole.to_bytes())
}

/// The members of a form or of a JSON object, by the content type. `None` when it is neither, or when a name is repeated (RFC 6749
/// §3.2: parameters must not be included more than once).
pub(crate) async fn fields(request: Request<Incoming>) -> Option<HashMap<String, String>> {
    let is_json =
        request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let body = body(request).await?;
    if !is_json {
        return parameters(&body);
    }
    let Value::Object(members) = serde_json::from_slice(&body).ok()? else { return None };
    let text = |value: Value| value.as_str().map(str::to_owned);
    members.into_iter().map(|(name, value)| Some((name, text(value)?))).collect()
}

/// The parameters of a query or form; `None` when a name is repeated.
pub(crate) fn parameters(text: &[u8]) -> Option<HashMap<String, String>> {
    let mut parameters = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(text) {
        if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
            return None;
        }
    }
    Some(parameters)
}

/// An agent may send a long conversation.
const BODY_LIMIT: usize = 32 << 20;
