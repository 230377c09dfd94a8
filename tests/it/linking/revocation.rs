//! Revocation at the provider (RFC 7009): of an unlinked, a replaced and an unconfirmed login, also while the provider is down.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{OpenId, Pixy, Upstream, within};

async fn at(provider: &OpenId) -> (Pixy, Upstream) {
    let upstream = Upstream::start().await;
    (Pixy::start(&json!({ "a": provider.account(&upstream) })).await, upstream)
}

async fn link(pixy: &Pixy, provider: &OpenId) {
    let id = identify(pixy, provider).await;
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
}

async fn identify(pixy: &Pixy, provider: &OpenId) -> String {
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap().to_owned();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": back.as_str() })).await;
    id
}

async fn until_revocations(provider: &OpenId, times: usize) {
    let requested = async {
        while provider.asked("/revoke").len() < times {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(requested).await;
}

fn revoked_tokens(provider: &OpenId) -> Vec<String> {
    provider.forms("/revoke").into_iter().map(|mut form| form.remove("token").unwrap()).collect()
}

fn records(pixy: &Pixy) -> usize {
    pixy.scratch.files().iter().filter(|file| file.ends_with("a.record")).count()
}

#[tokio::test]
async fn unlinking_retries_the_revocation_until_it_succeeds() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    let (status, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "revoked": "pending" })));
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
    until_revocations(&provider, 2).await; // it is retried
    let pixy = pixy.restart().await;
    assert_eq!(
        (pixy.shown("a").await["state"].as_str(), records(&pixy)),
        (Some("unlinked"), 1),
        "the pending revocation is stored"
    );
    until_revocations(&provider, 3).await;
    provider.take_down(&[]);
    let requested = provider.asked("/revoke").len();
    until_revocations(&provider, requested + 1).await;
    within(async {
        while records(&pixy) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(revoked_tokens(&provider).iter().all(|token| token == "marked-refresh-1"));
    let requested = provider.asked("/revoke").len();
    let pixy = pixy.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        (provider.asked("/revoke").len(), pixy.shown("a").await["state"].as_str()),
        (requested, Some("unlinked"))
    );
}

#[tokio::test]
async fn attack_64_a_replaced_login_is_revoked_after_a_crash() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    link(&pixy, &provider).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "the new login is used");
    let pixy = pixy.crash().await;
    provider.take_down(&[]);
    let requested = provider.asked("/revoke").len();
    until_revocations(&provider, requested + 1).await;
    assert!(revoked_tokens(&provider).iter().all(|token| token == "marked-refresh-1"), "never the new token");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(provider.asked("/revoke").len(), requested + 1, "no retry after a success");
    let pixy = pixy.restart().await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    assert_eq!(provider.asked("/revoke").len(), requested + 1);
}

#[tokio::test]
async fn a_pending_revocation_survives_a_refresh_and_a_link() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    link(&pixy, &provider).await; // linked again while the revocation is pending
    assert_eq!(pixy.shown("a").await["state"], "linked");
    pixy.post("/api/accounts/a/refresh", Value::Null).await;
    within(async {
        while provider.asked("/token").len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let pixy = pixy.restart().await;
    provider.take_down(&[]);
    let requested = provider.asked("/revoke").len();
    until_revocations(&provider, requested + 1).await;
    assert!(revoked_tokens(&provider).iter().all(|token| token == "marked-refresh-1"));
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn attack_56_revoking_an_unconfirmed_login_is_retried() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    let id = identify(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    until_revocations(&provider, 2).await;
    provider.take_down(&[]);
    until_revocations(&provider, 3).await;
    assert_eq!(revoked_tokens(&provider), ["marked-refresh-1"; 3]);
}

#[tokio::test]
async fn a_login_without_a_refresh_token_revokes_its_access_token() {
    let provider = OpenId::start().await;
    provider.reply(|reply| reply["refresh_token"] = json!(null));
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    let (_, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!(answer, json!({ "revoked": true }));
    let requested = &provider.forms("/revoke")[0];
    assert_eq!(
        (requested["token"].as_str(), requested["token_type_hint"].as_str()),
        ("marked-access-1", "access_token")
    );
}
