//! Verification of the issuer and the identity: id_tokens (OpenID Connect Core §3.1.3.7), `iss` (RFC 9207) and issuers (RFC 8414 §3.3).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use url::Url;

use super::problem;
use crate::support::{OpenId, Pixy, Upstream, within};

async fn at(provider: &OpenId) -> (Pixy, Upstream) {
    let upstream = Upstream::start().await;
    (Pixy::start(&json!({ "a": provider.account(&upstream) })).await, upstream)
}

/// Links up to the confirmation.
async fn link(pixy: &Pixy, provider: &OpenId) -> (u16, Value) {
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = provider.consent(begun["authorize_url"].as_str().unwrap());
    paste(pixy, &begun, back.as_str()).await
}

async fn paste(pixy: &Pixy, begun: &Value, text: &str) -> (u16, Value) {
    let id = begun["attempt"].as_str().unwrap();
    pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await
}

async fn stage_of(pixy: &Pixy) -> String {
    pixy.shown("a").await["attempt"]["stage"].as_str().unwrap_or_default().to_owned()
}

async fn until_revoked(provider: &OpenId) {
    let revoked = async {
        while provider.asked("/revoke").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(revoked).await;
}

#[tokio::test]
async fn an_id_token_is_verified_and_its_identity_shown() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    let (status, shown) = link(&pixy, &provider).await;
    assert_eq!((status, &shown["identity"]), (200, &json!(["ada@example.com"])), "{shown:#}");
    assert_eq!(provider.asked("/jwks").len(), 1);
}

#[tokio::test]
async fn attack_61_an_invalid_id_token_is_rejected() {
    type Forgery = fn(&OpenId);
    let forgeries: [(&str, Forgery); 12] = [
        ("of another issuer", |provider| provider.claim(|claims| claims["iss"] = json!("https://evil.example"))),
        ("for another client", |provider| provider.claim(|claims| claims["aud"] = json!("other"))),
        ("for several, and not issued to us", |provider| provider.claim(|claims| claims["aud"] = json!(["pixy", "b"]))),
        ("issued to another", |provider| provider.claim(|claims| claims["azp"] = json!("other"))),
        ("of another attempt", |provider| provider.claim(|claims| claims["nonce"] = json!("another"))),
        ("of no attempt", |provider| provider.claim(|claims| claims["nonce"] = json!(null))),
        ("expired", |provider| provider.claim(|claims| claims["exp"] = json!(1_600_000_000))),
        ("from the future", |provider| {
            provider.claim(|claims| {
                claims["iat"] = json!(4_000_000_000_u64);
                claims["exp"] = json!(4_100_000_000_u64);
            });
        }),
        ("unsigned", |provider| provider.head(|header| header["alg"] = json!("none"))),
        ("signed with a shared key", |provider| provider.head(|header| header["alg"] = json!("HS256"))),
        ("signed by a key that is not the issuer's", |provider| provider.rotate_key("key-1", 0)),
        ("missing", |provider| provider.reply(|reply| reply["id_token"] = json!(null))),
    ];
    for (what, forge) in forgeries {
        let provider = OpenId::start().await;
        forge(&provider);
        let (pixy, _upstream) = at(&provider).await;
        let (status, answer) = link(&pixy, &provider).await;
        let kind = if what == "missing" { "id_token_missing" } else { "id_token_refused" };
        assert_eq!((status, problem(&answer)), (422, kind), "{what}: {answer:#}");
        let attempt = pixy.shown("a").await["attempt"].clone();
        assert_eq!((&attempt["stage"], problem(&attempt["error"])), (&json!("failed"), kind), "{what}");
        assert_eq!(pixy.shown("a").await["state"], "unlinked");
        until_revoked(&provider).await;
        assert_eq!(provider.asked("/token").len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_device_id_token_is_verified_without_a_nonce() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    for (stage, is_forged) in [("to_confirm", false), ("failed", true)] {
        if is_forged {
            provider.claim(|claims| claims["aud"] = json!("other"));
        }
        let begun = pixy.post("/api/accounts/a/attempts", json!({ "flow": "device_code" })).await;
        assert_eq!(begun["user_code"], "ABCD", "the endpoint was discovered");
        within(async {
            while !["to_confirm", "failed"].contains(&stage_of(&pixy).await.as_str()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(pixy.shown("a").await["attempt"]["stage"], stage);
    }
    assert_eq!(problem(&pixy.shown("a").await["attempt"]["error"]), "id_token_refused");
}

#[tokio::test]
async fn several_audiences_are_accepted_with_our_azp() {
    let provider = OpenId::start().await;
    provider.claim(|claims| {
        claims["aud"] = json!(["llm-api", "pixy"]);
        claims["azp"] = json!("pixy");
    });
    let (pixy, _upstream) = at(&provider).await;
    assert_eq!(link(&pixy, &provider).await.0, 200);
}

#[tokio::test]
async fn rotated_keys_are_fetched_once_more() {
    let provider = OpenId::start().await;
    provider.rotate_key("key-2", 2);
    let (pixy, _upstream) = at(&provider).await;
    assert_eq!(link(&pixy, &provider).await.0, 200, "the second fetch has it");
    assert_eq!(provider.asked("/jwks").len(), 2);

    let provider = OpenId::start().await;
    provider.rotate_key("key-2", 0);
    let (pixy, _upstream) = at(&provider).await;
    let (status, answer) = link(&pixy, &provider).await;
    assert_eq!((status, problem(&answer)), (422, "id_token_refused"), "an unknown key");
    assert!(answer["title"].as_str().unwrap().contains("not among the issuer's"), "{answer:#}");
    assert_eq!(provider.asked("/jwks").len(), 2);
}

#[tokio::test]
async fn without_the_issuers_keys_nothing_is_linked() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    provider.take_down(&["/jwks"]);
    let (status, answer) = link(&pixy, &provider).await;
    assert_eq!((status, problem(&answer)), (502, "provider_down"));
    until_revoked(&provider).await;
    provider.take_down(&[]);
    assert_eq!(link(&pixy, &provider).await.0, 200, "the next attempt works");
}

#[tokio::test]
async fn attack_61_a_response_of_another_issuer_is_rejected() {
    let (ours, evil) = (OpenId::start().await, OpenId::start().await);
    let upstream = Upstream::start().await;
    let pixy = Pixy::start(&json!({ "a": ours.account(&upstream), "b": evil.account(&upstream) })).await;
    // The mix-up (RFC 9700 §4.4): the person begins at the attacker's server, which redirects them to ours with its own state.
    let at_evil = pixy.post("/api/accounts/b/attempts", Value::Null).await;
    let sent_on = at_evil["authorize_url"].as_str().unwrap().replace(&evil.issuer(), &ours.issuer());
    let back = ours.consent(&sent_on);
    let (status, answer) = paste(&pixy, &at_evil, back.as_str()).await;
    assert_eq!((status, problem(&answer)), (422, "paste_other_issuer"));
    let redirected = format!(
        "GET {}?{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
        back.path(),
        back.query().unwrap(),
        pixy.page().port()
    );
    let shown = crate::support::RawClient::once(pixy.page(), redirected).await.unwrap().text();
    assert!(shown.contains("from another server"), "{shown}");
    assert!(evil.asked("/token").is_empty() && ours.asked("/token").is_empty(), "no code was sent");

    // Without `iss`, with it twice, or with one that differs in a letter's case.
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let back = ours.consent(begun["authorize_url"].as_str().unwrap());
    let with = |iss: &[&str]| {
        let mut url = back.clone();
        let rest: Vec<_> = back.query_pairs().into_owned().filter(|(name, _)| name != "iss").collect();
        url.query_pairs_mut().clear().extend_pairs(rest).extend_pairs(iss.iter().map(|iss| ("iss", *iss)));
        url
    };
    let (issuer, slashed) = (ours.issuer(), format!("{}/x", ours.issuer()));
    for (given, kind) in [
        (with(&[]), "paste_other_issuer"),
        (with(&[&issuer, &issuer]), "paste_ambiguous"),
        (with(&[&issuer.to_uppercase()]), "paste_other_issuer"),
        (with(&[&slashed]), "paste_other_issuer"),
    ] {
        let (status, answer) = paste(&pixy, &begun, given.as_str()).await;
        assert_eq!((status, problem(&answer)), (422, kind), "{given}");
    }
    assert!(ours.asked("/token").is_empty());
    assert_eq!(paste(&pixy, &begun, back.as_str()).await.0, 200);
}

#[tokio::test]
async fn attack_61_metadata_of_another_issuer_is_rejected() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    for issuer in ["https://evil.example".to_owned(), provider.issuer().replace("127.0.0.1", "localhost")] {
        let forged = issuer.clone();
        provider.publish(move |metadata| metadata["issuer"] = json!(forged));
        let (status, answer) = pixy.api(Method::POST, "/api/accounts/a/attempts", Value::Null).await;
        assert_eq!((status, problem(&answer)), (502, "provider_down"), "{issuer}");
    }
    let issuer = provider.issuer();
    provider.publish(move |metadata| metadata["issuer"] = json!(issuer));
    pixy.post("/api/accounts/a/attempts", Value::Null).await;
    provider.publish(|metadata| metadata["jwks_uri"] = json!("http://keys.example/jwks"));
    let (status, _) = pixy.api(Method::POST, "/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(status, 502, "keys over plain HTTP are not trusted");
}

#[tokio::test]
async fn attack_94_metadata_names_no_weaker_endpoint() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    for (member, url, word) in [
        ("token_endpoint", "http://10.1.2.3/token", "unencrypted"),
        ("jwks_uri", "https://me@keys.example/jwks", "user name"),
        ("revocation_endpoint", "file:///etc/passwd", "no host"),
        ("authorization_endpoint", "javascript:alert(1)", "no host"),
    ] {
        let own = format!("{}/own", provider.issuer());
        provider.publish(move |metadata| metadata[member] = json!(url));
        let (status, answer) = pixy.api(Method::POST, "/api/accounts/a/attempts", Value::Null).await;
        assert_eq!((status, problem(&answer)), (502, "provider_down"), "{url}");
        let title = answer["title"].as_str().unwrap();
        for part in [member, url, word, "the authorization server's fault"] {
            assert!(title.contains(part), "{part} is missing: {title}");
        }
        provider.publish(move |metadata| metadata[member] = json!(own));
    }
    assert_eq!(provider.asked("/token").len(), 0);
}

#[tokio::test]
async fn attack_94_an_identity_is_shown_with_escapes() {
    let provider = OpenId::start().await;
    let (pixy, _upstream) = at(&provider).await;
    provider.claim(|claims| claims["email"] = json!("ada\u{202e}moc\u{200b}\n\u{1b}[31m"));
    provider.reply(|reply| reply["scope"] = json!("openid email\u{202e} offline_access"));
    let (status, shown) = link(&pixy, &provider).await;
    let expected = json!([r"ada\u{202e}moc\u{200b}\u{a}\u{1b}[31m"]);
    assert_eq!((status, &shown["identity"]), (200, &expected), "{shown:#}");
    assert_eq!(shown["scopes"], json!(["openid", r"email\u{202e}", "offline_access"]));
    let attempt = pixy.shown("a").await["attempt"].clone();
    assert_eq!(attempt["identity"], expected, "{attempt:#}");
    pixy.post(&format!("/api/attempts/{}/confirm", attempt["attempt"].as_str().unwrap()), Value::Null).await;
    assert_eq!(pixy.shown("a").await["identity"], expected);
}

#[tokio::test]
async fn pinned_endpoints_work_without_metadata() {
    let provider = OpenId::start().await;
    let upstream = Upstream::start().await;
    let mut account = provider.account(&upstream);
    account["profile"]["link"]["authorize_url"] = json!(format!("{}/authorize", provider.issuer()));
    account["profile"]["link"]["jwks_url"] = json!(format!("{}/jwks", provider.issuer()));
    account["profile"]["token"] = json!({ "url": format!("{}/token", provider.issuer()) });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    provider.take_down(&["/.well-known/openid-configuration"]);
    assert_eq!(link(&pixy, &provider).await.0, 200);
    provider.take_down(&[]);
    provider.publish(|metadata| metadata["issuer"] = json!("https://evil.example"));
    let (status, _) = pixy.api(Method::POST, "/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(status, 502, "metadata of another issuer is rejected");
}

#[tokio::test]
async fn a_nonce_is_sent_unless_the_profile_removes_it() {
    let provider = OpenId::start().await;
    let upstream = Upstream::start().await;
    let mut account = provider.account(&upstream);
    let given = async |account: &Value| {
        let pixy = Pixy::start(&json!({ "a": account })).await;
        let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
        let url = Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
        url.query_pairs().find(|(name, _)| name == "nonce").map(|(_, nonce)| nonce.len())
    };
    assert_eq!(given(&account).await, Some(22), "128 bits");
    account["profile"]["link"]["authorize_params"] = json!({ "nonce": null });
    assert_eq!(given(&account).await, None);
    account["profile"]["link"]["authorize_params"] = json!({ "nonce": "{nonce}" });
    assert_eq!(given(&account).await, Some(22));
    account["profile"]["link"]["authorize_params"] = json!({});
    account["profile"]["link"]["scopes"] = json!(["llm.invoke"]);
    assert_eq!(given(&account).await, None, "no OpenID Connect login");
}
