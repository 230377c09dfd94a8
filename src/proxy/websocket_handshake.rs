//! The opening handshake of a WebSocket (RFC 6455 §4) on both sides of the gateway.
//!
//! Extensions are not offered to the upstream: frames that `permessage-deflate` compresses cannot be scrubbed, and a client that
//! offers it continues without it (RFC 7692 §5).

use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;

use super::comma_lists::list_members;
use super::refusal::Refusal;
use crate::server::Upgrade;
use crate::upstream::Incoming;

/// An agent's request for a WebSocket, taken out of its head. Made by [`Handshake::take`] alone.
pub struct Handshake {
    key: HeaderValue,
    protocols: Option<HeaderValue>,
    /// The agent's connection, once it is upgraded.
    pub(super) agent: OnUpgrade,
    /// Marks the connection as upgraded, for the server.
    pub(super) upgrade: Upgrade,
}

/// Whether a subprotocol passes. Browsers, which cannot set headers, put keys, organization and project into others.
fn passes(protocol: &str) -> bool {
    protocol == "realtime" || protocol.starts_with("openai-beta.")
}

/// Whether a request asks for a WebSocket.
pub fn is_requested(headers: &HeaderMap) -> bool {
    list_members(headers, &UPGRADE).any(|protocol| protocol == "websocket")
}

/// The refusal for a request that asks for a WebSocket: 426 instead of 401. After a 401 clients repeat the handshake without end;
/// after a 426 they fall back to plain requests, which then show the reason.
pub fn refuse(refusal: Refusal) -> Refusal {
    if refusal.status() == StatusCode::UNAUTHORIZED { Refusal::NoWebSocket } else { refusal }
}

/// Whether a 101 accepts the WebSocket without extensions: none was offered (RFC 6455 §4.1).
pub fn is_accepted(headers: &HeaderMap) -> bool {
    list_members(headers, &UPGRADE).eq(["websocket".to_owned()])
        && headers.contains_key(SEC_WEBSOCKET_ACCEPT)
        && !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
}

/// Completes a 101 for the agent, with the upstream's connection in its extensions.
pub fn switch_protocols(response: &mut Response<Incoming>, upstream: OnUpgrade) {
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH); // has no meaning in a 101 (RFC 9110 §8.6)
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.extensions_mut().insert(upstream);
}

/// Whether the value is the base64 of 16 bytes.
fn is_key(value: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    value.len() == 24 && value.ends_with(b"==") && value[..22].iter().all(is_digit)
}

impl Handshake {
    /// Takes the handshake out of a request (RFC 6455 §4.2.1).
    pub fn take(head: &mut request::Parts, body: &impl Body) -> Result<Self, Refusal> {
        let headers = &head.headers;
        let single = |name| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).cloned()
        };
        let key = single(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
        // An upstream that upgrades before it has read a body would read the body as frames, sent before its 101.
        let is_valid = body.is_end_stream()
            && list_members(headers, &CONNECTION).any(|option| option == "upgrade")
            && single(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let (Some(key), true) = (key, is_valid) else {
            return Err(Refusal::BadRequest("the WebSocket handshake is invalid (RFC 6455, section 4.2.1)"));
        };
        let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let forwarded: Vec<&str> =
            offered.flat_map(|value| value.split(',').map(str::trim)).filter(|protocol| passes(protocol)).collect();
        let protocols = HeaderValue::try_from(forwarded.join(", ")).ok().filter(|value| !value.is_empty());
        let (agent, upgrade) = (head.extensions.remove::<OnUpgrade>(), head.extensions.remove::<Upgrade>());
        let (Some(agent), Some(upgrade)) = (agent, upgrade) else { return Err(Refusal::NoWebSocket) };
        Ok(Self { key, protocols, agent, upgrade })
    }

    /// Adds the handshake to the request to the upstream.
    pub fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        if let Some(protocols) = &self.protocols {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.clone());
        }
    }
}
