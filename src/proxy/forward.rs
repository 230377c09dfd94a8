//! Sends what was attached, and takes in the head of the answer.

use http::header::{CONNECTION, LOCATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use hyper::body::Incoming;

use super::attach::Outgoing;
use super::reply::Refusal;
use crate::upstream::{SendError, Upstream};

/// Sends; follows nothing. A redirect is not passed on either: clients would send the prompt again, to whomever it names.
pub async fn forward(upstream: &Upstream, outgoing: Outgoing) -> Result<Response<Incoming>, Refusal> {
    let mut response = upstream.send(outgoing.into_request()).await.map_err(|error| {
        tracing::warn!(%error, "the upstream did not answer");
        match error {
            SendError::Timeout => Refusal::UpstreamTimeout,
            SendError::Unreachable(_) | SendError::Broken(_) | SendError::TooLarge => Refusal::UpstreamUnreachable,
        }
    })?;
    let redirects = response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
    if redirects || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::UpstreamRedirected);
    }
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = crossing(headers);
    Ok(response)
}

/// Fields of one connection and those that would act on the agent's side of it do not cross.
fn crossing(headers: HeaderMap) -> HeaderMap {
    const STAYING: [HeaderName; 7] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, SET_COOKIE, LOCATION];
    const STAYING_TOO: [&str; 6] =
        ["keep-alive", "proxy-connection", "proxy-authenticate", "alt-svc", "set-cookie2", "x-pixy-error"];
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut crossing = HeaderMap::with_capacity(headers.len());
    let mut current: Option<HeaderName> = None;
    for (name, value) in headers {
        current = name.or(current);
        let Some(name) = &current else { continue };
        let stays = STAYING.contains(name)
            || STAYING_TOO.contains(&name.as_str())
            || named.iter().any(|named| named == name.as_str());
        if !stays {
            crossing.append(name, value);
        }
    }
    crossing
}
