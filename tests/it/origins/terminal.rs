//! `pixy link NAME --moved`.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{moved, until_reason};
use crate::support::{Pixy, TokenEndpoint, Upstream, oauth_account, within};

/// Runs the command, which reads `input`.
async fn confirm(pixy: &Pixy, more: &[&str], input: &str) -> Output {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("pixy"))
        .env_clear()
        .arg("--config")
        .arg(pixy.scratch.path("pixy.yaml"))
        .args(["link", "a", "--moved"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    within(child.wait_with_output()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_move_is_shown_asked_for_and_confirmed_in_the_terminal() {
    let (endpoint, upstream, new) = (TokenEndpoint::start().await, Upstream::start().await, Upstream::start().await);
    let mut pixy = Pixy::linked(&endpoint, &upstream).await;
    let stays = confirm(&pixy, &[], "").await;
    assert_eq!(stays.status.code(), Some(1));
    assert!(text(&stays.stderr).contains("there is nothing to confirm"), "{}", text(&stays.stderr));

    let account = oauth_account(&endpoint, &upstream);
    let changed = json!({ "a": moved(&account, "/profile/api/base_url", &new.url()) });
    pixy.reload(&changed, &json!({})).await.unwrap();
    until_reason(&pixy, &json!("moved")).await;
    for answer in ["", "\n", "n\n"] {
        let refused = confirm(&pixy, &[], answer).await;
        assert_eq!(refused.status.code(), Some(1), "{answer:?}");
        let sentence = format!("moved from {} to {}", upstream.url(), new.url());
        assert!(text(&refused.stdout).contains(&sentence), "{}", text(&refused.stdout));
        assert!(text(&refused.stderr).contains("still sent nowhere"), "{}", text(&refused.stderr));
    }
    assert_eq!(pixy.shown("a").await["error"]["reason"], "moved");
    let confirmed = confirm(&pixy, &["--yes"], "").await;
    assert_eq!(confirmed.status.code(), Some(0), "{}", text(&confirmed.stderr));
    assert_eq!(pixy.shown("a").await["state"], "linked");

    pixy.reload(&json!({ "a": account }), &json!({})).await.unwrap();
    until_reason(&pixy, &json!("moved")).await; // it belongs to the new origin now
    let confirmed = confirm(&pixy, &["--json"], "y\n").await;
    let steps: Vec<Value> = text(&confirmed.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["moved", "linked"]);
    assert_eq!(within(pixy.get("/a/v1/models")).await.status, 200);
}
