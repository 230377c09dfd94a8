//! Request framing: a request that is malformed or has two readings never reaches an upstream, nor does anything after it.

mod corpus;
mod http2;
mod limits;
mod surfaces;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Authority, Pixy, Protocols, RawClient, Scratch, Seen, TokenEndpoint, Upstream, oauth_account};
use corpus::{Case, Expected, SUCCESSOR};

/// A linked account `a`, with these limits.
async fn limited(limits: &Value) -> (Pixy, TokenEndpoint, Upstream) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::with(&accounts, &json!({ "limits": limits })).await;
    pixy.link(&endpoint).await;
    (pixy, endpoint, upstream)
}

async fn linked() -> (Pixy, TokenEndpoint, Upstream) {
    limited(&json!({})).await
}

/// Method, target and body of each request that the upstream received completely.
fn complete(requests: &[Seen]) -> Vec<(String, String, Vec<u8>)> {
    let complete = requests.iter().filter(|seen| seen.complete);
    complete.map(|seen| (seen.method.clone(), seen.target.clone(), seen.body.clone())).collect()
}

/// Sends the selected cases, each with its successor right after it, and checks what the upstream received. Their number.
async fn check_cases(selected: impl Fn(&Case) -> bool) -> usize {
    let (pixy, _endpoint, upstream) = linked().await;
    let cases: Vec<Case> = corpus::cases().into_iter().filter(selected).collect();
    for Case { name, bytes, expected } in &cases {
        let before = upstream.requests().len();
        let mut client = RawClient::connect(pixy.agents()).await;
        client.send([bytes, SUCCESSOR].concat()).await;
        let response = client.response().await;
        match expected {
            Expected::Refused(status) => {
                let response = response.unwrap_or_else(|| panic!("no answer: {name}"));
                assert_eq!((response.status, response.closed), (*status, true), "{name}: {}", response.text());
                assert_eq!(response.header("connection"), ["close"], "{name}");
                assert_eq!(response.header("x-pixy-error").len(), 1, "{name}");
                assert_eq!(upstream.requests().len(), before, "{name}");
            }
            Expected::Broken => {
                assert_ne!(response.map(|response| response.status), Some(200), "{name}");
                let rest = client.rest().await;
                assert!(!rest.windows(12).any(|window| window == b"HTTP/1.1 200"), "{name}");
                assert_eq!(complete(&upstream.requests()[before..]), [], "{name}");
            }
            Expected::Forwarded { method, target, body } => {
                let response = response.unwrap_or_else(|| panic!("no answer: {name}"));
                assert_eq!(response.status, 200, "{name}: {}", response.text());
                assert_eq!(client.response().await.map(|second| second.status), Some(200), "the successor of {name}");
                let seen = complete(&upstream.requests()[before..]);
                let expected = ((*method).to_owned(), target.clone(), body.clone());
                let successor = ("GET".to_owned(), "/v1/models?after=successor".to_owned(), Vec::new());
                assert_eq!(seen, [expected, successor], "{name}");
            }
        }
    }
    // Requests that arrived too late for the checks above.
    let forwarded = cases.iter().filter(|case| matches!(case.expected, Expected::Forwarded { .. })).count();
    let requests = upstream.requests();
    assert_eq!(complete(&requests).len(), 2 * forwarded);
    for seen in &requests {
        assert_eq!(seen.trailers, [], "no trailer is forwarded");
        for name in ["te", "upgrade", "http2-settings", "expect", "trailer", "x-api-key"] {
            assert_eq!(seen.header(name), Vec::<&str>::new(), "{}", seen.target);
        }
    }
    cases.len()
}

#[tokio::test]
async fn attack_28_and_29_and_31_and_32_ambiguous_heads_are_refused() {
    let checked = check_cases(|case| matches!(case.expected, Expected::Refused(_))).await;
    assert!(checked >= 500, "{checked}");
}

#[tokio::test]
async fn attack_30_a_malformed_chunked_body_is_never_completed() {
    let checked = check_cases(|case| case.expected == Expected::Broken).await;
    assert!(checked >= 100, "{checked}");
}

#[tokio::test]
async fn a_request_with_one_reading_is_forwarded_unchanged() {
    let checked = check_cases(|case| matches!(case.expected, Expected::Forwarded { .. })).await;
    assert!(checked >= 60, "{checked}");
}

#[tokio::test]
async fn attack_33_no_trailer_of_a_request_is_forwarded() {
    // Over HTTP/2 to the upstream, where trailers need no `TE`; the corpus has more of them over HTTP/1.
    let (endpoint, authority) = (TokenEndpoint::start().await, Authority::new());
    let upstream = Upstream::builder().tls(&authority, Protocols::Http2).start().await;
    let scratch = Scratch::new();
    let ca = scratch.write("ca.pem", authority.pem());
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::with(&accounts, &json!({ "upstream": { "extra_ca_file": ca } })).await;
    pixy.link(&endpoint).await;
    let request = "POST /a/v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\
                   Connection: close\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\nHost: evil\r\n\
                   Content-Length: 9\r\nX-Api-Key: evil\r\n\r\n";
    assert_eq!(pixy.send(request).await.status, 200);
    let seen = &upstream.requests()[0];
    assert_eq!((seen.complete, seen.body.as_slice(), seen.trailers.len()), (true, &b"hello"[..], 0));
    assert!(!format!("{:?}", seen.headers).contains("evil"));
}

#[test]
fn corpus_names_are_unique_and_its_file_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/framing.json");
    let corpus = corpus::as_json();
    let cases = corpus["cases"].as_array().unwrap();
    let lines = cases.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    let text = format!("{{\"successor\":{},\"cases\":[\n{lines}\n]}}\n", corpus["successor"]);
    let mut names: Vec<&str> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
    if std::env::var_os("PIXY_UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let current = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(current == text, "tests/data/framing.json is out of date; run this test with PIXY_UPDATE=1");
}
