//! Usage and rate limits of an account in the API: counted while requests pass, and as the provider reports them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Pixy, Reply, TokenEndpoint, Upstream, oauth_account, within};

fn counts(shown: &Value) -> Option<(u64, u64, u64)> {
    let hours = shown["usage"]["hours"].as_array()?;
    assert_eq!(hours.len(), 24);
    let sum = |key: &str| hours.iter().map(|hour| hour[key].as_u64().unwrap()).sum();
    Some((sum("requests"), sum("input_tokens"), sum("output_tokens")))
}

#[tokio::test]
async fn requests_tokens_and_limits_are_reported() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let mut account = oauth_account(&endpoint, &upstream);
    account["profile"]["api"]["quota_headers"] = json!(["x-ratelimit-*"]);
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.link(&endpoint).await;
    let shown = pixy.shown("a").await;
    assert_eq!((&shown["quota"], &shown["usage"]), (&Value::Null, &Value::Null));

    let reply = Reply::json(200, &json!({ "usage": { "input_tokens": 60, "output_tokens": 7 } }))
        .header("X-RateLimit-Limit-Requests", "50")
        .header("X-RateLimit-Remaining-Requests", "20")
        .header("X-RateLimit-Reset-Requests", "2h");
    upstream.answer(reply);
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    upstream.answer(Reply::new(429).body("not now"));
    assert_eq!(pixy.get("/a/v1/models").await.status, 429);
    let both_are_counted = async {
        while counts(&pixy.shown("a").await) != Some((2, 60, 7)) {
            tokio::time::sleep(Duration::from_millis(2)).await; // an answer is counted when its last byte was sent
        }
    };
    within(both_are_counted).await;
    let quota = &pixy.shown("a").await["quota"][0];
    assert_eq!((&quota["name"], quota["used"].as_f64()), (&json!("requests"), Some(0.6)));
    assert_eq!((&quota["limit"], &quota["remaining"]), (&json!(50), &json!(20)));
    assert!(quota["resets_at"].as_str().unwrap().ends_with('Z'));

    pixy.link(&endpoint).await;
    assert_eq!(pixy.shown("a").await["quota"], Value::Null, "another login can have another plan");
    assert_eq!(counts(&pixy.shown("a").await), Some((2, 60, 7)));
}

#[tokio::test]
async fn a_refused_request_is_not_counted() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    assert_eq!(pixy.get("/a/v1/forbidden").await.status, 403);
    assert_eq!(counts(&pixy.shown("a").await), None);
}
