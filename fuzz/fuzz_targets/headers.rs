//! The upstream receives exactly one credential, the account's, and no forbidden header.
#![no_main]

mod linked_account;
mod request;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use linked_account::LINKED;
use pixy::oauth::profile::pass_list;

libfuzzer_sys::fuzz_target!(|data: &[u8]| headers(data));

/// The first line is the query, every other line a header: `name: value`.
fn headers(data: &[u8]) {
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
    let Some((_, sent)) = request::prepare(false, &Method::POST, &uri, given.clone()) else { return };

    let token = LINKED.bearer.token().expose();
    if data.windows(token.len()).any(|window| window == token.as_bytes()) {
        return; // the fuzzer learns the token from instrumented comparisons
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
        let normalized = name.as_str().replace('_', "-").trim_matches('-').to_owned();
        assert!(
            normalized == "authorization" && name == AUTHORIZATION || !FORBIDDEN.contains(&normalized.as_str()),
            "{name}"
        );
        for family in ["sec-", "proxy-", "x-forwarded-", "x-pixy-"] {
            assert!(!normalized.starts_with(family), "{name}");
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
            "accept" => {} // charset parameters are removed
            _ => {
                let folded = pass_list::fold(name.as_str());
                let api = &LINKED.profiles[0].api;
                let is_listed = pass_list::passes_always(name.as_str()) || api.pass_headers.contains(&folded);
                assert!(is_listed || api.adds_to(name.as_str()), "{name} is listed");
                assert!(given.get_all(name).iter().any(|given| given == value), "{name} is the agent's own");
                assert!(!named.iter().any(|named| name == named.as_str()), "{name} belongs to one connection");
            }
        }
    }
    let query = sent.uri().query().unwrap_or_default();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        let is_listed = pass_list::query_key_passes_always(&name) || LINKED.profiles[0].api.pass_query.contains(&name);
        assert!(is_listed, "{query}");
    }
}

/// Headers that must not reach an upstream, in any spelling.
const FORBIDDEN: &[&str] = &[
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
