//! Refreshes: ahead of expiry, one call for all requests, durable, and without losing the login.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Fault, Pixy, Reply, Rotation, Sorting, TokenEndpoint, Upstream, oauth_account, within};

const SECOND: Duration = Duration::from_secs(1);

/// A provider with this access token lifetime and no grace period, and an upstream.
async fn provider(lifetime: Duration) -> (TokenEndpoint, Upstream) {
    (TokenEndpoint::with(Rotation::new(lifetime, Duration::ZERO)).await, Upstream::start().await)
}

async fn until_state(pixy: &Pixy, state: &str) -> Value {
    for _ in 0..400 {
        let shown = pixy.shown("a").await;
        if shown["state"] == state {
            return shown;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the account never became {state}: {:#}", pixy.shown("a").await);
}

#[tokio::test]
async fn tokens_are_refreshed_ahead_of_expiry() {
    let (endpoint, upstream) = provider(2 * SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    while endpoint.refreshes() < 3 {
        assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
        let seen = upstream.requests().last().unwrap().header("authorization")[0].to_owned();
        assert!(endpoint.lets_in(seen.strip_prefix("Bearer ").unwrap()), "an expired token was sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let spent: Vec<_> = endpoint.calls().iter().map(|call| call.field("refresh_token").to_owned()).collect();
    let once: std::collections::HashSet<_> = spent.iter().collect();
    assert_eq!(once.len(), spent.len(), "a refresh token was spent twice");
}

#[tokio::test]
async fn concurrent_requests_at_expiry_make_one_token_call() {
    // openai/codex#10332, anthropics/claude-code#24317, anomalyco/opencode#49439
    let (endpoint, upstream) = provider(3 * SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let gate = endpoint.hold_next();
    endpoint.until_requests(2).await; // the code exchange, and the held refresh
    tokio::time::sleep(SECOND / 2).await; // the old token has expired, the refresh is still held
    let asks = (0..50).map(|_| pixy.get("/a/v1/models"));
    let answers = futures_util::future::join_all(asks);
    let open = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(upstream.requests().is_empty(), "an expired token was sent");
        gate.open();
    };
    let (answers, ()) = within(async { tokio::join!(answers, open) }).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(endpoint.refreshes(), 1);
}

#[tokio::test]
async fn a_client_disconnect_cancels_no_refresh() {
    // openai/codex PR#26516
    let (endpoint, upstream) = provider(3 * SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let gate = endpoint.hold_next();
    endpoint.until_requests(2).await;
    tokio::time::sleep(SECOND / 2).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(100), pixy.get("/a/v1/models")).await.is_err(),
        "the request did not wait"
    );
    gate.open();
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    assert_eq!(endpoint.refreshes(), 1);
}

#[tokio::test]
async fn starting_with_an_expired_access_token_is_normal() {
    // askalf/dario PR#653, askalf/dario#790
    let (endpoint, upstream) = provider(SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_always(Some(Fault::Unavailable));
    tokio::time::sleep(SECOND).await;
    endpoint.fail_always(None);
    let pixy = pixy.restart().await;
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    let pixy = pixy.crash().await;
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200, "the rotated token is durable");
}

#[tokio::test]
async fn attack_12_a_storm_of_401s_makes_one_refresh_and_no_more() {
    let (endpoint, upstream) = provider(Duration::from_hours(1)).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    for _ in 0..220 {
        upstream.answer(Reply::new(401));
        within(pixy.get("/a/v1/models")).await;
    }
    assert_eq!(endpoint.refreshes(), 1, "at most one forced refresh in 30 s");
    for _ in 0..220 {
        if pixy.get("/a/v1/models").await.status == 200 {
            break; // the queued 401 responses are used up
        }
    }
    let seen = upstream.requests().last().unwrap().header("authorization")[0].to_owned();
    assert!(endpoint.lets_in(seen.strip_prefix("Bearer ").unwrap()));
}

#[tokio::test]
async fn relink_required_survives_a_restart() {
    // raine/claude-code-proxy PR#42, anthropics/claude-code#91571
    let (endpoint, upstream) = provider(SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_always(Some(Fault::InvalidGrant));
    let shown = until_state(&pixy, "relink_required").await;
    assert!(shown["error"]["title"].as_str().unwrap().contains("invalid_grant"), "{shown:#}");
    tokio::time::sleep(SECOND).await;
    let refused = pixy.get("/a/v1/models").await;
    assert_eq!((refused.status, refused.header("x-pixy-error")), (401, vec!["relink_required"]));
    let calls = endpoint.calls().len();
    let pixy = pixy.restart().await;
    assert_eq!(pixy.shown("a").await["state"], "relink_required");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(endpoint.calls().len(), calls, "no call after a terminal refusal");
    let ready =
        crate::support::RawClient::once(pixy.ops(), "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
    assert_eq!(ready.unwrap().status, 503, "not ready while the account needs a person (shogo-labs/shogo-ai#607)");
    assert!(
        pixy.scratch.files().iter().any(|file| file.to_string_lossy().contains("a.record")),
        "the credential is kept"
    );
    endpoint.fail_always(None);
    pixy.link(&endpoint).await;
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
}

#[tokio::test]
async fn a_token_is_used_until_it_expires_and_never_after() {
    // envoyproxy/envoy#44674
    let (endpoint, upstream) = provider(8 * SECOND).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_always(Some(Fault::Unavailable));
    endpoint.until_requests(2).await; // the first refresh, ahead of time, fails
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "the old token is still used");
    tokio::time::sleep(SECOND * 3 / 2).await;
    let before = upstream.requests().len();
    let asked = tokio::time::timeout(Duration::from_millis(500), pixy.get("/a/v1/models")).await;
    assert!(asked.map_or(true, |answer| answer.status == 503), "an expired token was used");
    assert_eq!(upstream.requests().len(), before);
}

#[tokio::test]
async fn a_damaged_record_is_reported_and_kept() {
    let (endpoint, upstream) = provider(Duration::from_hours(1)).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let record = pixy.scratch.files().into_iter().find(|file| file.ends_with("a.record")).unwrap();
    let mut bytes = std::fs::read(&record).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&record, &bytes).unwrap();
    let pixy = pixy.restart().await;
    let shown = pixy.shown("a").await;
    assert_eq!(shown["state"], "relink_required");
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    assert_eq!(std::fs::read(&record).unwrap(), bytes, "a damaged record is not changed");
    pixy.link(&endpoint).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn attack_66_every_token_endpoint_fault_is_classified() {
    assert!(Fault::ALL.len() >= 60, "attack 66 asks for 60 variants");
    // Concurrently, because some of them are slow.
    let wrong: Vec<String> = stream::iter(Fault::ALL)
        .map(|&fault| refresh_with(fault))
        .buffer_unordered(24)
        .flat_map(stream::iter)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), Fault::ALL.len(), wrong.join("\n"));
}

/// Refreshes with the fault, and returns what is wrong afterwards.
async fn refresh_with(fault: Fault) -> Vec<String> {
    let (endpoint, upstream) = provider(Duration::from_hours(1)).await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_next(fault);
    pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    let outcome = outcome_of_refresh(&pixy).await;
    let as_expected = match fault.expected() {
        Sorting::Ok(_) => outcome == "renewed",
        Sorting::Terminal => outcome == "terminal",
        Sorting::Transient => outcome == "transient" || outcome == "unheard",
        Sorting::Unknown => outcome == "unknown",
    };
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{}: {what}", fault.name()));
        }
    };
    expect(as_expected, format!("{:?} was classified as {outcome}", fault.expected()));
    expect(endpoint.strays().is_empty(), "a redirect was followed".to_owned());
    // The access token of one hour is still used, unless a refreshed one was already expired.
    let dead_on_arrival = fault.lifetime() < 2 * SECOND && matches!(fault.expected(), Sorting::Ok(_));
    expect(dead_on_arrival || pixy.get("/a/v1/models").await.status == 200, "the login is no longer usable".to_owned());
    let pixy = pixy.crash().await;
    expect(pixy.shown("a").await["state"] != "unlinked", "the login was removed".to_owned());
    wrong
}

/// The outcome under which the refresh was counted.
async fn outcome_of_refresh(pixy: &Pixy) -> String {
    for _ in 0..900 {
        let metrics = metrics(pixy).await;
        let mut lines = metrics.lines().filter(|line| !line.ends_with(" 0"));
        let prefix = "pixy_refreshes_total{account=\"a\",outcome=\"";
        if let Some(outcome) = lines.find_map(|line| line.strip_prefix(prefix)) {
            return outcome.split('"').next().unwrap_or_default().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    "nothing".to_owned()
}

async fn metrics(pixy: &Pixy) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    crate::support::RawClient::once(pixy.ops(), request).await.unwrap().text()
}

#[tokio::test]
async fn accounts_are_independent() {
    let (endpoint, upstream) = provider(SECOND).await;
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream), "b": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::start(&accounts).await;
    pixy.link(&endpoint).await;
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    assert_eq!(pixy.get("/b/v1/models").await.status, 401);
}
