//! The path that was checked against the allow list is the path that is sent, and only to the account's upstream.
#![no_main]

mod linked_account;
mod request;

use http::{HeaderMap, Method, Uri};
use linked_account::LINKED;
use url::Url;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target_and_path(data));

/// The first byte chooses the method and the kind of listener, the rest is the request target.
fn target_and_path(data: &[u8]) {
    let Some((&choice, target)) = data.split_first() else { return };
    let methods = [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::OPTIONS];
    let method = methods[usize::from(choice / 2) % methods.len()].clone();
    let bound = choice % 2 == 0;
    let Ok(uri) = Uri::try_from(target) else { return };
    if !bound && uri.path().split('/').nth(1) != Some(LINKED.account.name().as_str()) {
        return; // another account
    }
    let Some((route, sent)) = request::prepare(bound, &method, &uri, HeaderMap::new()) else { return };
    assert!(uri.authority().is_none() && uri.scheme().is_none(), "a target names no server");

    // The received, the checked and the sent path are the same bytes.
    let below =
        if bound { uri.path() } else { uri.path().trim_start_matches('/').split_once('/').map_or("", |it| it.1) };
    assert_eq!(route.path().trim_start_matches('/'), below.trim_start_matches('/'));
    assert_eq!(sent.uri().path(), format!("/base{}", route.path()));
    assert_eq!(sent.uri().scheme_str(), Some("https"));
    assert_eq!(sent.uri().authority().map(http::uri::Authority::as_str), Some("llm.example.com"));
    assert_eq!(sent.method(), method);

    // A lenient parser, which resolves dot segments and repairs errors, reads the same path.
    let url = Url::parse(&sent.uri().to_string()).expect("what is sent is a URL");
    assert_eq!((url.host_str(), url.port(), url.path()), (Some("llm.example.com"), None, sent.uri().path()));
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());

    // A server that decodes the path, even twice, finds the same segments, none of them special.
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
