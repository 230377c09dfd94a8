//! A client id that the provider issues in the callback, and a minimum time before a refresh: "Sign in with ChatGPT".

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use url::Url;

use super::problem;
use crate::support::{OpenId, Pixy, Upstream, within};

const SCOPES: &str = "openid profile email offline_access resource.invoke chatgpt.tokens.use.direct";

/// The shipped profile, at another server.
fn chatgpt(provider: &OpenId, upstream: &Upstream) -> Value {
    let at = |path: &str| format!("{}{path}", provider.issuer());
    json!({ "provider": "chatgpt", "accept_terms": true, "profile": {
        "link": { "issuer": provider.issuer(), "jwks_url": at("/jwks"), "authorize_url": at("/authorize") },
        "token": { "url": at("/token") },
        "revoke": { "url": at("/revoke") },
        "api": { "base_url": upstream.url() },
    } })
}

async fn signed_in() -> (OpenId, Upstream) {
    let (provider, upstream) = (OpenId::start().await, Upstream::start().await);
    provider.issue_client("oaiapp_1");
    provider.claim(|claims| claims["aud"] = json!([claims["aud"]])); // a one-element array is valid, too
    provider.reply(|reply| reply["scope"] = json!(SCOPES));
    (provider, upstream)
}

fn asked(begun: &Value) -> HashMap<String, String> {
    Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap().query_pairs().into_owned().collect()
}

async fn paste(pixy: &Pixy, begun: &Value, text: &str) -> (u16, Value) {
    let id = begun["attempt"].as_str().unwrap();
    pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await
}

#[tokio::test]
async fn chatgpts_issued_client_id_is_used_afterwards() {
    let (provider, upstream) = signed_in().await;
    let pixy = Pixy::start(&json!({ "a": chatgpt(&provider, &upstream) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let first = asked(&begun);
    assert_eq!(first["client_id"], "dynamic_agent_client");
    assert_eq!((first["agent_name_hint"].as_str(), first["resource"].as_str()), ("pixy", "https://api.openai.com/v1"));
    assert_eq!(first["scope"], SCOPES);
    let installation = &first["ext_agent_host_id"];
    let hex = installation.strip_prefix("urn:uuid:").unwrap();
    assert!(hex.len() == 36 && hex.chars().all(|digit| digit.is_ascii_hexdigit() || digit == '-'), "{installation}");
    assert!(first["nonce"].len() >= 20 && !first["nonce"].contains('{'));
    let port = pixy.page().port();
    assert_eq!(first["redirect_uri"], format!("http://127.0.0.1:{port}/auth/callback"));

    let mut back = provider.consent(begun["authorize_url"].as_str().unwrap());
    let state = first["state"].clone();
    let (status, answer) = paste(&pixy, &begun, &format!("marked-code-0#{state}")).await;
    assert_eq!((status, problem(&answer)), (422, "paste_no_client_id"), "the client id is missing");
    assert!(provider.asked("/token").is_empty());
    let (status, shown) = paste(&pixy, &begun, back.as_str()).await;
    assert_eq!((status, &shown["identity"]), (200, &json!(["ada@example.com"])), "{shown:#}");
    pixy.post(&format!("/api/attempts/{}/confirm", begun["attempt"].as_str().unwrap()), Value::Null).await;
    let exchange = &provider.forms("/token")[0];
    let mut sent: Vec<_> = exchange.keys().map(String::as_str).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["client_id", "code", "code_verifier", "grant_type", "redirect_uri", "resource"]);
    assert_eq!(
        (exchange["client_id"].as_str(), exchange["resource"].as_str()),
        ("oaiapp_1", "https://api.openai.com/v1")
    );

    pixy.post("/api/accounts/a/refresh", Value::Null).await;
    within(async {
        while provider.asked("/token").len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let refresh = &provider.forms("/token")[1];
    let mut sent: Vec<_> = refresh.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    sent.sort_unstable();
    let expected = [
        ("client_id", "oaiapp_1"),
        ("grant_type", "refresh_token"),
        ("refresh_token", "marked-refresh-1"),
        ("resource", "https://api.openai.com/v1"),
    ];
    assert_eq!(sent, expected, "no scope");

    let pixy = pixy.restart().await;
    let again = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let second = asked(&again);
    assert_eq!(second["client_id"], "oaiapp_1", "kept with the account, over a restart");
    assert_eq!(&second["ext_agent_host_id"], installation, "the same installation");
    assert!(second["nonce"] != first["nonce"] && second["state"] != first["state"]);
    back = provider.consent(again["authorize_url"].as_str().unwrap());
    let foreign = back.as_str().replace("client_id=oaiapp_1", "client_id=oaiapp_2");
    let (status, answer) = paste(&pixy, &again, &foreign).await;
    assert_eq!((status, problem(&answer)), (422, "paste_other_client"));
    let without = back.as_str().replace("&client_id=oaiapp_1", "");
    assert_eq!(paste(&pixy, &again, &without).await.0, 200, "the client id is known");

    pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    let revoked = &provider.forms("/revoke")[0];
    assert_eq!((revoked["client_id"].as_str(), revoked["token_type_hint"].as_str()), ("oaiapp_1", "refresh_token"));
    let files = pixy.scratch.files();
    assert!(
        files
            .iter()
            .all(|file| !String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).contains("oaiapp_1"))
    );
}

#[tokio::test]
async fn a_placeholder_is_not_an_issued_client_id() {
    let (provider, upstream) = signed_in().await;
    let pixy = Pixy::start(&json!({ "a": chatgpt(&provider, &upstream) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    for (client, kind) in [
        ("client_id=dynamic_agent_client", "paste_no_client_id"),
        ("client_id=", "paste_no_client_id"),
        ("x=y", "paste_no_client_id"),
        ("client_id=a&client_id=b", "paste_ambiguous"),
    ] {
        let (status, answer) = paste(&pixy, &begun, &back.as_str().replace("client_id=oaiapp_1", client)).await;
        assert_eq!((status, problem(&answer)), (422, kind), "{client}");
    }
    assert!(provider.asked("/token").is_empty());
    assert_eq!(paste(&pixy, &begun, back.as_str()).await.0, 200, "the attempt is still open");
}

#[tokio::test]
async fn a_grant_without_the_required_scope_is_revoked() {
    let (provider, upstream) = signed_in().await;
    provider.reply(|reply| reply["scope"] = json!("openid profile email offline_access"));
    let pixy = Pixy::start(&json!({ "a": chatgpt(&provider, &upstream) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    let (status, answer) = paste(&pixy, &begun, back.as_str()).await;
    assert_eq!((status, problem(&answer)), (422, "scope_missing"));
    let attempt = pixy.shown("a").await["attempt"].clone();
    assert_eq!(
        (&attempt["stage"], &attempt["missing_scopes"]),
        (&json!("failed"), &json!(["chatgpt.tokens.use.direct"]))
    );
    within(async {
        while provider.asked("/revoke").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(provider.forms("/revoke")[0]["token"], "marked-refresh-1");
}

#[tokio::test]
async fn no_refresh_before_the_provider_allows_it() {
    // The fake, like the provider, invalidates the token of an early refresh and returns `invalid_grant`.
    let (provider, upstream) = signed_in().await;
    provider.refuse_refresh_for(3);
    let pixy = Pixy::start(&json!({ "a": chatgpt(&provider, &upstream) })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    paste(&pixy, &begun, back.as_str()).await;
    pixy.post(&format!("/api/attempts/{}/confirm", begun["attempt"].as_str().unwrap()), Value::Null).await;
    for _ in 0..10 {
        pixy.post("/api/accounts/a/refresh", Value::Null).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(provider.asked("/token").len(), 1, "only the code exchange");
    tokio::time::sleep(Duration::from_millis(3200)).await;
    pixy.post("/api/accounts/a/refresh", Value::Null).await;
    within(async {
        while provider.asked("/token").len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while pixy.shown("a").await["state"] != "linked" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(pixy.shown("a").await["error"], Value::Null, "then the refresh works");
}
