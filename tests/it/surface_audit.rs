//! Lists every call of the surfaces and all code that sends a request: an addition fails until it is reviewed and listed.
#![allow(clippy::print_stdout, reason = "what was measured goes to the log")]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use pixy::api::{self, Access};
use pixy::clock::{Clock, Timestamp};
use pixy::link::authentication::{Denied, Guard};
use pixy::secret::Secret;
use serde_json::{Value, json};

use crate::support::source::{root, rust_files};
use crate::support::{Pixy, RawClient, RawResponse, TokenEndpoint, Upstream};

/// Every call of the link surface; `{…}` is a path parameter.
const CALLS: &[(&str, &str, Access)] = &[
    ("POST", "/api/session", Access::Open),
    ("GET", "/api/accounts", Access::Session),
    ("GET", "/api/events", Access::Session),
    ("GET", "/api/openapi.json", Access::Session),
    ("GET", "/api/accounts/{name}/env", Access::Session),
    ("POST", "/api/accounts/{name}/attempts", Access::Session),
    ("POST", "/api/accounts/{name}/key", Access::Session),
    ("POST", "/api/accounts/{name}/refresh", Access::Session),
    ("POST", "/api/accounts/{name}/moved", Access::Session),
    ("DELETE", "/api/accounts/{name}", Access::Session),
    ("POST", "/api/attempts/{id}/paste", Access::Session),
    ("POST", "/api/attempts/{id}/confirm", Access::Session),
    ("DELETE", "/api/attempts/{id}", Access::Session),
    ("POST", "/api/accounts/{name}/older-copy", Access::ControlSocket),
    ("GET", "/api/accounts/{name}/dropped", Access::ControlSocket),
    ("GET", "/api/configuration", Access::ControlSocket),
    ("POST", "/api/setup", Access::ControlSocket),
    ("POST", "/api/vault/rotate", Access::ControlSocket),
    ("POST", "/api/vault/export", Access::ControlSocket),
    ("POST", "/api/vault/import", Access::ControlSocket),
    ("DELETE", "/api/session", Access::Session), // the last: it closes the session that the calls above use
];

/// The only places where the proxy sends a request.
const SENDERS: &[(&str, &str)] = &[
    ("forward.rs", "upstream.send(outgoing.into_request())"),
    ("forward.rs", "upstream.upgrade(outgoing.into_request())"),
];

async fn ask(pixy: &Pixy, method: &str, path: &str, fields: &str) -> RawResponse {
    let port = pixy.page().port();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{fields}Content-Length: 2\r\n\r\n{{}}"
    );
    let mut client = RawClient::connect(pixy.page()).await;
    client.send(request).await;
    if path == "/api/events" && !fields.is_empty() {
        return client.head().await.unwrap(); // its body does not end
    }
    client.response_to(method).await.unwrap()
}

async fn session(pixy: &Pixy) -> String {
    let url = pixy.post("/api/setup", Value::Null).await["url"].as_str().unwrap().to_owned();
    let body = json!({ "setup_code": url.split_once('#').unwrap().1 }).to_string();
    let request = format!(
        "POST /api/session HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        pixy.page(),
        body.len()
    );
    let opened = RawClient::once(pixy.page(), request).await.unwrap().json();
    format!("Authorization: Bearer {}\r\n", opened["session"].as_str().unwrap())
}

#[tokio::test]
async fn attack_24_every_page_call_is_listed_and_needs_a_session() {
    let found: BTreeSet<_> =
        api::ROUTES.iter().map(|route| format!("{} {} {:?}", route.method, route.path, route.access)).collect();
    let listed: BTreeSet<_> =
        CALLS.iter().map(|(method, path, access)| format!("{method} {path} {access:?}")).collect();
    assert_eq!(found, listed, "a call that is not listed here has not been reviewed");
    let source = production("src/link/api.rs");
    assert_eq!(source.matches("find_route(").count(), 1, "the table is the only router");
    assert_eq!(source.matches("\"/api/").count(), 1, "no call is routed by its path outside the table");
    assert_eq!(source.matches(".open_session(").count(), 1, "one way to a session");
    assert_eq!(source.matches("self.call(").count(), 1, "one way to the calls");

    let endpoint = TokenEndpoint::start().await;
    let upstream = Upstream::start().await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let session = session(&pixy).await;
    let concrete = |path: &str| path.replace("{name}", "a").replace("{id}", "x");
    let mut unauthenticated = HashSet::new();
    for (method, path, _) in CALLS.iter().filter(|(_, _, access)| *access != Access::Open) {
        let answer = ask(&pixy, method, &concrete(path), "").await;
        assert_eq!(answer.status, 401, "{method} {path}");
        unauthenticated.insert(answer.text());
    }
    let nothing = ask(&pixy, "GET", "/api/nothing", "").await;
    assert_eq!(
        (nothing.status, unauthenticated),
        (401, HashSet::from([nothing.text()])),
        "without a session, existing and missing calls look the same"
    );
    assert_eq!(pixy.shown("a").await["state"], "linked", "no call unlinked it");
    let nothing = ask(&pixy, "GET", "/api/nothing", &session).await;
    assert_eq!(nothing.status, 404);
    for (method, path, access) in CALLS {
        let answer = ask(&pixy, method, &concrete(path), &session).await;
        match access {
            Access::Open => assert_eq!(answer.status, 400, "{method} {path} takes a setup code"),
            Access::Session => assert_ne!(answer.status, 401, "{method} {path}"),
            Access::ControlSocket => {
                assert_eq!(
                    (answer.status, answer.text()),
                    (404, nothing.text()),
                    "{method} {path} is not for the page"
                );
            }
        }
    }
}

#[tokio::test]
async fn attack_24_ops_has_three_read_only_paths() {
    let source = production("src/ops.rs");
    let arms: Vec<_> = source.match_indices("\"/").map(|(at, _)| source[at + 1..].split('"').next().unwrap()).collect();
    assert_eq!(arms, ["/livez", "/readyz", "/metrics", "/livez /readyz /metrics\\n"], "the last is the text of a 404");
    let pixy = Pixy::start(&json!({})).await;
    for path in ["/livez", "/readyz", "/metrics", "/", "/api/accounts", "/a/v1/models"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            assert_eq!(RawClient::once(pixy.ops(), request).await.unwrap().status, 405, "{method} {path}");
        }
    }
    for path in ["/api/accounts", "/api/setup", "/a", "/assets/page.js", "/debug/pprof", "/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(RawClient::once(pixy.ops(), request).await.unwrap().status, 404, "{path}");
    }
}

#[test]
fn attack_24_one_way_out_takes_only_checked_requests() {
    let sources = proxy();
    assert!(sources.len() > 9, "the steps are found");
    // `self.send` is a step of the proxy itself.
    let mut senders = Vec::new();
    for (file, text) in &sources {
        for verb in [".send(", ".fetch(", ".upgrade("] {
            for (at, _) in text.match_indices(verb) {
                let line = text[..at].rsplit('\n').next().unwrap().to_owned() + text[at..].lines().next().unwrap();
                if !line.contains("self.send(") {
                    senders.push((file.as_str(), line));
                }
            }
        }
    }
    assert_eq!(senders.len(), SENDERS.len(), "{senders:?}");
    for (file, call) in SENDERS {
        assert!(senders.iter().any(|(found, line)| found == file && line.contains(call)), "{file}: {call}");
    }
    // Types that are constructed in one file: a request that may be sent, and the proofs that it takes.
    for (made, home) in
        [("Outgoing {", "attach.rs"), ("Route {", "route.rs"), ("Stripped {", "strip.rs"), ("AgentGrant {", "agent.rs")]
    {
        let name = made.trim_end_matches([' ', '{', '(']);
        let mut places = Vec::new();
        for (file, text) in &sources {
            for (at, _) in text.match_indices(made) {
                let before = text[..at].trim_end();
                let is_a_value = !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
                    && !["struct", "impl", "for", "->"].iter().any(|word| before.ends_with(word));
                if is_a_value {
                    places.push(file.as_str());
                }
            }
        }
        assert!(!places.is_empty() && places.iter().all(|place| *place == home), "{name} is made in {places:?}");
        let (_, text) = sources.iter().find(|(file, _)| file == home).unwrap();
        let (before, body) = text.split_once(&format!("pub struct {name}")).unwrap();
        assert!(!before.trim_end().ends_with(")]"), "{name} has no derives (Clone, Default)");
        assert!(!body.split(['}', ';']).next().unwrap().contains("pub"), "{name} has no public field");
    }
    let text = |file: &str| &sources.iter().find(|(found, _)| found == file).unwrap().1;
    let signature = |file: &str, name: &str| {
        let start = text(file).find(&format!("fn {name}(")).unwrap();
        text(file)[start..].split('{').next().unwrap().to_owned()
    };
    assert!(signature("forward.rs", "forward").contains("outgoing: Outgoing,"));
    for proof in ["grant: &AgentGrant,", "route: &Route,", "stripped: &Stripped,", "bearer: &Bearer,"] {
        assert!(signature("attach.rs", "attach").contains(proof), "{proof}");
    }
}

#[tokio::test]
async fn attack_09_and_10_no_response_is_framed_or_sets_a_cookie() {
    let pixy = Pixy::start(&json!({})).await;
    let host = format!("Host: {}\r\n", pixy.page());
    let mut statuses = BTreeSet::new();
    for request in [
        format!("GET / HTTP/1.1\r\n{host}"),
        format!("HEAD / HTTP/1.1\r\n{host}"),
        format!("GET /assets/page.js HTTP/1.1\r\n{host}"),
        format!("GET /nothing HTTP/1.1\r\n{host}"),
        format!("GET /api/accounts HTTP/1.1\r\n{host}"),
        format!("GET /api/accounts HTTP/1.1\r\n{host}Cookie: session=x\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 0\r\n"),
        format!("POST /api/session HTTP/1.1\r\n{host}Content-Length: 0\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Origin: https://evil.example\r\n"),
        "GET / HTTP/1.1\r\nHost: evil.example\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        let mut client = RawClient::connect(pixy.page()).await;
        client.send(format!("{request}Connection: close\r\n\r\n")).await;
        let response = client.response_to(request.split(' ').next().unwrap()).await.unwrap();
        let policy = response.header("content-security-policy");
        assert!(policy.len() == 1 && policy[0].contains("frame-ancestors 'none'"), "{request}: {policy:?}");
        assert_eq!(response.header("x-frame-options"), ["DENY"], "{request}");
        assert_eq!(response.header("cross-origin-opener-policy"), ["same-origin"], "{request}");
        assert_no_cookies_or_cors(&response, &request);
        statuses.insert(response.status);
    }
    assert_eq!(
        statuses.into_iter().collect::<Vec<_>>(),
        [200, 400, 401, 403, 404, 421],
        "every kind of response was seen"
    );
    for path in ["/livez", "/metrics", "/nothing"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let response = RawClient::once(pixy.ops(), request).await.unwrap();
        assert_eq!(response.header("cache-control"), ["no-store"], "{path}");
        assert_eq!(response.header("x-content-type-options"), ["nosniff"], "{path}");
        assert_no_cookies_or_cors(&response, path);
    }
    for path in ["/", "/unknown/v1/models"] {
        assert_no_cookies_or_cors(&pixy.get(path).await, path);
    }
}

/// No cookie, because all ports of a host share them, and no CORS headers.
fn assert_no_cookies_or_cors(response: &RawResponse, what: &str) {
    for (name, _) in &response.headers {
        let name = name.to_ascii_lowercase();
        assert!(!name.starts_with("set-cookie") && !name.starts_with("access-control-"), "{what}: {name}");
    }
}

#[tokio::test]
async fn attack_18_and_20_only_the_request_line_selects_the_path() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_http_method_override",
        "X-Original-URL",
        "X-Original-URI",
        "X-Original-Method",
        "X-Rewrite-URL",
        "x_original_url",
        "X-Forwarded-Uri",
        "X-Forwarded-Path",
        "X-Forwarded-Prefix",
        "X-Forwarded-Method",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
    ] {
        for value in ["DELETE", "/v1/models", "/v1/organizations/api_keys", "host=evil.example"] {
            // The field neither allows a refused path nor changes an allowed one.
            let refused = format!(
                "GET /a/v1/files?path=/v1/models HTTP/1.1\r\nHost: pixy\r\n{name}: {value}\r\nConnection: close\r\n\r\n"
            );
            assert_eq!(pixy.send(&refused).await.status, 403, "{name}: {value}");
            let before = upstream.requests().len();
            let allowed = refused.replace("/a/v1/files?path=/v1/models", "/a/v1/models");
            assert_eq!(pixy.send(&allowed).await.status, 200, "{name}: {value}");
            let requests = upstream.requests();
            assert_eq!(requests.len(), before + 1, "only the allowed request arrives");
            let seen = &requests[before];
            assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/v1/models"), "{name}: {value}");
            let mut names: Vec<_> = seen.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
            names.sort_unstable();
            assert_eq!(names, ["accept-encoding", "authorization", "host"], "{name}: {value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attack_02_a_hundred_thousand_guesses_open_nothing() {
    let guard = Guard::new(Clock::tokio(Timestamp::EPOCH));
    let code = guard.setup_code();
    assert_eq!(code.expose().len(), 22, "128 bits");
    for minute in 0..14 {
        for n in 0..7200 {
            // The nearest guess: one character differs.
            let mut guess = code.expose().to_owned().into_bytes();
            let at = n % guess.len();
            guess[at] = if guess[at] == b'a' { b'b' } else { b'a' };
            let guess = String::from_utf8(guess).unwrap();
            let denied = if n % 2 == 0 {
                guard.open_session(&guess).err()
            } else {
                let mut headers = HeaderMap::new();
                headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {guess}")).unwrap());
                guard.authenticate(&headers).err()
            };
            assert_eq!(denied, Some(Denied::Wrong), "minute {minute}, guess {n}");
        }
        tokio::time::advance(Duration::from_mins(1)).await;
    }
    assert!(guard.open_session(code.expose()).is_ok(), "the right code is accepted after them");
}

/// Without a session, a body of one-byte chunks is refused long before its end.
#[tokio::test]
async fn attack_81_a_body_without_a_session_is_small() {
    let pixy = Pixy::start(&json!({})).await;
    let mut client = RawClient::connect(pixy.page()).await;
    let head = "POST /api/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{}", "1\r\n \r\n".repeat(4097))).await;
    let refused = crate::support::within(client.response()).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
}

/// A flood of wrong codes over the network, and a person with the right one in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_92_the_right_code_passes_during_ten_thousand_wrong_ones() {
    let pixy = Pixy::start(&json!({})).await;
    let page = pixy.page();
    let resident = || {
        let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
    };
    let before = resident();
    let mut flood = tokio::task::JoinSet::new();
    for connection in 0..20 {
        flood.spawn(async move {
            let mut client = RawClient::connect(page).await;
            let mut seen = BTreeSet::new();
            for n in 0..500 {
                let body = json!({ "setup_code": format!("wrong-{connection}-{n}") }).to_string();
                let request = format!(
                    "POST /api/session HTTP/1.1\r\nHost: {page}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                client.send(request).await;
                seen.insert(client.response().await.unwrap().status);
            }
            seen
        });
    }
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let start = Instant::now();
        let session = session(&pixy).await;
        assert_eq!(ask(&pixy, "GET", "/api/accounts", &session).await.status, 200);
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen: BTreeSet<u16> = flood.join_all().await.into_iter().flatten().collect();
    assert_eq!(seen, BTreeSet::from([401, 429]), "slowed, or refused");
    let grown = resident().saturating_sub(before);
    println!("longest sign-in during the flood {longest:?}, memory {} KiB more", grown / 1024);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn attack_93_a_closed_session_ends_its_event_stream() {
    let pixy = Pixy::start(&json!({})).await;
    let (mine, other) = (session(&pixy).await, session(&pixy).await);
    let stream = async |session: &str| {
        let mut client = RawClient::connect(pixy.page()).await;
        let host = pixy.page();
        client.send(format!("GET /api/events HTTP/1.1\r\nHost: {host}\r\n{session}\r\n")).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        client
    };
    let (mut closed, mut open) = (stream(&mine).await, stream(&other).await);
    assert_eq!(ask(&pixy, "DELETE", "/api/session", &mine).await.json(), json!({ "state": "closed" }));
    // The last chunk, on a connection that stays open.
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"0\r\n\r\n") {
        bytes.extend(crate::support::within(closed.bytes(1)).await);
    }
    assert!(bytes.windows(15).any(|window| window == b"event: accounts"));
    assert_eq!(ask(&pixy, "GET", "/api/accounts", &mine).await.status, 401);
    assert_eq!(ask(&pixy, "GET", "/api/accounts", &other).await.status, 200);
    assert!(tokio::time::timeout(Duration::from_millis(200), open.rest()).await.is_err(), "another's goes on");
}

#[test]
fn attack_52_comparison_time_does_not_depend_on_the_guess() {
    let long = "a".repeat(1 << 16);
    let secret = Secret::new(long.clone());
    let (early, late) = (format!("b{}", &long[1..]), format!("{}b", &long[1..]));
    // The minimum of many runs: other load on the machine only adds time.
    let shortest = |compare: &dyn Fn(&str) -> bool| {
        let took = |guess: &str| {
            let start = Instant::now();
            for _ in 0..4 {
                assert!(!compare(black_box(guess)));
            }
            start.elapsed()
        };
        (0..50)
            .fold((Duration::MAX, Duration::MAX), |(first, last), _| (first.min(took(&early)), last.min(took(&late))))
    };
    let (first, last) = shortest(&|guess| guess == long.as_str());
    assert!(last > first * 4, "`==` stops at the first difference: {first:?} and {last:?}");
    let (first, last) = shortest(&|guess| secret.matches(guess));
    assert!(last < first * 2 && first < last * 2, "{first:?} and {last:?}");
}

#[test]
fn attack_52_secrets_are_only_compared_in_constant_time() {
    let mut lines = 0;
    for path in rust_files(&root().join("src")) {
        let text = production(path.strip_prefix(root()).unwrap());
        for line in text.lines().filter(|line| line.contains(".expose()")) {
            for comparison in [" == ", " != ", ".eq(", ".ne(", ".cmp(", "starts_with(", "ends_with(", ".contains("] {
                assert!(!line.contains(comparison), "{}: {line}", path.display());
            }
            lines += 1;
        }
    }
    assert!(lines > 20, "{lines}");
}

/// A source file without comments and without the tests at its end.
fn production(path: impl AsRef<Path>) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The files of the proxy, by name.
fn proxy() -> Vec<(String, String)> {
    let files = rust_files(&root().join("src/proxy")).into_iter().chain([root().join("src/proxy.rs")]);
    let named = files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    named.filter(|(name, _)| name != "fuzzing.rs").map(|(name, path)| (name, production(path))).collect()
}
