//! The invariants of a request's way, for `crate::fuzzing`. It takes the very steps of `Proxy::pass`.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use url::Url;

use super::agent::Agents;
use super::route::{self, Purpose};
use super::{attach, strip};
use crate::account::{Account, Bearer};
use crate::clock::Clock;
use crate::upstream::Body;

/// The first byte chooses the method and the kind of listener, the rest is the request target.
pub(crate) fn target_and_path(account: &Arc<Account>, bearer: &Bearer, data: &[u8]) {
    let Some((&choice, target)) = data.split_first() else { return };
    let methods = [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::OPTIONS];
    let method = methods[usize::from(choice / 2) % methods.len()].clone();
    let bound = choice % 2 == 0;
    let Ok(uri) = Uri::try_from(target) else { return };
    if !bound && uri.path().split('/').nth(1) != Some(account.name().as_str()) {
        return; // another account's, or nobody's
    }
    let Some((route, sent)) = pass(account, bearer, bound, &method, &uri, HeaderMap::new()) else { return };
    assert!(uri.authority().is_none() && uri.scheme().is_none(), "a target names no server");

    // What the agent wrote, what was compared and what is sent are the same bytes.
    let below =
        if bound { uri.path() } else { uri.path().trim_start_matches('/').split_once('/').map_or("", |it| it.1) };
    assert_eq!(route.path().trim_start_matches('/'), below.trim_start_matches('/'));
    assert_eq!(sent.uri().path(), format!("/base{}", route.path()));
    assert_eq!(sent.uri().scheme_str(), Some("https"));
    assert_eq!(sent.uri().authority().map(http::uri::Authority::as_str), Some("llm.example.com"));
    assert_eq!(sent.method(), method);

    // Another reader, one that resolves dots and repairs what it can, reads the same.
    let url = Url::parse(&sent.uri().to_string()).expect("what is sent is a URL");
    assert_eq!((url.host_str(), url.port(), url.path()), (Some("llm.example.com"), None, sent.uri().path()));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());

    // And one that decodes, even twice, finds the same segments, none of them with a meaning of its own.
    let once = percent_encoding::percent_decode_str(route.path()).collect::<Vec<u8>>();
    let twice = percent_encoding::percent_decode(&once).collect::<Vec<u8>>();
    assert_eq!(once, twice);
    let segments: Vec<&[u8]> = once.split(|&byte| byte == b'/').skip(1).collect();
    assert_eq!(segments.len(), route.path().split('/').count() - 1);
    for segment in segments {
        assert!(!matches!(segment, b"" | b"." | b".."), "{}", route.path());
        assert!(segment.iter().all(|byte| !b"\\;?#%".contains(byte) && !byte.is_ascii_control()), "{}", route.path());
    }
    let rules = &route.profile().api.allow;
    assert!(rules.iter().any(|rule| rule.method == method && rule.path.matches(route.path())));
}

/// The first line is the query, every other one a field: `name: value`.
pub(crate) fn headers(account: &Arc<Account>, bearer: &Bearer, data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut target = b"/a/v1/messages?".to_vec();
    target.extend_from_slice(lines.next().unwrap_or_default());
    let Ok(uri) = Uri::try_from(target) else { return };
    let mut given = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            given.append(name, value);
        }
    }
    let Some((_, sent)) = pass(account, bearer, false, &Method::POST, &uri, given.clone()) else { return };

    let token = bearer.token().expose();
    if data.windows(token.len()).any(|window| window == token.as_bytes()) {
        return; // the fuzzer reads along where bytes are compared
    }
    let credentials: Vec<_> = sent.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(credentials, [format!("Bearer {token}").as_bytes()]);
    let named: Vec<String> = given
        .get_all("connection")
        .iter()
        .flat_map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split(',')
                .map(|name| name.trim().to_lowercase())
                .collect::<Vec<_>>()
        })
        .collect();
    for (name, value) in sent.headers() {
        let plain = name.as_str().replace('_', "-").trim_matches('-').to_owned();
        assert!(plain == "authorization" && name == AUTHORIZATION || !REFUSED.contains(&plain.as_str()), "{name}");
        for family in ["sec-", "proxy-", "x-forwarded-", "x-pixy-"] {
            assert!(!plain.starts_with(family), "{name}");
        }
        if name == AUTHORIZATION {
            continue;
        }
        assert!(!value.as_bytes().windows(token.len()).any(|window| window == token.as_bytes()), "{name}");
        match name.as_str() {
            "x-set" | "x-account" => assert_eq!(value, "ours"),
            "accept-encoding" => assert_eq!(value, "identity"),
            "anthropic-beta" => {
                let list: Vec<&str> = value.to_str().expect("a merged list is text").split(',').collect();
                for ours in ["ours-1", "ours-2"] {
                    assert!(list.contains(&ours), "{value:?}");
                }
            }
            "anthropic-version" if !given.contains_key(name) || named.iter().any(|named| name == named.as_str()) => {
                assert_eq!(value, "2023-06-01");
            }
            _ => {
                assert!(given.get_all(name).iter().any(|given| given == value), "{name} is the agent's own");
                assert!(!named.iter().any(|named| name == named.as_str()), "{name} was of one connection");
            }
        }
    }
    let query = sent.uri().query().unwrap_or_default();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        let name = name.to_ascii_lowercase();
        assert!(!["key", "api_key", "access_token", "token"].contains(&name.as_str()), "{query}");
    }
}

/// The steps of a request; `None` where one of them refuses, or says hello.
fn pass(
    account: &Arc<Account>,
    bearer: &Bearer,
    bound: bool,
    method: &Method,
    uri: &Uri,
    headers: HeaderMap,
) -> Option<(route::Route, Request<Body>)> {
    let route = route::find(account, bound, method, uri).ok()?;
    let stripped = strip::strip(headers, &route);
    let agents = Agents::new(Vec::new(), Clock::default());
    let grant = agents.authorize(&stripped, account.name()).ok()?;
    if route.purpose() == Purpose::Hello {
        return None;
    }
    let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let outgoing = attach::attach(&grant, &route, &stripped, bearer, method.clone(), body, None).ok()?;
    Some((route, outgoing.into_request()))
}

/// Fields that no upstream may see, in whatever spelling.
const REFUSED: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-auth-token",
    "x-amz-security-token",
    "cookie",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "expect",
    "forwarded",
    "origin",
    "referer",
    "via",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];
