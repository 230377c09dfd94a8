//! Key rotation, export, import and rollback while Pixy runs.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Fault, Pixy, TokenEndpoint, Upstream, oauth_account, within};

#[tokio::test]
async fn a_key_rotation_keeps_logins_usable() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let before = std::fs::read(pixy.scratch.path("key")).unwrap();
    let report = pixy.post("/api/vault/rotate", Value::Null).await;
    assert_eq!((&report["new_key"], &report["resealed"]), (&json!(true), &json!(1)));
    assert_ne!(std::fs::read(pixy.scratch.path("key")).unwrap(), before);
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    let pixy = pixy.restart().await;
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "the new key opens what it sealed");
}

#[tokio::test]
async fn a_login_is_exported_and_imported() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let old = Pixy::linked(&endpoint, &upstream).await;
    let passphrase = "correct horse battery";
    let sealed = old.post("/api/vault/export", json!({ "passphrase": passphrase })).await["sealed"].clone();
    assert!(!sealed.to_string().contains("marked-"));
    let new = Pixy::start(&json!({ "a": oauth_account(&endpoint, &upstream) })).await;
    let import =
        |passphrase: &str, replace: bool| json!({ "sealed": sealed, "passphrase": passphrase, "replace": replace });
    let (status, problem) = new.api(Method::POST, "/api/vault/import", import("another one", false)).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:pixy:problem:wrong_passphrase")));
    assert_eq!(new.get("/a/v1/models").await.status, 401);
    assert_eq!(new.post("/api/vault/import", import(passphrase, false)).await, json!(["a"]));
    assert_eq!(new.get("/a/v1/models").await.status, 200, "it is used at once");
    let (status, problem) = new.api(Method::POST, "/api/vault/import", import(passphrase, false)).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:pixy:problem:already_linked")), "{problem:#}");
    assert_eq!(new.restart().await.get("/a/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_second_pixy_on_the_same_files_refuses_to_start() {
    let pixy = Pixy::start(&json!({})).await;
    let config = pixy.scratch.path("pixy.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let config = pixy::config::parse(&text, Some(config), &pixy::config::Env::default()).unwrap();
    let Err(error) = pixy::app::start(config).await else { panic!("both run") };
    assert!(error.to_string().contains("Another Pixy is using"), "{error}");
}

#[tokio::test]
async fn a_login_imported_during_a_refresh_is_used() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let passphrase = "correct horse battery";
    let other = Pixy::linked(&endpoint, &upstream).await;
    endpoint.fail_next(Fault::UnavailableSeconds); // a failed refresh raises the generation above the other Pixy's
    other.post("/api/accounts/a/refresh", Value::Null).await;
    within(endpoint.until_requests(2)).await;
    within(async {
        while other.shown("a").await["error"].is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let other = other.restart().await; // resets the 30 s between two forced refreshes
    other.post("/api/accounts/a/refresh", Value::Null).await;
    within(endpoint.until_requests(3)).await;
    within(async {
        while other.shown("a").await["state"] != "linked" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let sealed = other.post("/api/vault/export", json!({ "passphrase": passphrase })).await["sealed"].clone();

    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let gate = endpoint.hold_next();
    let requests = endpoint.requests().len();
    pixy.post("/api/accounts/a/refresh", Value::Null).await;
    endpoint.until_requests(requests + 1).await;
    let import = pixy.post("/api/vault/import", json!({ "sealed": sealed, "passphrase": passphrase, "replace": true }));
    let open = async {
        tokio::time::sleep(Duration::from_millis(200)).await; // until the import is stored; it then waits for the refresh
        gate.open();
    };
    within(async { tokio::join!(import, open) }).await;
    assert_eq!(pixy.shown("a").await["state"], "linked");
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    let seen = upstream.requests().last().unwrap().header("authorization")[0].to_owned();
    assert!(seen.starts_with("Bearer marked-access-0-"), "the imported login is of the first grant: {seen}");
}

#[tokio::test]
async fn attack_77_an_older_copy_is_used_only_after_confirmation() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let record = pixy.scratch.path("vault").join("a.record");
    let copy = std::fs::read(&record).unwrap();
    pixy.link(&endpoint).await; // a newer login
    let calls = endpoint.calls().len();
    std::fs::write(&record, &copy).unwrap();
    let pixy = pixy.restart().await;
    let shown = pixy.shown("a").await;
    assert_eq!(shown["state"], "relink_required");
    assert!(shown["error"].to_string().contains("pixy link NAME --older-copy"), "{shown:#}");
    assert_eq!(pixy.get("/a/v1/models").await.status, 401);
    assert_eq!(endpoint.calls().len(), calls, "no token is sent before a person confirms");
    assert_eq!(pixy.post("/api/accounts/a/older-copy", Value::Null).await["state"], "linked");
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
    assert_eq!(pixy.restart().await.shown("a").await["state"], "linked");
}
