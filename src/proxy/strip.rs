//! Removes from a request what must not reach the upstream. A new header list is built from the fields that are forwarded; none
//! is edited in place.

use std::borrow::Cow;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::comma_lists::{has_prefix, list_members};
use super::route::Route;
use crate::secret::Secret;

/// A request's headers without credentials, hop-by-hop fields and those of browsers and proxies; and the keys that the agent
/// presented. Made by [`strip`] alone.
pub struct Stripped {
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<String>,
    presented: Vec<Secret>,
}

/// What is done with a field, decided by its name alone.
#[derive(Clone, Copy)]
struct FieldAction {
    /// Its values may be the agent's key to Pixy.
    is_key: bool,
    is_forwarded: bool,
}

impl Stripped {
    /// The fields that are forwarded, in their order.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The query without parameters that carry a key.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The keys that the agent presented, in header fields or the query.
    pub fn presented(&self) -> &[Secret] {
        &self.presented
    }
}

/// Hop-by-hop fields (RFC 9110 §7.6.1), compared with `_` read as `-`. `http2-settings` belongs to an obsolete upgrade to HTTP/2
/// (RFC 9113 §3.1), which some servers still support; its sender must name it in `Connection` (RFC 7540 §3.2.1), but may not.
///
/// These lists are patterns and not tables: a pattern compiles to a comparison of lengths first, and every field of every request is
/// compared.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "http2-settings"
    )
}

/// Fields that carry credentials of any provider.
fn is_credential(name: &str) -> bool {
    is_key(name)
        || matches!(
            name,
            "proxy-authorization" | "x-auth-token" | "x-amz-security-token" | "x-forwarded-access-token" | "cookie"
        )
}

/// Credentials that may be the agent's key to Pixy.
fn is_key(name: &str) -> bool {
    matches!(name, "authorization" | "x-api-key" | "api-key" | "x-goog-api-key")
}

/// Fields that reveal a request's origin, or that override its method or path.
fn is_misleading(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length" // set anew from the body's length
            | "expect"
            | "forwarded"
            | "via"
            | "origin"
            | "referer"
            | "x-real-ip"
            | "x-original-url"
            | "x-original-uri"
            | "x-original-method"
            | "x-rewrite-url"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "max-forwards"
    )
}

/// Query parameters that carry credentials.
const KEY_PARAMETERS: [&str; 4] = ["key", "api_key", "access_token", "token"];

/// Removes what must not reach the upstream. Consumes `headers`: later steps cannot read them.
pub fn strip(headers: HeaderMap, route: &Route) -> Stripped {
    let attach = route.profile().api.attach.header.as_str();
    let named: Vec<String> = list_members(&headers, &CONNECTION).collect();
    let mut presented = Vec::new();
    let mut forwarded: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(headers.len());
    let mut action = FieldAction { is_key: false, is_forwarded: false };
    for (name, value) in headers {
        // A repeated field yields its name with the first value only.
        if let Some(name) = &name {
            action = decide(name.as_str(), attach, &named);
        }
        if action.is_key {
            presented.extend(key_of(&value));
        }
        if action.is_forwarded
            && let Some(name) = name.or_else(|| forwarded.last().map(|(name, _)| name.clone()))
        {
            forwarded.push((name, value));
        }
    }
    let query = route.query().and_then(|query| strip_query(query, &mut presented));
    Stripped { headers: forwarded, query, presented }
}

/// Decides by the name, which is in lower case.
fn decide(name: &str, attach: &str, named: &[String]) -> FieldAction {
    // Some servers read `_` as `-`, and ignore either at the ends of a name.
    let dashed =
        if name.bytes().any(|byte| byte == b'_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
    let plain = dashed.trim_matches('-');
    let is_dropped = is_hop_by_hop(plain)
        || is_credential(plain)
        || is_misleading(plain)
        || plain == attach
        || has_prefix(plain, b"sec-")
        || has_prefix(plain, b"proxy-")
        || has_prefix(plain, b"x-forwarded-")
        || has_prefix(plain, b"x-pixy-")
        || named.iter().any(|field| *field == name || *field == plain);
    FieldAction { is_key: is_key(plain) || plain == attach, is_forwarded: !is_dropped }
}

/// Whether the request has exactly one Host (RFC 9112 §3.2): otherwise it is ambiguous.
pub fn has_one_host(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().count() == 1
}

/// The key in a credential field, with or without the scheme `Bearer`.
fn key_of(value: &HeaderValue) -> Option<Secret> {
    let text = value.to_str().ok()?.trim();
    let key = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => text,
    };
    (!key.is_empty()).then(|| Secret::new(key.to_owned()))
}

/// Moves key parameters to `presented`; the others stay unchanged.
fn strip_query(query: &str, presented: &mut Vec<Secret>) -> Option<String> {
    let mut kept = Vec::new();
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        if KEY_PARAMETERS.iter().any(|key| decoded.eq_ignore_ascii_case(key)) {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            presented.push(Secret::new(value.into_owned()));
        } else {
            kept.push(parameter);
        }
    }
    (!kept.is_empty()).then(|| kept.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_parameters_are_removed_from_the_query() {
        let mut presented = Vec::new();
        assert_eq!(strip_query("alt=sse&key=abc&x=%2f", &mut presented).as_deref(), Some("alt=sse&x=%2f"));
        assert_eq!(strip_query("%6bey=abc", &mut presented), None);
        assert_eq!(strip_query("beta=true", &mut presented).as_deref(), Some("beta=true"));
        assert_eq!(presented.iter().map(Secret::expose).collect::<Vec<_>>(), ["abc", "abc"]);
    }

    #[test]
    fn attack_13_every_connection_option_is_found() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static(""));
        headers.append(CONNECTION, HeaderValue::from_static("close, AUTHORIZATION"));
        headers.append(CONNECTION, HeaderValue::from_static(" x-custom "));
        headers.append(CONNECTION, HeaderValue::from_bytes(b"\xd8, x-beside-invalid-utf8").unwrap());
        let named: Vec<String> = list_members(&headers, &CONNECTION).collect();
        assert_eq!(named[..4], ["", "close", "authorization", "x-custom"]);
        assert_eq!(named[5], "x-beside-invalid-utf8");
    }
}
