//! Reload: requests in progress continue, new requests use the new configuration.

mod removed;
mod limits;
mod listeners;
mod terminal;

use std::os::unix::fs::symlink;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{
    Pixy, Program, RawClient, Reply, Rotation, Scratch, TokenEndpoint, Upstream, oauth_account, within,
};

/// SHA-256 of `secret-key`.
const DIGEST: &str = "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa";

fn keys(keys: &Value) -> Value {
    json!({ "agent": { "listen": "127.0.0.1:0", "keys": keys } })
}

fn get(fields: &str) -> String {
    format!("GET /a/v1/models HTTP/1.1\r\nHost: 127.0.0.1:8700\r\n{fields}Connection: close\r\n\r\n")
}

async fn metrics(pixy: &Pixy) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n";
    RawClient::once(pixy.ops(), request).await.unwrap().text()
}

#[tokio::test]
async fn an_open_stream_survives_a_reload() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let coder = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"] }]);
    let mut pixy = Pixy::with(&accounts, &keys(&coder)).await;
    pixy.link(&endpoint).await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply.header("content-type", "text/event-stream"));
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(get("X-Api-Key: secret-key\r\n")).await;
    assert_eq!(agent.head().await.unwrap().status, 200);
    chunks.send("data: first\n\n");
    // The reload removes its key and its account.
    let other = json!([{ "name": "other", "sha256": DIGEST.replace("85", "86"), "accounts": ["b"] }]);
    let accounts = json!({ "b": oauth_account(&endpoint, &upstream) });
    pixy.reload(&accounts, &keys(&other)).await.unwrap();
    chunks.send("data: last\n\n");
    chunks.finish();
    let rest = String::from_utf8_lossy(&within(agent.rest()).await).into_owned();
    assert!(
        rest.contains("data: first\n\n") && rest.contains("data: last\n\n") && rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
}

#[tokio::test]
async fn a_removed_key_is_refused_and_a_kept_key_keeps_its_count() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let coder = |most: u32| json!({ "name": "coder", "sha256": DIGEST, "accounts": ["a"], "limits": { "requests_per_minute": most } });
    let other = json!({ "name": "other", "sha256": DIGEST.replace("85", "86"), "accounts": ["a"] });
    let mut pixy = Pixy::with(&accounts, &keys(&json!([coder(5), other]))).await;
    pixy.link(&endpoint).await;
    let ask = get("X-Api-Key: secret-key\r\n");
    for _ in 0..2 {
        assert_eq!(pixy.send(&ask).await.status, 200);
    }
    pixy.reload(&accounts, &keys(&json!([coder(2), other]))).await.unwrap();
    assert_eq!(pixy.send(&ask).await.status, 429, "two requests before the reload count");
    pixy.reload(&accounts, &keys(&json!([coder(3), other]))).await.unwrap();
    assert_eq!(pixy.send(&ask).await.status, 200);
    pixy.reload(&accounts, &keys(&json!([other]))).await.unwrap();
    let refused = pixy.send(&ask).await;
    assert_eq!((refused.status, refused.header("x-pixy-error")), (401, vec!["agent_key_wrong"]));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_reported() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    let error = pixy.reload_text("agent: { lissten: x }\nopps: {}\n").await.unwrap_err();
    assert!(error.contains(":1:10: unknown key `lissten`") && error.contains(":2:1: unknown key `opps`"), "{error}");
    assert!(error.ends_with("5 faults; the configuration before stays in force"), "{error}");
    let (_, shown) = pixy.api(Method::GET, "/api/configuration", Value::Null).await;
    assert_eq!(shown["problem"], error);
    let counted = metrics(&pixy).await;
    assert!(counted.contains("pixy_config_reloads_total{outcome=\"bad_file\"} 1"), "{counted}");
    assert!(counted.contains("pixy_config_last_reload_successful 0"), "{counted}");
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);

    pixy.reload(&json!({ "a": oauth_account(&endpoint, &upstream) }), &json!({})).await.unwrap();
    let (_, shown) = pixy.api(Method::GET, "/api/configuration", Value::Null).await;
    assert_eq!(shown["problem"], Value::Null);
    assert_eq!(shown["file"], json!(pixy.scratch.path("pixy.yaml")));
    assert!(metrics(&pixy).await.contains("pixy_config_last_reload_successful 1"));
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_changes_nothing() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    let elsewhere = json!({ "state_dir": pixy.scratch.path("elsewhere"), "link": "off" });
    let error = pixy.reload(&json!({}), &elsewhere).await.unwrap_err();
    assert!(error.contains("needs a restart of Pixy: `state_dir`") && !error.contains("`link"), "{error}");
    assert!(error.ends_with("The configuration before stays in force."), "{error}");
    let upstream = json!({ "upstream": { "connect_timeout": "1s" } });
    let error = pixy.reload(&json!({}), &upstream).await.unwrap_err();
    assert!(error.contains("needs a restart of Pixy: `upstream`."), "{error}");
    let threads = json!({ "limits": { "io_threads": 2, "connections": 1 } });
    let error = pixy.reload(&json!({}), &threads).await.unwrap_err();
    assert!(error.contains("needs a restart of Pixy: `limits.io_threads`."), "{error}");
    let (_, shown) = pixy.api(Method::GET, "/api/configuration", Value::Null).await;
    assert_eq!(shown["problem"], error);
    assert!(tokio::net::TcpStream::connect(pixy.page()).await.is_ok(), "the page is still on");
    assert_eq!(pixy.get("/a/v1/models").await.status, 200, "the account is still served");
}

#[tokio::test]
async fn a_removed_account_keeps_its_record() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let with = json!({ "a": oauth_account(&endpoint, &upstream), "b": oauth_account(&endpoint, &upstream) });
    let without = json!({ "b": oauth_account(&endpoint, &upstream) });
    let mut pixy = Pixy::start(&with).await;
    pixy.link(&endpoint).await;
    let calls = endpoint.calls().len();
    let account = pixy.account("a");
    pixy.reload(&without, &json!({})).await.unwrap();
    assert_eq!(pixy.get("/a/v1/models").await.status, 404);
    assert!(!metrics(&pixy).await.contains("pixy_account_usable{account=\"a\"}"));
    let forgotten = async {
        while account.is_usable() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(forgotten).await;
    pixy.reload(&with, &json!({})).await.unwrap();
    assert_eq!(
        within(async {
            loop {
                let status = pixy.get("/a/v1/models").await.status;
                if status == 200 {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await,
        200
    );
    assert_eq!(endpoint.calls().len(), calls, "no token was requested");
}

#[tokio::test]
async fn a_changed_profile_keeps_the_login() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    let calls = endpoint.calls().len();
    let mut changed = oauth_account(&endpoint, &upstream);
    changed["profile"]["api"]["base_url"] = json!(format!("{}/below", upstream.url()));
    pixy.reload(&json!({ "a": changed }), &json!({})).await.unwrap();
    assert_eq!(pixy.get("/a/v1/models").await.status, 200);
    assert_eq!(upstream.requests().last().unwrap().target, "/below/v1/models");
    assert_eq!(endpoint.calls().len(), calls, "no token was requested");
}

#[tokio::test]
async fn a_waiting_request_sends_no_token_to_a_changed_upstream() {
    let endpoint = TokenEndpoint::with(Rotation::new(Duration::from_secs(2), Duration::ZERO)).await;
    let upstream = Upstream::start().await;
    let coder = json!([{ "name": "coder", "sha256": DIGEST, "accounts": ["a"], "limits": { "concurrent": 1 } }]);
    let mut pixy = Pixy::with(&json!({ "a": oauth_account(&endpoint, &upstream) }), &keys(&coder)).await;
    pixy.link(&endpoint).await;
    let gate = endpoint.hold_next();
    let account = pixy.account("a");
    let ended = async {
        while account.is_usable() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(ended).await;
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(get("X-Api-Key: secret-key\r\n")).await;
    // Its one concurrent request waits for a token.
    let hello = get("X-Api-Key: secret-key\r\n").replace("/v1/models", "");
    let waits = async { while pixy.send(&hello).await.status != 429 {} };
    within(waits).await;
    let mut changed = oauth_account(&endpoint, &upstream);
    changed["profile"]["api"]["base_url"] = json!(format!("{}/below", upstream.url()));
    pixy.reload(&json!({ "a": changed }), &keys(&coder)).await.unwrap();
    gate.open();
    let refused = agent.response().await.unwrap();
    assert_eq!((refused.status, refused.header("x-pixy-error")), (503, vec!["token_unavailable"]));
    assert_eq!(refused.header("retry-after"), ["1"]);
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(
        pixy.send(&get("X-Api-Key: secret-key\r\n")).await.status,
        200,
        "a new request is checked against the new profile"
    );
    assert_eq!(upstream.requests().last().unwrap().target, "/below/v1/models");
}

#[tokio::test]
async fn a_replaced_symlink_and_sighup_reload() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let scratch = Scratch::new();
    let written = scratch.config(&json!({ "a": oauth_account(&endpoint, &upstream) }));
    // The layout of a mounted ConfigMap.
    let mount = scratch.path("mount");
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        std::fs::create_dir_all(mount.join(version)).unwrap();
        let text = std::fs::read_to_string(&written).unwrap().replace("\"a\": {", &format!("\"{name}\": {{"));
        std::fs::write(mount.join(version).join("pixy.yaml"), text).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/pixy.yaml", mount.join("pixy.yaml")).unwrap();
    let program = Program::start(&scratch, &mount.join("pixy.yaml")).await;
    let becomes = async |name: &str| {
        within(async {
            while program.shown().await["name"] != name {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    becomes("a").await;
    symlink("..2", mount.join("..new")).unwrap();
    std::fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    becomes("b").await;
    symlink("..1", mount.join("..new")).unwrap();
    std::fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    becomes("a").await;
}
