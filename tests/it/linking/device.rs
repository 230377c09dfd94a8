//! The device flow (RFC 8628), and the variant that issues an authorization code.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::problem;
use crate::support::{Pixy, Reply, Seen, Upstream, within};

/// A device endpoint and its token endpoint, which gives these answers in order and repeats the last.
async fn provider(begun: Value, answers: Vec<(u16, Value)>) -> Upstream {
    let answers = Mutex::new(std::collections::VecDeque::from(answers));
    Upstream::answering(move |seen| match seen.path() {
        "/device" | "/usercode" => Reply::json(200, &begun),
        "/token" | "/code" => {
            let mut answers = answers.lock().unwrap();
            let (status, answer) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
            Reply::json(status, &answer)
        }
        "/exchange" => Reply::json(200, &json!({ "access_token": "at", "refresh_token": "rt", "expires_in": 3600 })),
        "/revoke" => Reply::new(200),
        _ => Reply::new(404),
    })
    .await
}

fn begun() -> Value {
    json!({
        "device_code": "marked-device-code", "user_code": "WDJB-MJHT", "expires_in": 600, "interval": 1,
        "verification_uri": "http://127.0.0.1:9/activate",
        "verification_uri_complete": "http://127.0.0.1:9/activate?user_code=WDJB-MJHT",
    })
}

fn account(provider: &Upstream, flow: &str) -> Value {
    json!({ "provider": "oauth", "profile": {
        "link": {
            "flow": flow, "client_id": "pixy", "scopes": ["llm.invoke"], "required_scopes": ["llm.invoke"],
            "authorize_url": format!("{}/authorize", provider.url()),
            "authorize_params": { "audience": "llm", "odd": "{redirect_uri}" },
            "device": { "url": format!("{}/device", provider.url()) },
        },
        "token": { "url": format!("{}/token", provider.url()) },
        "revoke": { "url": format!("{}/revoke", provider.url()) },
        "identity": [["token", "login"]],
        "api": { "base_url": provider.url(), "allow": ["GET /v1/models"] },
    } })
}

fn polls(provider: &Upstream) -> Vec<Seen> {
    provider.requests().into_iter().filter(|seen| matches!(seen.path(), "/token" | "/code")).collect()
}

async fn until_stage(pixy: &Pixy, stage: &str) -> Value {
    for _ in 0..800 {
        let attempt = pixy.shown("a").await["attempt"].take();
        if attempt["stage"] == stage {
            return attempt;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never {stage}: {:#}", pixy.shown("a").await["attempt"]);
}

#[tokio::test]
async fn a_device_code_links_without_pasting() {
    let pending = json!({ "error": "authorization_pending" });
    let tokens = json!({ "access_token": "marked-access", "refresh_token": "rt", "expires_in": 3600, "login": "ada" });
    let provider = provider(begun(), vec![(400, pending.clone()), (400, pending), (200, tokens)]).await;
    let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
    let answer = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let id = answer["attempt"].as_str().unwrap().to_owned();
    assert_eq!((&answer["flow"], &answer["redirect"]), (&json!("device_code"), &json!("device")));
    assert_eq!((&answer["authorize_url"], &answer["user_code"]), (&Value::Null, &json!("WDJB-MJHT")));
    assert_eq!(answer["verification_url"], "http://127.0.0.1:9/activate");
    assert_eq!(answer["verification_url_complete"], "http://127.0.0.1:9/activate?user_code=WDJB-MJHT");
    assert_eq!(answer["scopes"], json!(["llm.invoke"]));
    assert!(!answer.to_string().contains("marked-device-code"), "the device code is not shown");
    let asked: BTreeMap<_, _> = url::form_urlencoded::parse(&provider.requests()[0].body).into_owned().collect();
    let expected = [("client_id", "pixy"), ("scope", "llm.invoke"), ("audience", "llm")];
    assert_eq!(asked, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());

    let waiting = pixy.shown("a").await["attempt"].clone();
    assert_eq!((&waiting["stage"], &waiting["user_code"]), (&json!("waiting"), &json!("WDJB-MJHT")));
    let (status, refused) =
        pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": "x#y" })).await;
    assert_eq!((status, problem(&refused)), (409, "nothing_to_paste"));

    let shown = until_stage(&pixy, "to_confirm").await;
    assert_eq!((&shown["identity"], &shown["exchanged"]), (&json!(["ada"]), &json!(true)));
    assert_eq!(polls(&provider).len(), 3);
    assert_eq!(
        String::from_utf8(polls(&provider)[0].body.clone()).unwrap(),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=marked-device-code&client_id=pixy"
    );
    assert_eq!(pixy.shown("a").await["state"], "unlinked", "nothing is stored before the person has confirmed");
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    assert_eq!(pixy.shown("a").await["state"], "linked");
}

#[tokio::test]
async fn slow_down_is_obeyed() {
    let tokens = json!({ "access_token": "at", "expires_in": 3600 });
    let provider = provider(begun(), vec![(400, json!({ "error": "slow_down" })), (200, tokens)]).await;
    let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
    let started = Instant::now();
    pixy.post("/api/accounts/a/attempts", Value::Null).await;
    until_stage(&pixy, "to_confirm").await;
    assert!(
        started.elapsed() >= Duration::from_secs(1 + 6),
        "one second, and five more after `slow_down` (RFC 8628 §3.5)"
    );
    assert_eq!(polls(&provider).len(), 2);
}

#[tokio::test]
async fn a_failed_device_attempt_stays_to_be_read() {
    for (status, answer, kind) in [
        (400, json!({ "error": "access_denied" }), "consent_denied"),
        (400, json!({ "error": "expired_token" }), "device_code_expired"),
        (400, json!({ "error": "invalid_grant" }), "code_refused"),
        (401, json!({ "error": "invalid_client" }), "provider_answer"),
        (200, json!({ "token_type": "Bearer" }), "provider_answer"),
        (200, json!({ "access_token": "at", "refresh_token": "rt", "scope": "other" }), "scope_missing"),
    ] {
        let provider = provider(begun(), vec![(status, answer.clone())]).await;
        let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
        let id = pixy.post("/api/accounts/a/attempts", Value::Null).await["attempt"].as_str().unwrap().to_owned();
        let shown = until_stage(&pixy, "failed").await;
        assert_eq!(shown["attempt"], id, "the attempt stays visible");
        assert_eq!(problem(&shown["error"]), kind, "{answer}");
        assert!(
            shown["error"]["title"].as_str().unwrap().len() > 10 && shown["error"]["detail"].is_string(),
            "{shown:#}"
        );
        let lacking = if kind == "scope_missing" { json!(["llm.invoke"]) } else { json!([]) };
        assert_eq!(shown["missing_scopes"], lacking);
        let (status, over) = pixy.api(Method::POST, &format!("/api/attempts/{id}/confirm"), Value::Null).await;
        assert_eq!((status, problem(&over)), (410, "attempt_over"));
        assert_eq!(polls(&provider).len(), 1, "polling has stopped");
        pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
        assert_eq!(pixy.shown("a").await["attempt"], Value::Null);
        if kind == "scope_missing" {
            provider.until_requests(3).await;
            assert_eq!(provider.requests()[2].path(), "/revoke", "a login without the required scope is revoked");
        }
    }
}

#[tokio::test]
async fn polling_ends_with_the_code_or_the_attempt() {
    let mut short = begun();
    short["expires_in"] = json!(3);
    let provider = provider(short, vec![(400, json!({ "error": "authorization_pending" }))]).await;
    let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
    pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let shown = until_stage(&pixy, "failed").await;
    assert_eq!(problem(&shown["error"]), "device_code_expired");
    let asked = polls(&provider).len();
    assert!((1..=3).contains(&asked), "{asked}");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(polls(&provider).len(), asked, "no poll after the codes expired");

    let id = pixy.post("/api/accounts/a/attempts", Value::Null).await["attempt"].as_str().unwrap().to_owned();
    pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(polls(&provider).len(), asked, "no poll for a cancelled attempt");
}

#[tokio::test]
async fn attack_63_a_replaced_attempt_stops_polling() {
    // Consent is given to the first attempt while the second one is open.
    let pending = Arc::new(Mutex::new(true));
    let waits = Arc::clone(&pending);
    let provider = Upstream::answering(move |seen| match seen.path() {
        "/device" => Reply::json(200, &begun()),
        "/token" if *waits.lock().unwrap() => Reply::json(400, &json!({ "error": "authorization_pending" })),
        "/token" => Reply::json(200, &json!({ "access_token": "at", "refresh_token": "rt" })),
        _ => Reply::new(200),
    })
    .await;
    let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
    let first = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    let second = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    *pending.lock().unwrap() = false;
    let shown = until_stage(&pixy, "to_confirm").await;
    assert_eq!(shown["attempt"], second["attempt"]);
    let first = first["attempt"].as_str().unwrap();
    let (status, _) = pixy.api(Method::POST, &format!("/api/attempts/{first}/confirm"), Value::Null).await;
    assert_eq!(status, 410);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(polls(&provider).len(), 1, "the first attempt is not polled");
}

#[tokio::test]
async fn tokens_for_an_account_that_was_removed_meanwhile_are_revoked() {
    let (held, gate) =
        Reply::json(200, &json!({ "access_token": "at", "refresh_token": "rt", "scope": "llm.invoke" })).gated();
    let mut held = Some(held);
    let provider = Upstream::answering(move |seen| match seen.path() {
        "/device" => Reply::json(200, &begun()),
        "/token" => held.take().unwrap_or_else(|| Reply::new(400)),
        _ => Reply::new(200),
    })
    .await;
    let accounts = json!({ "a": account(&provider, "device_code") });
    let mut pixy = Pixy::start(&accounts).await;
    pixy.post("/api/accounts/a/attempts", Value::Null).await;
    within(provider.until_requests(2)).await; // the poll
    pixy.reload(&json!({}), &json!({})).await.unwrap();
    gate.open();
    let seen = within(provider.until_requests(3)).await;
    assert_eq!(seen[2].path(), "/revoke");
    assert!(String::from_utf8_lossy(&seen[2].body).contains("token=rt"));
    pixy.reload(&accounts, &json!({})).await.unwrap();
    assert_eq!(problem(&until_stage(&pixy, "failed").await["error"]), "no_account");
}

#[tokio::test]
async fn a_known_flow_may_be_requested() {
    let provider = provider(begun(), vec![(400, json!({ "error": "authorization_pending" }))]).await;
    let pixy = Pixy::start(&json!({ "a": account(&provider, "authorization_code") })).await;
    let usual = pixy.post("/api/accounts/a/attempts", json!({})).await;
    assert_eq!((&usual["flow"], &usual["redirect"]), (&json!("authorization_code"), &json!("loopback")));
    assert_eq!((&usual["user_code"], &usual["verification_url"]), (&Value::Null, &Value::Null));
    let device = pixy.post("/api/accounts/a/attempts", json!({ "flow": "device_code" })).await;
    assert_eq!((&device["flow"], &device["redirect"]), (&json!("device_code"), &json!("device")));
    let code = pixy.post("/api/accounts/a/attempts", json!({ "flow": "authorization_code" })).await;
    assert!(code["authorize_url"].is_string());
    for flow in ["implicit", "password", ""] {
        let (status, answer) = pixy.api(Method::POST, "/api/accounts/a/attempts", json!({ "flow": flow })).await;
        assert_eq!((status, problem(&answer)), (400, "bad_request"), "{flow}");
    }
    let (status, answer) = pixy.api(Method::POST, "/api/accounts/a/attempts", json!({ "flow": "api_key" })).await;
    assert_eq!((status, problem(&answer)), (409, "other_flow"));
    assert_eq!(pixy.shown("a").await["attempt"]["attempt"], code["attempt"], "a rejected request ends no attempt");
}

#[tokio::test]
async fn an_unusable_device_endpoint_is_reported() {
    for begun in
        [json!({ "error": "invalid_client" }), json!({}), json!("x"), json!({ "device_code": "d", "user_code": "u" })]
    {
        let provider = provider(begun.clone(), vec![(400, json!({}))]).await;
        let pixy = Pixy::start(&json!({ "a": account(&provider, "device_code") })).await;
        let (status, answer) = pixy.api(Method::POST, "/api/accounts/a/attempts", Value::Null).await;
        assert_eq!((status, problem(&answer)), (502, "no_device_code"), "{begun}");
        assert_eq!(pixy.shown("a").await["attempt"], Value::Null);
    }
}

#[tokio::test]
async fn codexs_device_flow_matches_its_own_client() {
    let begun = json!({ "device_auth_id": "marked-auth-id", "user_code": "ABCD-12345", "interval": "1" });
    let handed = json!({
        "authorization_code": "marked-code", "code_verifier": "marked-verifier-of-the-server", "code_challenge": "c",
    });
    let provider = provider(begun, vec![(404, json!({})), (403, json!({ "error": "pending" })), (200, handed)]).await;
    let at = |path: &str| format!("{}{path}", provider.url());
    let account = json!({ "provider": "codex", "accept_terms": true, "profile": {
        "link": { "flow": "device_code", "device": { "url": at("/usercode"), "code_url": at("/code") } },
        "token": { "url": at("/exchange"), "expiry": "expires_in" },
        "revoke": { "url": at("/revoke") },
        "api": { "base_url": provider.url() },
    } });
    let pixy = Pixy::start(&json!({ "a": account })).await;
    let answer = pixy.post("/api/accounts/a/attempts", Value::Null).await;
    assert_eq!(answer["user_code"], "ABCD-12345");
    assert_eq!(answer["verification_url"], "https://auth.openai.com/codex/device");
    assert_eq!(answer["verification_url_complete"], Value::Null);
    let requests = provider.requests();
    assert_eq!(requests[0].json(), json!({ "client_id": "app_EMoamEEZ73f0CkXaXp7hrann" }));
    assert_eq!(requests[0].header("content-type"), ["application/json"]);
    until_stage(&pixy, "to_confirm").await;
    assert_eq!(polls(&provider).len(), 3);
    assert_eq!(polls(&provider)[0].json(), json!({ "device_auth_id": "marked-auth-id", "user_code": "ABCD-12345" }));
    let exchange = provider.requests().into_iter().find(|seen| seen.path() == "/exchange").unwrap();
    let sent: BTreeMap<_, _> = url::form_urlencoded::parse(&exchange.body).into_owned().collect();
    let expected = [
        ("grant_type", "authorization_code"),
        ("code", "marked-code"),
        ("redirect_uri", "https://auth.openai.com/deviceauth/callback"),
        ("code_verifier", "marked-verifier-of-the-server"),
        ("client_id", "app_EMoamEEZ73f0CkXaXp7hrann"),
    ];
    assert_eq!(sent, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}
