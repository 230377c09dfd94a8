//! A refresh whose answer names another person, or drops a required scope, replaces no login.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{OpenId, Pixy, Upstream, within};

async fn link(pixy: &Pixy, provider: &OpenId) {
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": back.as_str() })).await;
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
}

async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if is_true().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

async fn refresh(pixy: &Pixy, provider: &OpenId) {
    let before = provider.asked("/token").len();
    assert!(pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await.0 < 300);
    until("a refresh", async || provider.asked("/token").len() > before).await;
}

fn token_of(upstream: &Upstream) -> String {
    upstream.requests().last().unwrap().header("authorization")[0].to_owned()
}

#[tokio::test]
async fn attack_94_a_refresh_for_another_person_asks() {
    let provider = OpenId::start().await;
    let upstream = Upstream::start().await;
    let mut pixy = Pixy::start(&json!({ "a": provider.account(&upstream) })).await;
    link(&pixy, &provider).await;
    provider.claim(|claims| {
        claims["sub"] = json!("eve");
        claims["email"] = json!("eve\u{202e}@example.com");
    });
    refresh(&pixy, &provider).await;
    let is_asked = async |pixy: &Pixy| pixy.shown("a").await["state"] == "relink_required";
    until("the person is asked", async || is_asked(&pixy).await).await;
    for restarted in [false, true] {
        let shown = pixy.shown("a").await;
        let title = shown["error"]["title"].as_str().unwrap();
        for part in [r"another person (eve\u{202e}@example.com)", "linked this account (ada@example.com)", "sealed"] {
            assert!(title.contains(part), "{title}");
        }
        assert_eq!(shown["identity"], json!(["ada@example.com"]));
        // The confirmed login's own token is used while it is valid, the other person's never.
        assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
        assert_eq!(token_of(&upstream), "Bearer marked-access-1");
        if !restarted {
            pixy = pixy.crash().await;
        }
    }
    assert_eq!(provider.asked("/token").len(), 2, "neither refresh token is spent again");
    provider.claim(|claims| claims["sub"] = json!("eve"));
    link(&pixy, &provider).await;
    assert_eq!(pixy.shown("a").await["identity"], json!([r"eve\u{202e}@example.com"]), "confirmed by a person");
    let revoked = || provider.forms("/revoke").iter().map(|form| form["token"].clone()).collect::<Vec<_>>();
    until("both grants are revoked", async || revoked() == ["marked-refresh-1", "marked-refresh-2"]).await;
}

#[tokio::test]
async fn attack_94_a_refresh_without_required_scopes_asks() {
    let provider = OpenId::start().await;
    let upstream = Upstream::start().await;
    let mut account = provider.account(&upstream);
    account["profile"]["link"]["required_scopes"] = json!(["email"]);
    let pixy = Pixy::start(&json!({ "a": account })).await;
    link(&pixy, &provider).await;
    refresh(&pixy, &provider).await;
    until("the second token", async || {
        within(pixy.get("/a/v1/models")).await;
        token_of(&upstream) == "Bearer marked-access-2"
    })
    .await;
    provider.reply(|reply| reply["scope"] = json!("openid offline_access"));
    // At most one forced refresh in 30 s: a restart has none behind it.
    let pixy = pixy.restart().await;
    refresh(&pixy, &provider).await;
    until("the person is asked", async || pixy.shown("a").await["state"] == "relink_required").await;
    let shown = pixy.shown("a").await;
    assert!(shown["error"]["title"].as_str().unwrap().contains("no longer grants what this account needs: email"));
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    assert_eq!(token_of(&upstream), "Bearer marked-access-2");
    let metrics = within(crate::support::RawClient::once(
        pixy.ops(),
        "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ));
    assert!(metrics.await.unwrap().text().contains(r#"outcome="withheld"} 1"#));
}
