//! What is ended at the provider (RFC 7009): at unlinking, at replacement, when a login was not confirmed, and when the provider
//! is down just then.

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

async fn until_told(provider: &OpenId, times: usize) {
    let told = async {
        while provider.asked("/revoke").len() < times {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(told).await;
}

fn tokens_told(provider: &OpenId) -> Vec<String> {
    provider.forms("/revoke").into_iter().map(|mut form| form.remove("token").unwrap()).collect()
}

fn records(pixy: &Pixy) -> usize {
    pixy.scratch.files().iter().filter(|file| file.ends_with("a.record")).count()
}

#[tokio::test]
async fn an_unlinked_login_is_gone_here_at_once_and_there_as_soon_as_the_provider_listens() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    let (status, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "revoked": "pending" })));
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
    until_told(&provider, 2).await; // it is told again
    let pixy = pixy.restart().await;
    assert_eq!(
        (pixy.shown("a").await["state"].as_str(), records(&pixy)),
        (Some("unlinked"), 1),
        "what is owed is kept"
    );
    until_told(&provider, 3).await;
    provider.take_down(&[]);
    let told = provider.asked("/revoke").len();
    until_told(&provider, told + 1).await;
    within(async {
        while records(&pixy) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(tokens_told(&provider).iter().all(|token| token == "marked-refresh-1"));
    let told = provider.asked("/revoke").len();
    let pixy = pixy.restart().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((provider.asked("/revoke").len(), pixy.shown("a").await["state"].as_str()), (told, Some("unlinked")));
}

#[tokio::test]
async fn attack_64_a_replaced_login_is_ended_even_when_the_provider_was_down_and_pixy_crashed() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    link(&pixy, &provider).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "the new one serves");
    let pixy = pixy.crash().await;
    provider.take_down(&[]);
    let told = provider.asked("/revoke").len();
    until_told(&provider, told + 1).await;
    assert!(tokens_told(&provider).iter().all(|token| token == "marked-refresh-1"), "never the new one");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(provider.asked("/revoke").len(), told + 1, "once it has heard");
    let pixy = pixy.restart().await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    assert_eq!(provider.asked("/revoke").len(), told + 1);
}

#[tokio::test]
async fn what_is_owed_survives_a_refresh_and_a_new_link() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    link(&pixy, &provider).await; // linked again while the old one is owed
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
    let told = provider.asked("/revoke").len();
    until_told(&provider, told + 1).await;
    assert!(tokens_told(&provider).iter().all(|token| token == "marked-refresh-1"));
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn attack_56_a_login_that_nobody_confirms_is_given_back_again_and_again() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    let id = identify(&pixy, &provider).await;
    provider.take_down(&["/revoke"]);
    pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    until_told(&provider, 2).await;
    provider.take_down(&[]);
    until_told(&provider, 3).await;
    assert_eq!(tokens_told(&provider), ["marked-refresh-1"; 3]);
}

#[tokio::test]
async fn a_login_without_a_refresh_token_is_ended_by_its_access_token() {
    let provider = OpenId::start().await;
    provider.reply(|reply| reply["refresh_token"] = json!(null));
    let (pixy, _upstream) = at(&provider).await;
    link(&pixy, &provider).await;
    let (_, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!(answer, json!({ "revoked": true }));
    let told = &provider.forms("/revoke")[0];
    assert_eq!((told["token"].as_str(), told["token_type_hint"].as_str()), ("marked-access-1", "access_token"));
}
