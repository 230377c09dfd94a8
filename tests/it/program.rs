//! The binary on the command line.

use std::time::Duration;

use assert_cmd::Command;

use crate::support::Scratch;

fn pixy() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    command.env_clear().env("HOME", "/nonexistent");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn attack_91_a_state_dir_that_is_a_link_is_refused() {
    let scratch = Scratch::new();
    let config = scratch.config(&serde_json::json!({}));
    let text = std::fs::read_to_string(&config).unwrap();
    for slash in ["", "/"] {
        let target = scratch.path(&format!("elsewhere{}", slash.len()));
        std::fs::create_dir(&target).unwrap();
        let _ = std::fs::remove_file(scratch.path("state"));
        std::os::unix::fs::symlink(&target, scratch.path("state")).unwrap();
        let state = scratch.path("state").display().to_string();
        let text = text.replace(&state, &format!("{state}{slash}"));
        let parsed = pixy::config::parse(&text, None, &pixy::config::Env::default()).unwrap();
        let Err(error) = pixy::app::start(parsed).await else { panic!("it started") };
        let error = error.to_string();
        assert!(error.contains(&format!("{state} is a symbolic link; set `state_dir` to the directory")), "{error}");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "nothing was written there");
    }
}

#[test]
fn check_reports_all_faults_and_exits_with_64() {
    let scratch = Scratch::new();
    let file = scratch.write("pixy.yaml", "agent: { lissten: x }\nopps: {}\n");
    let output = pixy().args(["check", "--config"]).arg(&file).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    assert!(errors.contains(":1:10: unknown key `lissten`") && errors.contains(":2:1: unknown key `opps`"), "{errors}");
    assert!(errors.ends_with("2 faults; nothing was started\n"), "{errors}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn usage_errors_exit_with_64_and_help_with_0() {
    assert_eq!(pixy().arg("--no-such").output().unwrap().status.code(), Some(64));
    assert_eq!(pixy().args(["providers", "unknown"]).output().unwrap().status.code(), Some(64));
    let help = pixy().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("holds your LLM logins"));
}

#[test]
fn the_schema_and_the_providers_are_printed() {
    let schema = pixy().arg("schema").output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(document["properties"]["accounts"].is_object());
    let providers = text(&pixy().arg("providers").output().unwrap().stdout);
    for name in ["claude", "openrouter", "openai-compatible", "restricted"] {
        assert!(providers.contains(name), "{providers}");
    }
    let claude = text(&pixy().args(["providers", "claude"]).output().unwrap().stdout);
    assert!(claude.contains("oauth-2025-04-20") && claude.contains("terms"), "{claude}");
}

#[test]
fn a_command_without_a_running_pixy_says_so() {
    let scratch = Scratch::new();
    let config = scratch.config(&serde_json::json!({}));
    let output = pixy().args(["status", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no Pixy is running with this configuration"), "{}", text(&output.stderr));
}

#[test]
fn health_times_out_when_pixy_does_not_answer() {
    let scratch = Scratch::new();
    let config = scratch.config(&serde_json::json!({}));
    let state = scratch.path("state");
    std::fs::create_dir_all(&state).unwrap();
    let _silent = std::os::unix::net::UnixListener::bind(state.join("control.sock")).unwrap();
    let output = pixy().args(["health", "--config"]).arg(&config).timeout(Duration::from_secs(30)).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("no answer within"), "{}", text(&output.stderr));
}

#[test]
fn a_vault_open_to_others_is_refused_with_the_fix() {
    let scratch = Scratch::new();
    let config = scratch.config(&serde_json::json!({}));
    let vault = scratch.path("vault");
    std::fs::create_dir(&vault).unwrap();
    std::fs::set_permissions(&vault, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = pixy().arg("--config").arg(&config).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("chmod"), "{errors}");
}
