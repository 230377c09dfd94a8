//! Takes out of a request everything that must not reach the upstream. The new header list is built from what may pass;
//! nothing is patched in place.

use std::borrow::Cow;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::route::Route;
use crate::secret::Secret;

/// A request's headers without credentials, hop-by-hop fields and what only a browser or a proxy sends; and the keys that the
/// agent presented, taken out. Made by [`strip`] alone.
pub struct Stripped {
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<String>,
    presented: Vec<Secret>,
}

/// What becomes of a field, whatever its values are.
#[derive(Clone, Copy)]
struct Fate {
    /// Its values may be the agent's key to Pixy.
    is_key: bool,
    passes: bool,
}

impl Stripped {
    /// What passes, in the order it came.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The query without what carries a key.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Keys that the agent presented, wherever it put them.
    pub fn presented(&self) -> &[Secret] {
        &self.presented
    }
}

/// Fields of one connection (RFC 9110 §7.6.1), compared with `_` read as `-`. The last one went with an upgrade to HTTP/2, which
/// has ended (RFC 9113 §3.1), but not everywhere: its sender had to name it in `Connection` (RFC 7540 §3.2.1), and may not have.
///
/// These lists are patterns and not tables: a pattern is compiled to a look at the length first, and they are asked about every
/// field of every request.
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

/// Fields that carry credentials, of any provider.
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

/// Fields that tell where a request came from, or ask for another meaning than method and path have.
fn is_misleading(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "content-length" // written anew from the body's true length
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

/// Takes out what must not pass. `headers` is consumed: nothing can be read from it past this point.
pub fn strip(headers: HeaderMap, route: &Route) -> Stripped {
    let attach = route.profile().api.attach.header.as_str();
    let named = connection_named(&headers);
    let mut presented = Vec::new();
    let mut passing: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(headers.len());
    let mut fate = Fate { is_key: false, passes: false };
    for (name, value) in headers {
        // Of a field that comes several times, the name stands with the first value only.
        if let Some(name) = &name {
            fate = decide(name.as_str(), attach, &named);
        }
        if fate.is_key {
            presented.extend(key_of(&value));
        }
        if fate.passes
            && let Some(name) = name.or_else(|| passing.last().map(|(name, _)| name.clone()))
        {
            passing.push((name, value));
        }
    }
    let query = route.query().and_then(|query| strip_query(query, &mut presented));
    Stripped { headers: passing, query, presented }
}

/// Decides by the name alone, which is in lower case.
fn decide(name: &str, attach: &str, named: &[String]) -> Fate {
    // Some servers read `_` as `-`, and a name with either at an end as the name without.
    let dashed =
        if name.bytes().any(|byte| byte == b'_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
    let plain = dashed.trim_matches('-');
    let stays = is_hop_by_hop(plain)
        || is_credential(plain)
        || is_misleading(plain)
        || plain == attach
        || begins(plain, b"sec-")
        || begins(plain, b"proxy-")
        || begins(plain, b"x-forwarded-")
        || begins(plain, b"x-pixy-")
        || named.iter().any(|field| *field == name || *field == plain);
    Fate { is_key: is_key(plain) || plain == attach, passes: !stays }
}

/// As `starts_with`, with a length that the compiler knows.
pub(super) fn begins<const LENGTH: usize>(name: &str, with: &[u8; LENGTH]) -> bool {
    name.as_bytes().first_chunk() == Some(with)
}

/// The one Host of a request (RFC 9112 §3.2): none or several is not a request that means one thing.
pub fn has_one_host(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().count() == 1
}

/// Every field that any `Connection` names, in lower case.
fn connection_named(headers: &HeaderMap) -> Vec<String> {
    // Member by member: one that is no text must not hide those beside it.
    let members = headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    members.map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase()).collect()
}

/// The key in a credential field, with or without a scheme before it.
fn key_of(value: &HeaderValue) -> Option<Secret> {
    let text = value.to_str().ok()?.trim();
    let key = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => text,
    };
    (!key.is_empty()).then(|| Secret::new(key.to_owned()))
}

/// Takes key parameters out; everything else stays byte for byte.
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
    fn keys_leave_the_query_and_the_rest_stays() {
        let mut presented = Vec::new();
        assert_eq!(strip_query("alt=sse&key=abc&x=%2f", &mut presented).as_deref(), Some("alt=sse&x=%2f"));
        assert_eq!(strip_query("%6bey=abc", &mut presented), None);
        assert_eq!(strip_query("beta=true", &mut presented).as_deref(), Some("beta=true"));
        assert_eq!(presented.iter().map(Secret::expose).collect::<Vec<_>>(), ["abc", "abc"]);
    }

    #[test]
    fn attack_13_connection_names_count_in_every_instance_and_case() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static(""));
        headers.append(CONNECTION, HeaderValue::from_static("close, AUTHORIZATION"));
        headers.append(CONNECTION, HeaderValue::from_static(" x-custom "));
        headers.append(CONNECTION, HeaderValue::from_bytes(b"\xd8, x-beside-no-text").unwrap());
        let named = connection_named(&headers);
        assert_eq!(named[..4], ["", "close", "authorization", "x-custom"]);
        assert_eq!(named[5], "x-beside-no-text");
    }
}
