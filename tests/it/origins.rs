//! A login belongs to the origins that it was linked for: a changed configuration sends it nowhere before a person confirms.
//!
//! The new origin is a fake that records every connection: not one is accepted, so no byte is sent.

mod files;
mod revocations;
mod terminal;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{OpenId, Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account, within};

/// The URLs of a profile that a login is bound to, as JSON pointers.
const URLS: [&str; 5] = [
    "/profile/link/issuer",
    "/profile/token/url",
    "/profile/revoke/url",
    "/profile/link/device/url",
    "/profile/api/base_url",
];

/// The same with one URL at another origin, its path kept.
fn moved(account: &Value, pointer: &str, to: &str) -> Value {
    let mut moved = account.clone();
    let url = moved.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not set"));
    let old = url::Url::parse(url.as_str().unwrap()).unwrap();
    *url = json!(format!("{to}{}", old.path()));
    moved
}

/// Waits until the account has applied a reload that moves it, or moves it back.
async fn until_reason(pixy: &Pixy, reason: &Value) -> Value {
    within(async {
        loop {
            let shown = pixy.shown("a").await;
            if shown["error"]["reason"] == *reason {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// Does everything that could send the login somewhere.
async fn provoke(pixy: &Pixy) {
    for _ in 0..3 {
        let refused = within(pixy.get("/a/v1/models")).await;
        assert_eq!((refused.status, refused.header("x-pixy-error")), (401, vec!["relink_required"]));
        assert!(refused.text().contains("pixy link a --moved"), "{}", refused.text());
        pixy.post("/api/accounts/a/refresh", Value::Null).await;
    }
}

fn assert_moved(shown: &Value, from: &str, to: &str) {
    assert_eq!((&shown["state"], &shown["usable"]), (&json!("relink_required"), &json!(false)), "{shown:#}");
    let title = shown["error"]["title"].as_str().unwrap();
    assert!(title.contains(&format!("moved from {from} to {to}")), "{title}");
    assert!(shown["error"]["detail"].as_str().unwrap().contains("pixy link a --moved"), "{shown:#}");
}

#[tokio::test]
async fn attack_85_a_reload_sends_a_login_nowhere_else() {
    for pointer in URLS {
        let (endpoint, upstream, new) = (OpenId::start().await, Upstream::start().await, Upstream::start().await);
        let accounts = json!({ "a": openid_account(&endpoint, &upstream) });
        let mut pixy = Pixy::start(&accounts).await;
        link(&pixy, &endpoint).await;
        let changed = json!({ "a": moved(&accounts["a"], pointer, &new.url()) });
        pixy.reload(&changed, &json!({})).await.unwrap();
        let from = url::Url::parse(accounts["a"].pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        assert_moved(&until_reason(&pixy, &json!("moved")).await, &from.origin().ascii_serialization(), &new.url());
        provoke(&pixy).await;
        assert_eq!(new.connections(), 0, "{pointer}");

        // Back at the old origin, it serves without a question.
        pixy.reload(&accounts, &json!({})).await.unwrap();
        until_reason(&pixy, &Value::Null).await;
        assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200, "{pointer}");

        pixy.reload(&changed, &json!({})).await.unwrap();
        until_reason(&pixy, &json!("moved")).await;
        assert_eq!(pixy.post("/api/accounts/a/moved", Value::Null).await["state"], "linked", "{pointer}");
        assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200, "{pointer}");
        let goes_to_the_new_one = pointer == "/profile/api/base_url";
        assert_eq!(new.connections() > 0, goes_to_the_new_one, "{pointer}");
    }
}

#[tokio::test]
async fn attack_85_a_restart_sends_a_login_nowhere_else() {
    for pointer in URLS {
        let (endpoint, upstream, new) = (OpenId::start().await, Upstream::start().await, Upstream::start().await);
        endpoint.reply(|reply| reply["expires_in"] = json!(2)); // it is due at the start
        let accounts = json!({ "a": openid_account(&endpoint, &upstream) });
        let pixy = Pixy::start(&accounts).await;
        link(&pixy, &endpoint).await;
        let (scratch, _) = pixy.dismantle().await;
        let changed = json!({ "a": moved(&accounts["a"], pointer, &new.url()) });
        let pixy = Pixy::at(scratch, &changed, &json!({})).await;
        let from = url::Url::parse(accounts["a"].pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        assert_moved(&pixy.shown("a").await, &from.origin().ascii_serialization(), &new.url());
        tokio::time::sleep(Duration::from_millis(50)).await;
        provoke(&pixy).await;
        assert_eq!(new.connections(), 0, "{pointer}");

        // The confirmation is durable.
        pixy.post("/api/accounts/a/moved", Value::Null).await;
        let pixy = pixy.restart().await;
        assert_eq!(pixy.shown("a").await["error"]["reason"], Value::Null, "{pointer}");
        if pointer == "/profile/token/url" {
            within(new.until_requests(1)).await; // the refresh that is due
            assert!(String::from_utf8_lossy(&new.requests()[0].body).contains("grant_type=refresh_token"));
        }
    }
}

/// An account with every URL at its issuer.
fn openid_account(endpoint: &OpenId, upstream: &Upstream) -> Value {
    let mut account = endpoint.account(upstream);
    let at = |path: &str| json!(format!("{}{path}", endpoint.issuer()));
    account["profile"]["token"] = json!({ "url": at("/token") });
    account["profile"]["revoke"] = json!({ "url": at("/revoke") });
    account["profile"]["link"]["device"] = json!({ "url": at("/device") });
    account
}

/// Links `a` with the redirect that the person pastes.
async fn link(pixy: &Pixy, endpoint: &OpenId) {
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let redirect = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": redirect.as_str() })).await;
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
}

/// The issuer alone is configured: its metadata names the endpoints, which move with it.
#[tokio::test]
async fn attack_85_discovered_endpoints_are_bound_by_their_issuer() {
    let (old, new, upstream) = (OpenId::start().await, OpenId::start().await, Upstream::start().await);
    old.reply(|reply| reply["expires_in"] = json!(2));
    let pixy = Pixy::start(&json!({ "a": old.account(&upstream) })).await;
    link(&pixy, &old).await;
    let (scratch, _) = pixy.dismantle().await;
    let pixy = Pixy::at(scratch, &json!({ "a": new.account(&upstream) }), &json!({})).await;
    assert_moved(&pixy.shown("a").await, &old.issuer(), &new.issuer());
    provoke(&pixy).await;
    assert_eq!(new.connections(), 0, "not even its metadata is read");
    pixy.post("/api/accounts/a/moved", Value::Null).await;
    within(async {
        while new.forms("/token").is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(new.forms("/token")[0]["grant_type"], "refresh_token");
}

/// A request that waits for a token, and one that is checked while a reload is applied, get none for the new origin.
#[tokio::test]
async fn attack_85_no_request_in_the_window_of_a_reload() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    // A refresh holds the account while the reload is applied: the requests must wait for it to learn of the move.
    let gate = endpoint.hold_next();
    let before = endpoint.requests().len();
    pixy.post("/api/accounts/a/refresh", Value::Null).await;
    within(endpoint.until_requests(before + 1)).await;
    let changed = json!({ "a": moved(&accounts["a"], "/profile/api/base_url", &new.url()) });
    pixy.reload(&changed, &json!({})).await.unwrap();
    let agents = pixy.agents();
    let request = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n";
    let waiting: Vec<_> = (0..20).map(|_| tokio::spawn(RawClient::once(agents, request))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.open();
    for waiting in waiting {
        assert_eq!(within(waiting).await.unwrap().unwrap().status, 401);
    }
    assert_eq!((new.connections(), upstream.requests().len()), (0, 0));
}

#[tokio::test]
async fn a_person_sees_and_confirms_a_move_on_the_page_alone_with_a_session() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    let changed = json!({ "a": moved(&oauth_account(&endpoint, &upstream), "/profile/api/base_url", &new.url()) });
    pixy.reload(&changed, &json!({})).await.unwrap();
    until_reason(&pixy, &json!("moved")).await;
    let request = format!(
        "POST /api/accounts/a/moved HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}",
        pixy.page()
    );
    let mut stranger = RawClient::connect(pixy.page()).await;
    stranger.send(request).await;
    assert_eq!(stranger.response_to("POST").await.unwrap().status, 401);
    assert_eq!(pixy.shown("a").await["error"]["reason"], "moved");
    // The person saw something else than what is configured now.
    let (status, problem) =
        pixy.api(Method::POST, "/api/accounts/a/moved", json!({ "seen": "moved somewhere else" })).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:pixy:problem:moved_again")));
    assert_eq!(pixy.shown("a").await["error"]["reason"], "moved");
    // Linking again is the other way.
    pixy.link(&endpoint).await;
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    assert_eq!(new.requests().len(), 1);
    let (status, _) = pixy.api(Method::POST, "/api/accounts/b/moved", Value::Null).await;
    assert_eq!(status, 404);
}

/// An attempt that began before the reload brings a login of the old origins.
#[tokio::test]
async fn attack_85_an_attempt_of_before_a_reload_is_bound_to_its_origins() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let mut pixy = Pixy::start(&accounts).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    pixy.post(&format!("/api/attempts/{id}/paste"), json!({ "text": format!("{}#{}", consent.code, consent.state) }))
        .await;
    let mut changed = moved(&accounts["a"], "/profile/api/base_url", &new.url());
    changed = moved(&changed, "/profile/token/url", &new.url());
    pixy.reload(&json!({ "a": changed }), &json!({})).await.unwrap();
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    assert_eq!(pixy.shown("a").await["error"]["reason"], "moved");
    provoke(&pixy).await;
    assert_eq!(new.connections(), 0);
}

/// The device code and what is issued for it stay with the servers at which the attempt began.
#[tokio::test]
async fn attack_85_a_device_attempt_of_before_a_reload_polls_as_it_began() {
    let is_approved = Arc::new(AtomicBool::new(false));
    let approved = Arc::clone(&is_approved);
    let old = Upstream::answering(move |seen| match seen.path() {
        "/usercode" => Reply::json(200, &json!({ "device_auth_id": "id", "user_code": "ABCD-12345", "interval": "1" })),
        "/code" if !approved.load(Ordering::SeqCst) => Reply::new(403),
        "/code" => Reply::json(200, &json!({ "authorization_code": "code", "code_verifier": "v".repeat(43) })),
        "/token" => Reply::json(200, &json!({ "access_token": "at", "refresh_token": "rt", "expires_in": 3600 })),
        _ => Reply::new(404),
    })
    .await;
    let new = Upstream::start().await;
    let at = |path: &str| format!("{}{path}", old.url());
    let account = json!({ "provider": "oauth", "profile": {
        "link": { "flow": "device_code", "client_id": "pixy", "authorize_url": at("/authorize"), "device": {
            "url": at("/usercode"), "verification_url": at("/activate"),
            "code_url": at("/code"), "code_redirect": at("/callback"),
        } },
        "token": { "url": at("/token") },
        "api": { "base_url": old.url(), "allow": ["GET /v1/models"] },
    } });
    let mut pixy = Pixy::start(&json!({ "a": account })).await;
    let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let mut changed = account.clone();
    for pointer in ["/link/device/code_url", "/link/device/code_redirect", "/token/url"] {
        changed = moved(&changed, &format!("/profile{pointer}"), &new.url());
    }
    pixy.reload(&json!({ "a": changed }), &json!({})).await.unwrap();
    is_approved.store(true, Ordering::SeqCst);
    let attempt = within(async {
        loop {
            let attempt = pixy.shown("a").await["attempt"].take();
            if !matches!(attempt["stage"].as_str(), Some("waiting" | "exchanging")) {
                return attempt;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!((new.connections(), &attempt["stage"]), (0, &json!("to_confirm")), "{attempt:#}");
    let exchange = old.requests().into_iter().find(|seen| seen.path() == "/token").unwrap();
    let sent: Vec<_> = url::form_urlencoded::parse(&exchange.body).into_owned().collect();
    assert!(sent.contains(&("redirect_uri".to_owned(), at("/callback"))), "{sent:?}");
    pixy.post(&format!("/api/attempts/{}/confirm", begun["attempt"].as_str().unwrap()), Value::Null).await;
    assert_eq!(pixy.shown("a").await["error"]["reason"], "moved");
    provoke(&pixy).await;
    assert_eq!(new.connections(), 0);
}

/// An account that is removed, and added again under the same name with another URL.
#[tokio::test]
async fn attack_85_a_login_outlives_its_account_but_does_not_follow_its_name() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    pixy.reload(&json!({}), &json!({})).await.unwrap();
    let changed = json!({ "a": moved(&accounts["a"], "/profile/api/base_url", &new.url()) });
    pixy.reload(&changed, &json!({})).await.unwrap();
    until_reason(&pixy, &json!("moved")).await;
    provoke(&pixy).await;
    assert_eq!(new.connections(), 0);
}
