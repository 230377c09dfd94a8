//! The flows of the shipped profiles, each against a fake that is as strict as the provider.

use std::net::TcpListener;

use http::Method;
use serde_json::{Value, json};
use url::Url;

use super::problem;
use crate::support::{Pixy, Reply, Seen, Upstream};

/// Claude's token endpoint: JSON with exactly these members, or 400.
fn claudes_exchange(seen: &Seen) -> Reply {
    let sent = seen.json();
    let mut members: Vec<_> = sent.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    members.sort_unstable();
    let is_json = seen.header("content-type") == ["application/json"];
    match (seen.path(), sent["grant_type"].as_str()) {
        ("/token", Some("authorization_code")) => {
            let wanted = ["client_id", "code", "code_verifier", "grant_type", "redirect_uri", "state"];
            let fits = members == wanted && sent["redirect_uri"] == "https://platform.claude.com/oauth/code/callback";
            if !is_json || !fits || sent["code"] != "marked-code" {
                return Reply::json(400, &json!({ "error": { "type": "invalid_request_error" } }));
            }
        }
        ("/token", Some("refresh_token")) if is_json && members == ["client_id", "grant_type", "refresh_token"] => {}
        ("/revoke", None) if is_json && sent["client_id"].is_string() => return Reply::json(200, &json!({})),
        _ => return Reply::json(400, &json!({ "error": { "type": "invalid_request_error" } })),
    }
    Reply::json(
        200,
        &json!({
            "token_type": "Bearer", "access_token": "marked-access", "refresh_token": "marked-refresh", "expires_in": 28800,
            "scope": "user:profile user:inference", "organization": { "uuid": "o", "name": "Example" },
            "account": { "uuid": "a", "email_address": "ada@example.com" },
        }),
    )
}

#[tokio::test]
async fn claudes_code_and_state_are_pasted_and_exchanged_as_json() {
    let provider = Upstream::answering(claudes_exchange).await;
    let at = |path: &str| format!("{}{path}", provider.url());
    let account = json!({ "provider": "claude", "accept_terms": true, "profile": {
        "token": { "url": at("/token") }, "revoke": { "url": at("/revoke") }, "api": { "base_url": provider.url() },
    } });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!((&begun["redirect"], &begun["notice"]), (&json!("paste"), &Value::Null));
    let url = Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
    let asked = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!(
        (asked("code").as_deref(), asked("scope").as_deref()),
        (Some("true"), Some("user:profile user:inference"))
    );
    assert_eq!(asked("nonce"), None);
    let id = begun["attempt"].as_str().unwrap();
    let text = format!("marked-code#{}", asked("state").unwrap());
    let (status, shown) = pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await;
    assert_eq!((status, &shown["identity"]), (200, &json!(["ada@example.com", "Example"])), "{shown:#}");
    assert_eq!(provider.requests()[0].json()["state"], json!(asked("state")), "the exchange repeats the state");
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    let (_, unlinked) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!(unlinked, json!({ "revoked": true }));
    let revoked = provider.requests().last().unwrap().json();
    assert_eq!((&revoked["token"], provider.requests().len()), (&json!("marked-refresh"), 2));
}

#[tokio::test]
async fn codexs_fixed_ports_are_served_or_pasted() {
    // The shipped ports are fixed: another program on this machine may hold them.
    let provider = Upstream::answering(|_| {
        Reply::json(200, &json!({ "access_token": "at", "refresh_token": "rt", "expires_in": 60 }))
    })
    .await;
    let account = json!({ "provider": "codex", "accept_terms": true, "profile": {
        "token": { "url": format!("{}/token", provider.url()), "expiry": "expires_in" },
        "revoke": null,
        "api": { "base_url": provider.url() },
    } });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let url = Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
    let redirect = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    assert!(
        ["http://localhost:1455/auth/callback", "http://localhost:1457/auth/callback"].contains(&redirect.as_str())
    );
    let caught = begun["redirect"] == "loopback";
    assert_eq!(caught, begun["notice"].is_null(), "{begun:#}");
    if caught {
        let port = Url::parse(&redirect).unwrap().port().unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "Pixy listens on it");
    }
    let id = begun["attempt"].as_str().unwrap();
    let paste = async |text: String| {
        pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await
    };
    let (status, answer) = paste(format!("http://localhost:9999/auth/callback?code=c&state={state}")).await;
    assert_eq!((status, problem(&answer)), (422, "paste_foreign_host"), "another port is another address");
    assert_eq!(paste(format!("{redirect}?code=c&state={state}")).await.0, 200, "pasting works in any case");
}
