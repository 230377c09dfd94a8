//! Responses that mean that the provider refuses a token: which ones count, the growing pause while fresh tokens are refused too,
//! and what the person is shown.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Pixy, RawClient, Reply, Seen, TokenEndpoint, Upstream, oauth_account, within};

/// What the Claude profile lists.
fn rules() -> Value {
    json!([
        { "status": 401 },
        { "status": 403, "error": "permission_error", "message": "OAuth token has been revoked" },
    ])
}

fn permission_error(message: &str) -> Reply {
    Reply::json(403, &json!({ "type": "error", "error": { "type": "permission_error", "message": message } }))
}

async fn linked(upstream: &Upstream) -> (Pixy, TokenEndpoint) {
    let endpoint = TokenEndpoint::start().await;
    let mut account = oauth_account(&endpoint, upstream);
    account["profile"]["api"]["token_refused"] = rules();
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.link(&endpoint).await;
    (pixy, endpoint)
}

fn token(seen: &Seen) -> String {
    seen.header("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned()
}

/// Refuses the first token in this way, and accepts every other.
async fn refusing_the_first(reply: impl Fn() -> Reply + Send + 'static) -> Upstream {
    let mut first = None;
    Upstream::answering(move |seen| {
        let token = token(seen);
        let is_first = *first.get_or_insert_with(|| token.clone()) == token;
        if is_first { reply() } else { Reply::new(200).body("served") }
    })
    .await
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /a/v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

async fn until_shown(pixy: &Pixy, is_refused: bool) -> Value {
    for _ in 0..400 {
        let shown = pixy.shown("a").await;
        if shown["token_refused"] == is_refused {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("token_refused never became {is_refused}: {:#}", pixy.shown("a").await);
}

#[tokio::test]
async fn attack_96_a_403_for_a_revoked_token_is_repaired() {
    // anthropics/claude-code#5210
    let upstream =
        refusing_the_first(|| permission_error("OAuth token has been revoked. Please obtain a new token.")).await;
    let (pixy, endpoint) = linked(&upstream).await;
    let answer = within(pixy.send(&post("the body"))).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "served"));
    assert_eq!(endpoint.refreshes(), 1);
    let bodies: Vec<_> = upstream.requests().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, [b"the body", b"the body"]);
    assert_eq!(pixy.shown("a").await["token_refused"], false);
}

#[tokio::test]
async fn attack_96_an_ordinary_403_refreshes_nothing() {
    let upstream = Upstream::start().await;
    let (pixy, endpoint) = linked(&upstream).await;
    let long = "x".repeat(100_000);
    for message in ["Your organization does not have access to this model.", &long] {
        upstream.answer(permission_error(message));
        let answer = within(pixy.send(&post("{}"))).await;
        let body: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!((answer.status, &body["error"]["message"]), (403, &json!(message)));
        assert!(answer.header("x-should-retry").is_empty());
    }
    upstream.answer(Reply::new(403).body("<html>no</html>"));
    assert_eq!(within(pixy.send(&post("{}"))).await.text(), "<html>no</html>");
    assert_eq!((endpoint.refreshes(), upstream.requests().len()), (0, 3));
}

#[tokio::test]
async fn attack_96_a_refusal_that_streams_is_not_buffered() {
    let upstream = Upstream::start().await;
    let (pixy, endpoint) = linked(&upstream).await;
    let (reply, chunks) = Reply::stream(403);
    upstream.answer(reply);
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send(&post("{}")).await;
    within(upstream.until_requests(1)).await;
    chunks.send("first ");
    chunks.send("second ");
    tokio::time::sleep(Duration::from_millis(1500)).await; // longer than Pixy looks
    chunks.send("third");
    chunks.finish();
    let answer = within(client.response()).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "first second third"));
    assert_eq!(endpoint.refreshes(), 0);
}

#[tokio::test]
async fn attack_96_a_compressed_401_is_a_refusal() {
    let compressed = || Reply::new(401).header("content-encoding", "gzip").body(&b"\x1f\x8b\x08packed"[..]);
    let upstream = refusing_the_first(compressed).await;
    let (pixy, endpoint) = linked(&upstream).await;
    let answer = within(pixy.send(&post("{}"))).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "served"));
    assert_eq!(endpoint.refreshes(), 1);

    let upstream = Upstream::answering(move |_| compressed()).await;
    let (pixy, endpoint) = linked(&upstream).await;
    for _ in 0..3 {
        let answer = within(pixy.send(&post("{}"))).await;
        assert_eq!((answer.status, answer.header("x-pixy-error")), (401, vec!["upstream_encoded"]));
        assert_eq!(answer.header("x-should-retry"), ["false"]);
        assert!(!answer.text().contains("packed") && answer.text().contains("refused its login"));
    }
    assert_eq!(endpoint.refreshes(), 1);
    let title = until_shown(&pixy, true).await["error"]["title"].clone();
    assert!(title.as_str().unwrap().contains("401, without a message"), "{title}");
}

#[tokio::test]
async fn attack_96_what_the_provider_says_is_shown() {
    let upstream = Upstream::answering(|seen| {
        let token = token(seen);
        let message = format!("Bad\u{202e} token {token}{}", "!".repeat(1000));
        Reply::json(401, &json!({ "error": { "message": message } }))
    })
    .await;
    let (mut pixy, endpoint) = linked(&upstream).await;
    for _ in 0..25 {
        assert_eq!(within(pixy.send(&post("{}"))).await.status, 401);
    }
    assert_eq!(endpoint.refreshes(), 1, "a fresh token is refused too, so no other is requested");
    let shown = until_shown(&pixy, true).await;
    let title = shown["error"]["title"].as_str().unwrap();
    assert!(title.contains("also a fresh one: 401") && title.contains(r"Bad\u{202e} token"), "{title}");
    assert!(title.contains("[pixy:redacted]") && !title.contains("marked-access"), "{title}");
    assert!(title.chars().count() < 300, "{title}");
    assert!(shown["error"]["detail"].as_str().unwrap().contains("growing pause"), "{shown:#}");
    assert_eq!((&shown["state"], &shown["usable"]), (&json!("linked"), &json!(true)));

    // A changed profile ends the pause: it may be what was wrong.
    let mut account = oauth_account(&endpoint, &upstream);
    account["profile"]["api"]["token_refused"] = json!([{ "status": 401 }]);
    pixy.reload(&json!({ "a": account }), &json!({})).await.unwrap();
    until_shown(&pixy, false).await;
    assert_eq!(within(pixy.send(&post("{}"))).await.status, 401);
    assert_eq!(endpoint.refreshes(), 2);
    until_shown(&pixy, true).await;
    // So does a new link.
    pixy.link(&endpoint).await;
    until_shown(&pixy, false).await;
}

#[tokio::test]
async fn attack_96_a_token_that_works_again_ends_the_pause() {
    let upstream = Upstream::start().await;
    let (pixy, endpoint) = linked(&upstream).await;
    for _ in 0..2 {
        upstream.answer(Reply::new(401));
    }
    assert_eq!(within(pixy.send(&post("{}"))).await.status, 401);
    assert_eq!(endpoint.refreshes(), 1);
    until_shown(&pixy, true).await;
    assert_eq!(within(pixy.send(&post("{}"))).await.status, 200);
    let shown = until_shown(&pixy, false).await;
    assert_eq!(shown["error"], Value::Null);
}

#[tokio::test]
async fn a_refused_key_is_shown_with_what_the_provider_says() {
    let upstream = Upstream::start().await;
    let account = json!({
        "provider": "openai-compatible",
        "profile": { "api": { "base_url": upstream.url(), "allow": ["GET /v1/models"] } },
    });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.post("/api/accounts/a/key", json!({ "key": "marked-key-0123456789" })).await;
    upstream.answer(Reply::json(401, &json!({ "error": { "message": "Incorrect API key provided" } })));
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 401);
    let title = until_shown(&pixy, true).await["error"]["title"].clone();
    assert_eq!(title, "The provider refuses the token of this login: 401, “Incorrect API key provided”.");
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    until_shown(&pixy, false).await;
    let (status, _) = pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    assert!(status < 500);
}
