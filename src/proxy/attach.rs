//! Attaches the token: the only place where it becomes a header.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::agent::AgentGrant;
use super::refusal::Refusal;
use super::route::Route;
use super::strip::Stripped;
use super::websocket_handshake::Handshake;
use crate::account::{Bearer, Unusable};
use crate::oauth::profile::{Api, Attach};
use crate::upstream::Body;

/// A request that passed every check and carries exactly one credential, the account's. Made by [`attach`] alone, and the only
/// type that `forward` sends.
pub struct Outgoing {
    request: Request<Body>,
    is_websocket: bool,
}

impl Outgoing {
    /// For `forward` alone.
    pub(crate) fn into_request(self) -> Request<Body> {
        self.request
    }

    /// It opens a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.is_websocket
    }
}

/// Builds the request to the upstream.
///
/// [`AgentGrant`], [`Route`] and [`Stripped`] can each be made only by their own check, so that a forgotten check is a compile error.
pub fn attach(
    _grant: &AgentGrant,
    route: &Route,
    stripped: &Stripped,
    bearer: &Bearer,
    method: Method,
    body: Body,
    handshake: Option<&Handshake>,
) -> Result<Outgoing, Refusal> {
    if !Arc::ptr_eq(bearer.profile(), route.profile()) {
        // The configuration has changed since the request was checked: the token may belong to another upstream.
        return Err(Refusal::Token(Unusable::Unavailable { retry_after: Duration::from_secs(1) }));
    }
    let api = &route.profile().api;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target(api, route.path(), stripped.query())?;
    *request.headers_mut() = headers(api, stripped.headers(), bearer)?;
    // A compressed response can be neither scrubbed nor counted. Measured on 200 KiB: gzip makes 60 KiB of a JSON response, 27 KiB
    // of events that are flushed one by one, and decoding costs 0.1 to 0.6 ms. A model writes that in minutes, so the bytes do not
    // matter; a decoder would be open to decompression bombs (which need a limit on responses) and be a second buffer.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(handshake) = handshake {
        handshake.apply(request.headers_mut());
    }
    Ok(Outgoing { request, is_websocket: handshake.is_some() })
}

fn target(api: &Api, path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let base = api.base_url.as_str().trim_end_matches('/');
    let target = query.map_or_else(|| [base, path].concat(), |query| [base, path, "?", query].concat());
    Uri::try_from(target).map_err(|_| Refusal::BadRequest("the request target is not a valid URI"))
}

fn headers(api: &Api, passing: &[(HeaderName, HeaderValue)], bearer: &Bearer) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::with_capacity(passing.len() + 4);
    for (name, value) in passing {
        headers.append(name, value.clone());
    }
    for (name, value) in api.headers.default.given() {
        headers.entry(&**name).or_insert_with(|| HeaderValue::clone(value));
    }
    for (name, members) in api.headers.merge.given() {
        merge(&mut headers, name, members.iter().map(|member| member.as_str()));
    }
    for (name, value) in api.headers.set.given() {
        headers.insert(&**name, HeaderValue::clone(value));
    }
    for (name, _) in api.headers.claims.given() {
        // Set by Pixy or absent: an agent must not choose the provider's account.
        headers.remove(&**name);
        // A login may hold claims that the profile no longer names.
        let claim = bearer.claim_headers().iter().find(|(claimed, _)| claimed.eq_ignore_ascii_case(name.as_str()));
        if let Some(value) = claim.and_then(|(_, value)| HeaderValue::from_str(value).ok()) {
            headers.insert(&**name, value);
        }
    }
    let (name, value) = credential(&api.attach, bearer)?;
    headers.insert(name, value);
    Ok(headers)
}

fn credential(attach: &Attach, bearer: &Bearer) -> Result<(HeaderName, HeaderValue), Refusal> {
    let token = bearer.token().expose();
    let value = match &attach.scheme {
        Some(scheme) => HeaderValue::try_from([scheme, " ", token].concat()),
        None => HeaderValue::from_str(token),
    };
    // Tokens with other bytes are refused when they are received, so this is unreachable; were it reached, nothing is sent.
    let mut value = value.map_err(|_| Refusal::UpstreamUnreachable)?;
    value.set_sensitive(true); // hidden from Debug and from HPACK's tables
    Ok((HeaderName::clone(&attach.header), value))
}

/// Appends `members` to a comma list that the agent may have sent, each once.
fn merge<'a>(headers: &mut HeaderMap, name: &HeaderName, members: impl Iterator<Item = &'a str>) {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let sent = values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty());
    let mut list: Vec<&str> = sent.collect();
    for member in members {
        if !list.contains(&member) {
            list.push(member);
        }
    }
    if let Ok(value) = HeaderValue::try_from(list.join(",")) {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_list_holds_each_member_once() {
        // nanocoai/nanoclaw PR#2204: the oauth beta was missing
        let name = HeaderName::from_static("anthropic-beta");
        let ours = ["oauth-2025-04-20".to_owned()];
        for (sent, expected) in [
            (&[][..], "oauth-2025-04-20"),
            (&["a,b"], "a,b,oauth-2025-04-20"),
            (&["a", "oauth-2025-04-20, b"], "a,oauth-2025-04-20,b"),
            (&["", " , "], "oauth-2025-04-20"),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(&name, HeaderValue::from_static(value));
            }
            merge(&mut headers, &name, ours.iter().map(String::as_str));
            assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), [expected], "{sent:?}");
        }
    }
}
