//! `pixy doctor` finds and names every mistake that is made around a Pixy or an agent. Mistakes that need another user are in
//! `agent_isolation/doctor.rs`.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::support::{Pixy, Scratch, TokenEndpoint, Upstream, oauth_account};

/// The report of `pixy doctor --json`.
pub(crate) struct DoctorReport(pub(crate) Value);

impl DoctorReport {
    /// Parses the report, and checks that the exit code agrees with it.
    pub(crate) fn parse(output: &std::process::Output) -> Self {
        let errors = String::from_utf8_lossy(&output.stderr);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{errors}"));
        assert_eq!(found["healthy"] == json!(true), output.status.success(), "the exit code agrees: {found:#}");
        Self(found)
    }

    /// Whether a finding has this check and outcome, and contains this text.
    pub(crate) fn has(&self, check: &str, outcome: &str, says: &str) -> bool {
        self.0["findings"].as_array().unwrap().iter().any(|finding| {
            finding["check"] == check
                && finding["outcome"] == outcome
                && finding["says"].as_str().unwrap().contains(says)
        })
    }

    pub(crate) fn assert(&self, check: &str, outcome: &str, says: &str) {
        assert!(self.has(check, outcome, says), "{check}, {outcome}: {says}\n{:#}", self.0);
    }
}

/// Runs it as the agent, with this home; every address is on loopback.
fn as_agent(home: &Path, environment: &[(&str, &str)], more: &[&str]) -> DoctorReport {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    command.env_clear().env("HOME", home).envs(environment.iter().copied()).timeout(std::time::Duration::from_mins(1));
    command.args(["doctor", "--as-agent", "--json", "--provider", "http://127.0.0.1:1"]).args(more);
    let output = command.output().unwrap();
    for (name, value) in environment {
        let shown = String::from_utf8_lossy(&output.stdout).contains(value);
        assert!(name.ends_with("_URL") || !shown, "{name}: its value is not printed");
    }
    DoctorReport::parse(&output)
}

fn as_pixy(config: &Path) -> DoctorReport {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    command.env_clear().args(["doctor", "--json", "--config"]).arg(config);
    DoctorReport::parse(&command.timeout(std::time::Duration::from_mins(1)).output().unwrap())
}

#[test]
fn a_vault_key_among_the_agents_files_is_found() {
    let home = Scratch::new();
    as_agent(&home.path(""), &[], &[]).assert("key", "good", "");
    fs::create_dir_all(home.path("mounted/secrets")).unwrap();
    let key = home.write("mounted/secrets/pixy-key", pixy::vault::new_key().expose());
    as_agent(&home.path(""), &[], &[]).assert("key", "bad", key.to_str().unwrap());
    let elsewhere = Scratch::new();
    fs::rename(&key, elsewhere.path("key")).unwrap();
    let found = as_agent(&home.path(""), &[], &["--look-in", elsewhere.path("").to_str().unwrap()]);
    found.assert("key", "bad", elsewhere.path("key").to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_record_is_found_by_its_content() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let home = Scratch::new();
    as_agent(&home.path(""), &[], &[]).assert("vault", "good", "files checked");
    fs::copy(pixy.scratch.path("vault/a.record"), home.path("backup.bin")).unwrap();
    as_agent(&home.path(""), &[], &[]).assert("vault", "bad", "backup.bin");
}

#[test]
fn credentials_in_the_environment_are_named() {
    let home = Scratch::new();
    let clean = [("ANTHROPIC_AUTH_TOKEN", "your-agent-key")];
    as_agent(&home.path(""), &clean, &[]).assert("environment", "good", "");
    let planted = [("ANTHROPIC_API_KEY", "sk-ant-api03-0123456789abcdef"), ("DB_PASSWORD", "correct horse battery")];
    let found = as_agent(&home.path(""), &planted, &[]);
    found.assert("environment", "bad", "ANTHROPIC_API_KEY");
    found.assert("environment", "warning", "DB_PASSWORD");
}

#[test]
fn an_open_control_socket_is_found() {
    let home = Scratch::new();
    let socket = home.path("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    as_agent(&home.path(""), &[], &[]).assert("control socket", "bad", socket.to_str().unwrap());
    drop(listener);
    let found = as_agent(&home.path(""), &[], &[]);
    assert!(!found.has("control socket", "bad", socket.to_str().unwrap()), "nothing listens: {:#}", found.0);
}

#[test]
fn another_login_and_a_writable_configuration_are_found() {
    let home = Scratch::new();
    fs::create_dir(home.path(".claude")).unwrap();
    home.write(".claude/.credentials.json", r#"{"claudeAiOauth":{}}"#);
    let config = home.write("pixy.yaml", "accounts: {}\n");
    let found = as_agent(&home.path(""), &[], &[]);
    found.assert("other logins", "bad", ".claude/.credentials.json");
    found.assert("configuration", "bad", config.to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squatted_base_url_and_direct_access_are_found() {
    let (home, other) = (Scratch::new(), Upstream::start().await);
    let url = format!("{}/claude", other.url());
    let found = as_agent(&home.path(""), &[("ANTHROPIC_BASE_URL", &url)], &["--provider", &other.url()]);
    found.assert("base url", "bad", "another program is listening");
    found.assert("direct way", "warning", "127.0.0.1");
    assert!(!found.has("base url", "good", ""));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let found = as_agent(&home.path(""), &[("ANTHROPIC_BASE_URL", &format!("http://{free}/claude"))], &[]);
    found.assert("base url", "bad", "no answer on");
    found.assert("direct way", "good", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_base_url_is_tried_with_the_agents_key() {
    let (endpoint, upstream, home) = (TokenEndpoint::start().await, Upstream::start().await, Scratch::new());
    let key = "agent-key-of-the-test-0123456789";
    let file = home.write("coder", key);
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let agent = json!({ "listen": "127.0.0.1:0", "keys": [{ "name": "coder", "key_file": file, "accounts": ["a"] }] });
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::with(&accounts, &json!({ "agent": agent })).await;
    let url = format!("http://{}/a", pixy.agents());
    let with =
        |key: &str| as_agent(&home.path(""), &[("ANTHROPIC_BASE_URL", &url), ("ANTHROPIC_AUTH_TOKEN", key)], &[]);
    with(key).assert("base url", "bad", "not_linked");
    pixy.link(&endpoint).await;
    let found = with(key);
    found.assert("base url", "good", "to the provider and back");
    found.assert("environment", "good", "ANTHROPIC_AUTH_TOKEN holds the agent's own key for Pixy");
    let found = with("another-key-of-the-test-0123456789");
    found.assert("base url", "bad", "no variable here holds one that it accepts");
    found.assert("environment", "bad", "ANTHROPIC_AUTH_TOKEN");
    let found = as_agent(&home.path(""), &[], &["--base-url", &format!("http://{}/unknown", pixy.agents())]);
    found.assert("base url", "bad", "/unknown is not one of its accounts");
    // The resolver takes this for 127.0.0.1, but it is a name.
    let by_name = format!("http://127.1:{}/a", pixy.agents().port());
    let found = as_agent(&home.path(""), &[], &["--base-url", &by_name]);
    found.assert("base url", "bad", "Add the name to `hosts` of this address in `agent.listen`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_pixy_passes_until_its_key_is_readable() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let before = upstream.requests().len();
    let found = as_pixy(&pixy.scratch.path("pixy.yaml"));
    found.assert("configuration", "good", "without fault");
    found.assert("pixy", "good", "it runs");
    found.assert("account", "good", "a is linked");
    found.assert("vault", "good", "is closed to others, and the running Pixy has opened it");
    found.assert("key", "good", "is closed to others");
    found.assert("provider", "good", "127.0.0.1 answers");
    let sent = &upstream.requests()[before..];
    assert!(
        sent.iter().all(|request| request.headers.iter().all(|(name, _)| name != "authorization")),
        "no credential"
    );
    found.assert("state", "good", "is closed to others");
    let state = pixy.scratch.path("state");
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
    as_pixy(&pixy.scratch.path("pixy.yaml")).assert("state", "bad", "chmod 0700");
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    let key = pixy.scratch.path("key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    as_pixy(&pixy.scratch.path("pixy.yaml")).assert("key", "bad", "chmod 0600");
}

#[test]
fn an_open_vault_a_port_in_use_and_no_pixy_are_found() {
    let (scratch, holder) = (Scratch::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = holder.local_addr().unwrap().to_string();
    let config = scratch.config_with(&json!({}), &json!({ "agent": { "listen": address } }));
    let found = as_pixy(&config);
    found.assert("pixy", "warning", "no Pixy is running");
    found.assert("vault", "good", "will be created at the first start");
    found.assert("ports", "bad", &format!("agents: {address} cannot be bound"));
    assert!(!scratch.path("vault").exists() && !scratch.path("key").exists(), "it changes nothing");
    fs::create_dir(scratch.path("vault")).unwrap();
    fs::set_permissions(scratch.path("vault"), Permissions::from_mode(0o755)).unwrap();
    as_pixy(&config).assert("vault", "bad", "chmod 0700");
}

#[test]
fn a_faulty_configuration_ends_with_64() {
    let scratch = Scratch::new();
    let config = scratch.write("pixy.yaml", "agent: { lissten: x }\n");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    let output = command.env_clear().args(["doctor", "--config"]).arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("✗ configuration") && text.contains("unknown key `lissten`"), "{text}");
}
