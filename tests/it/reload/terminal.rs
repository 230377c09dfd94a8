//! Commands while the file is bad and Pixy still serves by the previous configuration.

use std::process::{Output, Stdio};

use serde_json::json;
use tokio::process::Command;

use crate::support::{Program, Scratch, TokenEndpoint, Upstream, oauth_account, within};

async fn pixy(scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    command.env_clear().env("HOME", scratch.path("home")).arg("--config").arg(scratch.path("pixy.yaml"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stdout, stderr } = within(command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[tokio::test]
async fn commands_reach_a_running_pixy_with_a_bad_file() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let scratch = Scratch::new();
    let config = scratch.config(&json!({ "a": oauth_account(&endpoint, &upstream) }));
    let good = std::fs::read_to_string(&config).unwrap();
    let program = Program::start(&scratch, &config).await;
    let with_a_fault = good.replacen("\"agent\"", "\"aggent\"", 1);
    let no_yaml = good.replacen("\"agent\":", "\"agent\",", 1);
    for (bad, fault) in [(with_a_fault, "unknown key `aggent`"), (no_yaml, "pixy.yaml:")] {
        scratch.write("pixy.yaml", bad);
        let (code, stdout, stderr) = pixy(&scratch, &["status"]).await;
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains("not linked"), "{stdout}");
        assert!(
            stderr.contains(fault) && stderr.contains("1 fault; the configuration before stays in force"),
            "{stderr}"
        );
        assert!(!stderr.contains("nothing was started"), "{stderr}");
        let (code, stdout, _) = pixy(&scratch, &["status", "--json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &shown[0]["name"]), (Some(0), &json!("a")));
        // A container's health check must not end a Pixy that serves.
        assert_eq!(pixy(&scratch, &["health"]).await.0, Some(0));
        assert_eq!(pixy(&scratch, &["url"]).await.0, Some(0));
        assert_eq!(pixy(&scratch, &["check"]).await.0, Some(64));
    }
    program.kill().await;
    let (code, _, stderr) = pixy(&scratch, &["status"]).await;
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("pixy.yaml:") && stderr.contains("no Pixy was reached"), "{stderr}");
}

#[tokio::test]
async fn commands_reach_pixy_at_the_default_path_without_a_file() {
    let scratch = Scratch::new();
    let home = scratch.path("home");
    std::fs::create_dir(&home).unwrap();
    let any = json!({ "listen": "127.0.0.1:0" });
    let text = json!({ "agent": any, "link": any, "ops": any, "accounts": { "a": { "provider": "openrouter" } } });
    let config = scratch.write("pixy.yaml", text.to_string());
    let _program = Program::start_in(&scratch, &config, &[("HOME", home.to_str().unwrap())]).await;
    std::fs::remove_file(&config).unwrap();
    let (code, stdout, stderr) = pixy(&scratch, &["status"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("openrouter") && stderr.contains("the configuration cannot be read"), "{stdout}{stderr}");
}
