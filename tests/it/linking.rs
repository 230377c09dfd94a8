//! Linking an account, and attacks on it.

mod continuity; // refreshes that name another person
mod device; // device codes
mod issued; // client ids that the provider issues
mod loopback; // redirects to Pixy
mod proof; // id_tokens, issuers and the mix-up
mod revocation; // revocation at the provider
mod shipped; // the flow of each shipped profile

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Consent, Fault, Pixy, RawClient, Reply, TokenEndpoint, Upstream, oauth_account};

async fn unlinked() -> (Pixy, TokenEndpoint, Upstream) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream), "b": oauth_account(&endpoint, &upstream) });
    (Pixy::start(&accounts).await, endpoint, upstream)
}

async fn begin(pixy: &Pixy, endpoint: &TokenEndpoint, account: &str) -> (String, Consent) {
    let begun = pixy.post(&format!("/api/accounts/{account}/attempts"), Value::Null).await;
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    (begun["attempt"].as_str().unwrap().to_owned(), consent)
}

async fn paste(pixy: &Pixy, id: &str, text: &str) -> (u16, Value) {
    pixy.api(Method::POST, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await
}

fn problem(answer: &Value) -> &str {
    answer["type"].as_str().unwrap().strip_prefix("urn:pixy:problem:").unwrap()
}

#[tokio::test]
async fn a_link_is_begun_pasted_shown_and_confirmed() {
    let (pixy, endpoint, upstream) = unlinked().await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    let (status, shown) = paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
    assert_eq!(status, 200, "{shown:#}");
    assert_eq!(shown["replaces"], Value::Null);
    assert_eq!(pixy.shown("a").await["state"], "unlinked", "nothing is stored before the person has confirmed");
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    assert_eq!(pixy.shown("a").await["state"], "linked");
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    let call = &endpoint.calls()[0];
    let mut sent: Vec<_> = call.fields.keys().map(String::as_str).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["client_id", "code", "code_verifier", "grant_type", "redirect_uri"]);
    assert!(endpoint.lets_in(upstream.requests()[0].header("authorization")[0].strip_prefix("Bearer ").unwrap()));
    let pixy = pixy.restart().await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "still linked");
}

#[tokio::test]
async fn a_login_that_could_not_be_stored_is_confirmed_again() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
    let (vault, moved) = (pixy.scratch.path("vault"), pixy.scratch.path("moved"));
    std::fs::rename(&vault, &moved).unwrap();
    let confirm = format!("/api/attempts/{id}/confirm");
    let (status, answer) = pixy.api(Method::POST, &confirm, Value::Null).await;
    assert_eq!((status, problem(&answer)), (500, "not_stored"), "{answer:#}");
    assert!(answer["detail"].as_str().unwrap().contains("you can confirm again"), "{answer:#}");
    std::fs::rename(&moved, &vault).unwrap();
    pixy.post(&confirm, Value::Null).await;
    assert_eq!(pixy.shown("a").await["state"], "linked");
    assert!(endpoint.revoked().is_empty(), "the login was kept");
}

#[tokio::test]
async fn attack_58_to_62_a_wrong_paste_is_harmless_a_code_works_once() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    let (other, others) = begin(&pixy, &endpoint, "b").await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    let right = format!("{}#{}", consent.code, consent.state);
    for (text, expected) in [
        ("rubbish and more".to_owned(), "paste_not_a_code"),
        (String::new(), "paste_empty"),
        (format!("{}#{}", others.code, others.state), "paste_other_attempt"),
        (format!("{}#{}x", consent.code, consent.state), "paste_other_attempt"),
        (format!("https://evil.example/paste?code={}&state={}", consent.code, consent.state), "paste_foreign_host"),
        ("<script>alert(1)</script>".to_owned(), "paste_not_a_code"),
        ("x".repeat(60_000), "paste_not_a_code"),
    ] {
        let (status, answer) = paste(&pixy, &id, &text).await;
        assert_eq!((status, problem(&answer)), (422, expected), "{text:.40}");
        assert!(!answer.to_string().contains(&consent.code), "a problem does not repeat what was pasted");
    }
    assert!(endpoint.calls().is_empty(), "no code was sent anywhere");
    assert_eq!(paste(&pixy, &id, &right).await.0, 200, "the attempt is still open after the wrong pastes");
    let (status, answer) = paste(&pixy, &id, &right).await;
    assert_eq!((status, problem(&answer)), (409, "code_used"));
    pixy.post(&format!("/api/attempts/{id}/confirm"), Value::Null).await;
    let (status, answer) = paste(&pixy, &id, &right).await;
    assert_eq!((status, problem(&answer)), (410, "attempt_over"));
    let (status, answer) = paste(&pixy, &other, &right).await;
    assert_eq!((status, problem(&answer)), (422, "paste_other_attempt"));
    assert_eq!(endpoint.calls().len(), 1, "one token call");
}

#[tokio::test]
async fn attack_60_an_injected_code_fails_at_the_provider() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    let (_, injected) = begin(&pixy, &endpoint, "b").await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    // The attacker's code with the victim's state: the code verifier does not match.
    let (status, answer) = paste(&pixy, &id, &format!("{}#{}", injected.code, consent.state)).await;
    assert_eq!((status, problem(&answer)), (422, "code_refused"));
    assert!(answer["title"].as_str().unwrap().contains("rejected the code"), "{answer:#}");
    let (status, answer) = paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
    assert_eq!((status, problem(&answer)), (410, "attempt_over"), "the code is used, so the attempt has ended");
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
}

#[tokio::test]
async fn a_failing_token_endpoint_is_reported() {
    for (fault, kind) in [(Fault::HtmlOk, "provider_answer"), (Fault::ResetAfterSpending, "provider_down")] {
        let (pixy, endpoint, _upstream) = unlinked().await;
        endpoint.fail_always(Some(fault));
        let (id, consent) = begin(&pixy, &endpoint, "a").await;
        let (_, answer) = paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
        assert_eq!(problem(&answer), kind, "{answer:#}");
        assert_eq!(endpoint.calls().len(), 1, "a code is sent once in any case (RFC 6749 §4.1.2)");
        assert_eq!(pixy.shown("a").await["state"], "unlinked");
    }
    let (pixy, endpoint, _upstream) = unlinked().await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    drop(endpoint);
    let (status, answer) = paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
    assert_eq!((status, problem(&answer)), (502, "provider_down"));
}

#[tokio::test]
async fn attack_63_and_64_a_newer_attempt_replaces_the_older_one() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    pixy.link(&endpoint).await;
    let (first, first_consent) = begin(&pixy, &endpoint, "a").await;
    let (second, second_consent) = begin(&pixy, &endpoint, "a").await;
    let (status, answer) = paste(&pixy, &first, &format!("{}#{}", first_consent.code, first_consent.state)).await;
    assert_eq!((status, problem(&answer)), (410, "attempt_over"));
    let (_, shown) = paste(&pixy, &second, &format!("{}#{}", second_consent.code, second_consent.state)).await;
    assert!(shown["replaces"].is_array(), "{shown:#}");
    assert!(endpoint.revoked().is_empty(), "the old login is valid until the new one is stored");
    pixy.post(&format!("/api/attempts/{second}/confirm"), Value::Null).await;
    assert_eq!(endpoint.revoked().len(), 1, "then the old one is revoked");
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn attack_56_an_unconfirmed_login_is_revoked() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    let (id, consent) = begin(&pixy, &endpoint, "a").await;
    paste(&pixy, &id, &format!("{}#{}", consent.code, consent.state)).await;
    let (status, _) = pixy.api(Method::DELETE, &format!("/api/attempts/{id}"), Value::Null).await;
    assert_eq!(status, 200);
    endpoint.until_requests(2).await;
    assert_eq!(endpoint.revoked().len(), 1);
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
}

#[tokio::test]
async fn unlinking_revokes_and_deletes() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    pixy.link(&endpoint).await;
    let (status, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "revoked": true })));
    assert_eq!(endpoint.revoked().len(), 1);
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    let pixy = pixy.restart().await;
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
}

#[tokio::test]
async fn a_login_that_could_not_be_removed_stays_unusable() {
    let upstream = Upstream::start().await;
    let key = json!({ "provider": "anthropic", "profile": { "api": { "base_url": upstream.url() } } });
    let pixy = Pixy::start(&json!({ "a": key })).await;
    pixy.post("/api/accounts/a/key", json!({ "key": "sk-static" })).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    let (vault, moved) = (pixy.scratch.path("vault"), pixy.scratch.path("moved"));
    std::fs::rename(&vault, &moved).unwrap();
    let (status, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!((status, problem(&answer)), (500, "not_removed"), "{answer:#}");
    std::fs::rename(&moved, &vault).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await; // more than the pause after which a failed write is repeated
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    assert_eq!(pixy.shown("a").await["state"], "unlinked");
    pixy.post("/api/accounts/a/key", json!({ "key": "sk-other" })).await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "it can be linked again");
}

#[tokio::test]
async fn unlinking_a_record_that_does_not_open_revokes_nothing() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    pixy.link(&endpoint).await;
    let records = std::fs::read_dir(pixy.scratch.path("vault")).unwrap().map(|entry| entry.unwrap().path());
    let record = records.filter(|path| path.extension().is_some_and(|extension| extension == "record"));
    for path in record {
        std::fs::write(&path, "damaged").unwrap();
    }
    let pixy = pixy.crash().await;
    assert_eq!(pixy.shown("a").await["state"], "relink_required");
    let (status, answer) = pixy.api(Method::DELETE, "/api/accounts/a", Value::Null).await;
    assert_eq!((status, answer), (200, json!({ "revoked": false })), "the provider was not asked");
}

#[tokio::test]
async fn terms_that_are_not_open_must_be_accepted() {
    let pixy = Pixy::start(&json!({ "claude": { "provider": "claude" } })).await;
    assert_eq!(pixy.shown("claude").await["state"], "needs_terms");
    let (status, answer) = pixy.api(Method::POST, "/api/accounts/claude/attempts", Value::Null).await;
    assert_eq!((status, problem(&answer)), (403, "terms_not_accepted"));
    let (title, detail) = (answer["title"].as_str().unwrap(), answer["detail"].as_str().unwrap());
    assert!(title.contains("Anthropic does not permit") && title.contains("https://www.anthropic.com/"), "{title}");
    assert!(detail.contains("accept_terms: true"), "{detail}");
    let accepted = Pixy::start(&json!({ "claude": { "provider": "claude", "accept_terms": true } })).await;
    let begun = accepted.post("/api/accounts/claude/attempts", Value::Null).await;
    let url = begun["authorize_url"].as_str().unwrap();
    assert!(url.starts_with("https://claude.ai/oauth/authorize?") && url.contains("code=true"), "{url}");
}

#[tokio::test]
async fn keys_and_client_secrets_link() {
    let upstream = Upstream::start().await;
    let endpoint = TokenEndpoint::start().await;
    let key = json!({ "provider": "anthropic", "profile": { "api": { "base_url": upstream.url() } } });
    let mut client = oauth_account(&endpoint, &upstream);
    client["profile"]["link"] =
        json!({ "flow": "client_credentials", "client_id": "machine", "scopes": ["llm.invoke"] });
    let pixy = Pixy::start(&json!({ "k": key, "c": client })).await;
    pixy.post("/api/accounts/k/key", json!({ "key": "  sk-static \n" })).await;
    assert_eq!(pixy.get("/k/v1/models").await.status, 200);
    assert_eq!(upstream.requests()[0].header("x-api-key"), ["sk-static"]);
    assert!(upstream.requests()[0].header("authorization").is_empty());
    let (status, _) = pixy.api(Method::POST, "/api/accounts/k/key", json!({ "key": "two words" })).await;
    assert_eq!(status, 400);
    let (_, answer) = pixy.api(Method::POST, "/api/accounts/k/attempts", Value::Null).await;
    assert_eq!(problem(&answer), "other_flow");
    let reply = json!({ "access_token": "machine-token", "token_type": "Bearer", "expires_in": 3600 });
    let token_server = Upstream::answering(move |_| Reply::json(200, &reply)).await;
    let mut machine = oauth_account(&endpoint, &upstream);
    machine["profile"]["link"] =
        json!({ "flow": "client_credentials", "client_id": "machine", "scopes": ["llm.invoke"] });
    machine["profile"]["token"]["url"] = json!(token_server.url());
    let pixy = Pixy::start(&json!({ "m": machine })).await;
    pixy.post("/api/accounts/m/key", json!({ "key": "the-secret" })).await;
    assert_eq!(pixy.get("/m/v1/models").await.status, 200);
    let sent = String::from_utf8(token_server.requests()[0].body.clone()).unwrap();
    assert_eq!(sent, "grant_type=client_credentials&client_secret=the-secret&scope=llm.invoke&client_id=machine");
}

#[tokio::test]
async fn openrouters_exchange_matches_its_documentation() {
    let upstream = Upstream::start().await;
    let keys = Upstream::answering(|_| Reply::json(200, &json!({ "key": "sk-or-1", "user_id": "user_7" }))).await;
    let account = json!({ "provider": "openrouter", "profile": {
        "token": { "url": keys.url() }, "api": { "base_url": upstream.url() },
    } });
    let pixy = Pixy::start(&json!({ "o": account })).await;
    let begun = pixy.post("/api/accounts/o/attempts", Value::Null).await;
    let url = url::Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
    let given: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    let mut asked: Vec<_> = given.keys().map(String::as_str).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["callback_url", "code_challenge", "code_challenge_method"]);
    let callback = format!("{}&code=or-code", given["callback_url"]);
    let path = url::Url::parse(&callback).unwrap();
    let request = format!(
        "GET {}?{} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n",
        path.path(),
        path.query().unwrap(),
        pixy.page().port()
    );
    assert_eq!(RawClient::once(pixy.page(), request).await.unwrap().status, 200, "the redirect arrives");
    let sent = keys.requests()[0].json();
    let mut members: Vec<_> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "code_challenge_method", "code_verifier"]);
    let attempt = pixy.shown("o").await["attempt"].clone();
    assert_eq!((&attempt["exchanged"], &attempt["identity"]), (&json!(true), &json!(["user_7"])));
    pixy.post(&format!("/api/attempts/{}/confirm", attempt["attempt"].as_str().unwrap()), Value::Null).await;
    assert_eq!(pixy.get("/o/v1/models").await.status, 200);
    assert_eq!(upstream.requests()[0].header("authorization"), ["Bearer sk-or-1"]);
}

#[tokio::test]
async fn attack_01_to_03_the_link_port_needs_a_secret() {
    let (pixy, endpoint, _upstream) = unlinked().await;
    pixy.link(&endpoint).await;
    let ask = async |method: &str, path: &str, fields: &str, body: &str| {
        let port = pixy.page().port();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        RawClient::once(pixy.page(), request).await.unwrap()
    };
    let calls = [
        ("GET", "/api/accounts"),
        ("GET", "/api/events"),
        ("GET", "/api/accounts/a/env"),
        ("POST", "/api/accounts/a/attempts"),
        ("POST", "/api/attempts/x/paste"),
        ("POST", "/api/attempts/x/confirm"),
        ("DELETE", "/api/attempts/x"),
        ("POST", "/api/accounts/a/key"),
        ("POST", "/api/accounts/a/refresh"),
        ("DELETE", "/api/accounts/a"),
        ("POST", "/api/setup"),
        ("GET", "/api/no-such-call"),
    ];
    let mut answers = std::collections::HashSet::new();
    for (method, path) in calls {
        let response = ask(method, path, "", "{}").await;
        assert_eq!(response.status, 401, "{method} {path}");
        answers.insert(response.text());
    }
    assert_eq!(answers.len(), 1, "known and unknown paths get the same answer");
    assert_eq!(pixy.get("/api/accounts").await.status, 404, "the agent listener serves none of it");

    let url = pixy.post("/api/setup", Value::Null).await["url"].as_str().unwrap().to_owned();
    let code = url.split_once('#').unwrap().1;
    let opened = ask("POST", "/api/session", "", &json!({ "setup_code": code }).to_string()).await;
    let session = format!("Authorization: Bearer {}\r\n", opened.json()["session"].as_str().unwrap());
    assert_eq!(ask("GET", "/api/accounts", &session, "").await.json()[0]["state"], "linked");
    assert_eq!(
        ask("POST", "/api/setup", &session, "").await.status,
        404,
        "setup codes are for the control socket alone"
    );
    let evil = format!("{session}Origin: https://evil.example\r\n");
    assert_eq!(ask("DELETE", "/api/accounts/a", &evil, "").await.status, 403);
    assert_eq!(pixy.shown("a").await["state"], "linked");
}

#[tokio::test]
async fn attack_04_a_link_port_in_use_is_an_error() {
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let scratch = crate::support::Scratch::new();
    let taken = json!({ "link": { "listen": squatter.local_addr().unwrap().to_string() } });
    let config = scratch.config_with(&json!({}), &taken);
    let text = std::fs::read_to_string(&config).unwrap();
    let config = pixy::config::parse(&text, Some(config), &pixy::config::Env::default()).unwrap();
    let Err(error) = pixy::app::start(config).await else { panic!("it started") };
    let error = error.to_string();
    assert!(error.contains("in use by another program") && error.contains("could impersonate Pixy"), "{error}");
}
