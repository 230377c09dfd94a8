//! Sends what was attached, and takes in the head of the answer.

use http::header::{CONNECTION, CONTENT_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::Body as _;

use super::attach::Outgoing;
use super::refusal::Refusal;
use super::request_id::RequestId;
use super::response_scrub::Scrub;
use super::strip::begins;
use super::upgrade;
use crate::upstream::{Incoming, SendError, Upstream};

/// Fields that stay behind: those of one connection, and those that would act on the agent's side or on a program between it
/// and Pixy. All others cross, scrubbed.
fn stays(name: &str) -> bool {
    matches!(
        name,
        // Of one connection (RFC 9110 §7.6.1).
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        // They name where to go instead: past Pixy, with the agent's own key.
        | "location" | "content-location" | "refresh" | "link" | "alt-svc"
        // A client would keep them and apply them to Pixy's host, with everything else that is there.
        | "set-cookie" | "set-cookie2" | "clear-site-data" | "strict-transport-security" | "public-key-pins"
        | "public-key-pins-report-only" | "service-worker-allowed"
        // A browser would send reports about its person there, or show a page what is timed.
        | "nel" | "report-to" | "reporting-endpoints" | "timing-allow-origin"
        // They are about the credential, which is not the agent's: no client is to answer a challenge with what it has.
        | "www-authenticate" | "authentication-info"
        // A web server between the agent and Pixy would send the file that they name.
        | "x-accel-redirect" | "x-sendfile"
    )
    // Of proxies, what opens an origin to web pages (Fetch standard), and what Pixy alone says.
    || begins(name, b"proxy-") || begins(name, b"access-control-") || begins(name, b"x-pixy-")
}

/// Sends; follows nothing. A redirect is not passed on either: clients would send the prompt again, to whomever it names.
pub async fn forward(
    id: RequestId,
    upstream: &Upstream,
    outgoing: Outgoing,
    scrub: &mut Scrub,
) -> Result<Response<Incoming>, Refusal> {
    let asked = outgoing.asks_for_socket();
    let sent = if asked {
        Box::pin(upstream.upgrade(outgoing.into_request())).await // boxed, for it is rare and large
    } else {
        upstream.send(outgoing.into_request()).await
    };
    let mut response = sent.map_err(|error| {
        tracing::warn!(request_id = %id, %error, "the upstream did not answer");
        match error {
            SendError::Timeout => Refusal::UpstreamTimeout,
            SendError::Unreachable(_) | SendError::Broken(_) | SendError::TooLarge => Refusal::UpstreamUnreachable,
        }
    })?;
    if asked && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let stream = hyper::upgrade::on(&mut response);
        let (head, body) = response.into_parts();
        if !upgrade::is_accepted(&head.headers) {
            return Err(Refusal::UpstreamUnreachable);
        }
        let mut answer = answer(head.status, head.headers, body, scrub);
        upgrade::accept(&mut answer, stream);
        return Ok(answer);
    }
    let (head, body) = response.into_parts();
    let redirects = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
    if redirects || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::UpstreamRedirected);
    }
    if is_encoded(&head.headers) && !body.is_end_stream() {
        return Err(Refusal::UpstreamEncoded);
    }
    let mut answer = answer(head.status, head.headers, body, scrub);
    if head.status == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2 wants a challenge with every 401: one that leads nowhere.
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Ok(answer)
}

/// Made anew from status, headers and body: hyper's extensions hold the upstream's reason phrase, which would be written out.
fn answer(status: StatusCode, headers: HeaderMap, body: Incoming, scrub: &mut Scrub) -> Response<Incoming> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = scrub.headers(crossing(headers));
    answer
}

/// What is encoded cannot be scrubbed, and is not decoded: it was asked for without (see `attach`). An encoding as a transfer
/// coding (RFC 9112 §7) does not get this far.
fn is_encoded(headers: &HeaderMap) -> bool {
    members(headers, &CONTENT_ENCODING).any(|coding| !coding.is_empty() && coding != "identity")
}

/// Taken out of what came, which may change the order of the fields: it has no meaning (RFC 9110 §5.3). That of the values of one
/// field stays.
fn crossing(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<String> = members(&headers, &CONNECTION).collect();
    let stays = |name: &HeaderName| stays(name.as_str()) || named.iter().any(|named| named == name.as_str());
    let staying: Vec<HeaderName> = headers.keys().filter(|name| stays(name)).cloned().collect();
    for name in staying {
        headers.remove(name);
    }
    headers
}

/// The members of a comma list, in lower case. One that is no text hides none beside it.
pub(super) fn members(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    values.map(|member| String::from_utf8_lossy(member.trim_ascii()).to_ascii_lowercase())
}
