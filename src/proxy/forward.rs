//! Sends the request to the upstream and receives the head of its response.

use http::header::{CONNECTION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Body as _;

use super::attach::Outgoing;
use super::comma_lists::{has_prefix, list_members};
use super::refusal::Refusal;
use super::representation;
use super::request_id::RequestId;
use super::response_scrub::ResponseScrub;
use super::websocket_handshake;
use crate::upstream::{Incoming, SendError, Upstream};

/// Response fields that are not forwarded: those of one connection, and those that would take effect in the agent or in a program
/// between it and Pixy. All others are forwarded, scrubbed.
fn is_dropped(name: &str) -> bool {
    matches!(
        name,
        // Hop-by-hop (RFC 9110 §7.6.1).
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        // They redirect the client past Pixy, with the agent's own key.
        | "location" | "content-location" | "refresh" | "link" | "alt-svc"
        // A client would store them and apply them to Pixy's host, with everything else that runs there.
        | "set-cookie" | "set-cookie2" | "clear-site-data" | "strict-transport-security" | "public-key-pins"
        | "public-key-pins-report-only" | "service-worker-allowed"
        // A browser would report its user's activity, or expose timings to a page.
        | "nel" | "report-to" | "reporting-endpoints" | "timing-allow-origin"
        // They concern Pixy's credential: a client must not answer the challenge with its own.
        | "www-authenticate" | "authentication-info"
        // A web server between the agent and Pixy would serve the file that they name.
        | "x-accel-redirect" | "x-sendfile"
    )
    // Of proxies, CORS (Fetch standard), and Pixy's own fields.
    || has_prefix(name, b"proxy-") || has_prefix(name, b"access-control-") || has_prefix(name, b"x-pixy-")
}

/// Sends the request. Redirects are neither followed nor forwarded: clients would send the prompt again, to the host they name.
pub async fn forward(
    id: RequestId,
    upstream: &Upstream,
    outgoing: Outgoing,
    scrub: &mut ResponseScrub,
) -> Result<Response<Incoming>, Refusal> {
    let is_websocket = outgoing.is_websocket();
    let sent = if is_websocket {
        Box::pin(upstream.upgrade(outgoing.into_request())).await // boxed: it is rare and large
    } else {
        upstream.send(outgoing.into_request()).await
    };
    let mut response = sent.map_err(|error| {
        tracing::warn!(request_id = %id, %error, "the upstream did not respond");
        match error {
            SendError::Timeout => Refusal::UpstreamTimeout,
            SendError::Unreachable(_) | SendError::Broken(_) | SendError::TooLarge => Refusal::UpstreamUnreachable,
        }
    })?;
    if is_websocket && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let stream = hyper::upgrade::on(&mut response);
        let (head, body) = response.into_parts();
        if !websocket_handshake::is_accepted(&head.headers) {
            return Err(Refusal::UpstreamUnreachable);
        }
        let mut response = rebuild(head.status, head.headers, body, scrub);
        websocket_handshake::switch_protocols(&mut response, stream);
        return Ok(response);
    }
    receive(response, scrub)
}

/// The response to a request for no WebSocket, or to one that was refused: checked, without the fields that are not forwarded, and
/// with a scrubbed head.
pub(super) fn receive(response: Response<Incoming>, scrub: &mut ResponseScrub) -> Result<Response<Incoming>, Refusal> {
    let (head, body) = response.into_parts();
    let redirects = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
    if redirects || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::UpstreamRedirected);
    }
    // A 401 is checked after the retry that it may cause (`Proxy::pass`).
    if !body.is_end_stream() && head.status != StatusCode::UNAUTHORIZED {
        representation::check(head.status, &head.headers)?;
    }
    let mut response = rebuild(head.status, head.headers, body, scrub);
    if head.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2 requires a challenge with a 401; this one names no realm.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Ok(response)
}

/// A new response from status, headers and body: hyper's extensions hold the upstream's reason phrase, which hyper would write.
fn rebuild(status: StatusCode, headers: HeaderMap, body: Incoming, scrub: &mut ResponseScrub) -> Response<Incoming> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = scrub.headers(drop_fields(headers));
    response
}

/// Removes the fields that are not forwarded. The order of fields may change, which has no meaning (RFC 9110 §5.3); the values of
/// one field keep theirs.
fn drop_fields(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<String> = list_members(&headers, &CONNECTION).collect();
    let is_dropped = |name: &HeaderName| is_dropped(name.as_str()) || named.iter().any(|named| named == name.as_str());
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| is_dropped(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    headers
}
