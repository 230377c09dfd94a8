//! A 401 from the upstream before the token expires: one refresh for all requests, and one replay of each.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Fault, Pixy, RawClient, Reply, Rotation, Seen, TokenEndpoint, Upstream, oauth_account, within};

/// An upstream that introspects every token at the authorization server.
async fn introspecting_upstream(endpoint: &TokenEndpoint) -> Upstream {
    let judge = endpoint.judge();
    Upstream::answering(move |seen: &Seen| {
        let token = seen.header("authorization").first().and_then(|value| value.strip_prefix("Bearer "));
        Reply::new(if token.is_some_and(&judge) { 200 } else { 401 })
    })
    .await
}

fn hour() -> Duration {
    Duration::from_hours(1)
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[tokio::test]
async fn attack_72_a_revoked_access_token_costs_one_refresh() {
    // anthropics/claude-code#54443
    let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
    let upstream = introspecting_upstream(&endpoint).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.rotation(Rotation::end_access_tokens);
    let bodies: Vec<String> = (0..20).map(|nth| format!("body {nth}").repeat(1000)).collect();
    let answers = futures_util::future::join_all(bodies.iter().map(|body| async { pixy.send(&post(body)).await }));
    let answers = within(answers).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    assert_eq!(endpoint.refreshes(), 1);
    let seen = upstream.requests();
    for body in &bodies {
        let sent: Vec<_> = seen.iter().filter(|seen| seen.body == body.as_bytes()).collect();
        assert!((1..=2).contains(&sent.len()), "sent {} times", sent.len());
        assert!(sent.iter().all(|seen| seen.complete && seen.header("content-length") == [body.len().to_string()]));
    }
}

#[tokio::test]
async fn a_permanent_401_is_forwarded_after_one_refresh() {
    let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
    let upstream = Upstream::answering(|_| Reply::new(401).body("the upstream's body")).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    for _ in 0..5 {
        let answer = within(pixy.send(&post("{}"))).await;
        assert_eq!((answer.status, answer.text().as_str()), (401, "the upstream's body"));
    }
    assert_eq!(endpoint.refreshes(), 1);
    assert_eq!(upstream.requests().len(), 6, "one request was replayed");
    let last = within(pixy.send(&post("{}"))).await;
    assert_eq!(last.header("x-should-retry"), ["false"], "Claude Code would retry for three minutes");
}

#[tokio::test]
async fn a_401_during_an_upload_is_repaired_with_the_whole_body() {
    let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut account = oauth_account(&endpoint, &Upstream::start().await);
    account["profile"]["api"]["base_url"] = json!(format!("http://{}", listener.local_addr().unwrap()));
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.link(&endpoint).await;
    // Responds 401 to the first part of the body and closes; accepts the whole request on a second connection.
    let upstream = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        read_until(&mut first, "first").await;
        first.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let text = read_until(&mut second, "\r\n0\r\n\r\n").await;
        second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        text
    });
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    within(endpoint.until_requests(2)).await; // the code exchange, and the refresh that the 401 caused
    client.send("6\r\n, then\r\n0\r\n\r\n").await;
    assert_eq!(within(client.response()).await.unwrap().status, 200);
    let text = upstream.await.unwrap();
    assert!(text.contains("\r\n\r\n5\r\nfirst\r\n6\r\n, then\r\n0\r\n\r\n"), "{text}");
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    within(async {
        while !text.windows(end.len()).any(|window| window == end.as_bytes()) {
            assert!(
                stream.read_buf(&mut text).await.unwrap() > 0,
                "the connection was closed: {}",
                String::from_utf8_lossy(&text)
            );
        }
    })
    .await;
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_body_too_large_to_replay_gets_a_retryable_503() {
    let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
    let upstream = introspecting_upstream(&endpoint).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.rotation(Rotation::end_access_tokens);
    let large = "x".repeat((1 << 20) + 1);
    let answer = within(pixy.send(&post(&large))).await;
    assert_eq!((answer.status, answer.header("x-pixy-error")), (503, vec!["token_unavailable"]));
    assert_eq!(answer.header("retry-after"), ["1"]);
    assert_eq!(within(pixy.send(&post(&large))).await.status, 200);
    assert_eq!(endpoint.refreshes(), 1);
}

#[tokio::test]
async fn replay_bytes_limits_the_kept_body() {
    for (kept, length, status) in
        [(100, 100, 200), (100, 101, 503), (1 << 21, (1 << 20) + 1, 200), (0, 1, 503), (0, 0, 503)]
    {
        let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
        let upstream = introspecting_upstream(&endpoint).await;
        let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
        let pixy = Pixy::with(&accounts, &json!({ "limits": { "replay_bytes": kept } })).await;
        pixy.link(&endpoint).await;
        endpoint.rotation(Rotation::end_access_tokens);
        let body = "x".repeat(length);
        let answer = within(pixy.send(&post(&body))).await;
        assert_eq!(answer.status, status, "{length} bytes where {kept} are kept");
        let retryable = (answer.header("x-pixy-error"), answer.header("retry-after"));
        assert_eq!(retryable == (vec!["token_unavailable"], vec!["1"]), status == 503, "{retryable:?}");
        assert_eq!(
            upstream.requests().len(),
            if status == 200 { 2 } else { 1 },
            "{length} bytes where {kept} are kept"
        );
        assert_eq!(within(pixy.send(&post(&body))).await.status, 200, "the agent's own retry");
        assert_eq!(endpoint.refreshes(), 1);
    }
}

#[tokio::test]
async fn attack_41_too_large_bodies_get_413() {
    let endpoint = TokenEndpoint::start().await;
    let upstream = Upstream::start().await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let too_large = (64 << 20) + 1;
    let head = format!("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nContent-Length: {too_large}\r\n\r\n");
    let answer = within(pixy.send(&head)).await;
    assert_eq!((answer.status, answer.header("x-pixy-error")), (413, vec!["request_too_large"]));
    assert!(upstream.requests().is_empty());

    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mebibyte = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let send = async {
        for _ in 0..65 {
            client.send(&mebibyte).await;
        }
        client.response().await
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), send).await.unwrap().unwrap();
    assert_eq!((answer.status, answer.header("x-pixy-error")), (413, vec!["request_too_large"]));
    assert!(upstream.requests().iter().all(|seen| !seen.complete), "the upstream received a whole request");
}

#[tokio::test]
async fn a_rotation_that_ends_the_old_token_fails_no_request() {
    let mut rotation = Rotation::new(Duration::from_secs(3), Duration::ZERO);
    rotation.kills_old_access = true;
    let endpoint = TokenEndpoint::with(rotation).await;
    let upstream = introspecting_upstream(&endpoint).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let traffic = |agent: usize| {
        let (pixy, endpoint) = (&pixy, &endpoint);
        async move {
            let mut failed = Vec::new();
            while endpoint.refreshes() < 5 {
                let answer = pixy.send(&post(&format!("agent {agent}"))).await;
                if answer.status != 200 {
                    failed.push(answer.status);
                }
            }
            failed
        }
    };
    let failed = futures_util::future::join_all((0..8).map(traffic));
    let failed = tokio::time::timeout(Duration::from_secs(40), failed).await.unwrap().concat();
    assert_eq!(failed, Vec::<u16>::new());
}

#[tokio::test]
async fn no_401_forces_a_refresh_during_the_backoff() {
    let endpoint = TokenEndpoint::with(Rotation::new(hour(), Duration::ZERO)).await;
    let upstream = Upstream::answering(|_| Reply::new(401)).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_always(Some(Fault::UnavailableSeconds));
    for _ in 0..3 {
        assert_eq!(within(pixy.get("/a/v1/models")).await.status, 401);
        pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    }
    assert_eq!(endpoint.refreshes(), 1, "the server asked to wait");
}

#[tokio::test]
async fn a_401_for_a_static_key_is_forwarded() {
    let upstream = Upstream::answering(|_| Reply::new(401).body("no such key")).await;
    let account = json!({
        "provider": "openai-compatible",
        "profile": { "api": { "base_url": upstream.url(), "allow": ["GET /v1/models"] } },
    });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.post("/api/accounts/a/key", json!({ "key": "marked-key-0123456789" })).await;
    let answer = within(pixy.get("/a/v1/models")).await;
    assert_eq!((answer.status, answer.text().as_str()), (401, "no such key"));
    assert_eq!(upstream.requests().len(), 1);
}
