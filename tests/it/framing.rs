//! The way in: what is no request that means one thing only never reaches an upstream, nor does what stands behind it.

mod corpus;
mod frames;
mod http2;
mod limits;
mod surfaces;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Pixy, RawClient, Seen, TokenEndpoint, Upstream, oauth_account};
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

fn whole(requests: &[Seen]) -> Vec<(String, String, Vec<u8>)> {
    let whole = requests.iter().filter(|seen| seen.complete);
    whole.map(|seen| (seen.method.clone(), seen.target.clone(), seen.body.clone())).collect()
}

/// Sends the cases that are chosen, each with its successor right behind it, and looks at what the upstream saw of it.
async fn judge(chosen: impl Fn(&Case) -> bool) -> usize {
    let (pixy, _endpoint, upstream) = linked().await;
    let cases: Vec<Case> = corpus::cases().into_iter().filter(chosen).collect();
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
                assert_eq!(whole(&upstream.requests()[before..]), [], "{name}");
            }
            Expected::Forwarded { method, target, body } => {
                let response = response.unwrap_or_else(|| panic!("no answer: {name}"));
                assert_eq!(response.status, 200, "{name}: {}", response.text());
                assert_eq!(client.response().await.map(|second| second.status), Some(200), "the successor of {name}");
                let seen = whole(&upstream.requests()[before..]);
                let expected = ((*method).to_owned(), target.clone(), body.clone());
                let successor = ("GET".to_owned(), "/v1/models?successor".to_owned(), Vec::new());
                assert_eq!(seen, [expected, successor], "{name}");
            }
        }
    }
    // What came too late to be seen above.
    let forwarded = cases.iter().filter(|case| matches!(case.expected, Expected::Forwarded { .. })).count();
    let requests = upstream.requests();
    assert_eq!(whole(&requests).len(), 2 * forwarded);
    for seen in &requests {
        assert_eq!(seen.trailers, [], "no trailer passes");
        for name in ["te", "upgrade", "http2-settings", "expect", "trailer", "x-api-key"] {
            assert_eq!(seen.header(name), Vec::<&str>::new(), "{}", seen.target);
        }
    }
    cases.len()
}

#[tokio::test]
async fn attack_28_and_29_and_31_and_32_a_head_with_two_readings_is_refused_and_its_successor_never_forwarded() {
    let judged = judge(|case| matches!(case.expected, Expected::Refused(_))).await;
    assert!(judged >= 500, "{judged}");
}

#[tokio::test]
async fn attack_30_a_chunked_body_with_two_readings_never_becomes_a_whole_request() {
    let judged = judge(|case| case.expected == Expected::Broken).await;
    assert!(judged >= 100, "{judged}");
}

#[tokio::test]
async fn what_has_one_reading_arrives_as_it_was_meant() {
    let judged = judge(|case| matches!(case.expected, Expected::Forwarded { .. })).await;
    assert!(judged >= 60, "{judged}");
}

#[test]
fn the_names_in_the_corpus_are_unique_and_its_file_is_current() {
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
    assert!(current == text, "tests/data/framing.json is not what the lists make; run this test with PIXY_UPDATE=1");
}
