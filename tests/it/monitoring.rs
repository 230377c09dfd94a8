//! `examples/monitoring` and `/metrics`, checked by Prometheus' `promtool`; without it these tests print that they are skipped.
#![allow(clippy::print_stdout, reason = "the log shows which tests were skipped")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use http::Method;
use serde_json::Value;

use crate::support::{Pixy, RawClient, Reply, TokenEndpoint, Upstream, within};

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring")
}

/// Runs `promtool`, which reads files and its standard input only; `None` if it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(monitoring());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: promtool (prometheus) is missing");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

fn output_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(monitoring().join(name)).unwrap()).unwrap()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts-test.yaml"],
        ["check", "config", "prometheus.yaml"],
    ] {
        let Some(output) = promtool(&arguments, "") else { return };
        assert!(output.status.success(), "{arguments:?}: {}", output_text(&output));
    }
}

#[test]
fn every_alert_is_tested_firing_and_silent() {
    let rules = yaml("alerts.yaml");
    let alerts: BTreeSet<&str> =
        rules["groups"][0]["rules"].as_array().unwrap().iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert!(alerts.len() > 7, "{alerts:?}");
    let tests = yaml("alerts-test.yaml");
    let tested = |scene: &str, fires: bool| -> BTreeSet<&str> {
        let scene = tests["tests"].as_array().unwrap().iter().find(|test| test["name"] == scene).unwrap();
        let checks = scene["alert_rule_test"].as_array().unwrap().iter();
        let checks = checks.filter(|check| check["exp_alerts"].as_array().unwrap().is_empty() != fires);
        checks.map(|check| check["alertname"].as_str().unwrap()).collect()
    };
    assert_eq!(tested("all healthy", false), alerts);
    assert_eq!(tested("all failing", true), alerts);
}

/// OpenMetrics names a counter's family without `_total` (OpenMetrics 1.0, "Counter"); `promtool check metrics` reads the older
/// text format, in which the family is named as its sample.
fn as_older_text(metrics: &str) -> String {
    let counters: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                format!("# {what} {name}_total {rest}\n")
            }
            _ => format!("{line}\n"),
        }
    };
    metrics.lines().map(line).collect()
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let at_first = RawClient::once(pixy.ops(), request).await.unwrap().text();
    for outcome in ["renewed", "withheld", "terminal", "transient", "unheard", "unknown", "vault_unwritable"] {
        let first = format!("\npixy_refreshes_total{{account=\"a\",outcome=\"{outcome}\"}} 0\n");
        assert!(at_first.contains(&first), "initialised to 0: {at_first}");
    }
    let (status, _) = pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    assert_eq!(status, 200);
    upstream.answer(Reply::new(401)); // is repaired
    for path in ["/a/v1/models", "/unknown/v1/models"] {
        within(pixy.get(path)).await;
    }
    let response = RawClient::once(pixy.ops(), request).await.unwrap();
    assert_eq!(response.header("content-type"), ["application/openmetrics-text; version=1.0.0; charset=utf-8"]);
    let metrics = response.text();
    assert!(metrics.ends_with("\n# EOF\n") && metrics.contains("pixy_repairs_total{"), "{metrics}");
    let first = "\npixy_redactions_total{account=\"a\"} 0\n";
    assert!(metrics.contains(first), "initialised to 0: {metrics}");
    let Some(output) = promtool(&["check", "metrics"], &as_older_text(&metrics)) else { return };
    assert!(output.status.success() && output_text(&output).is_empty(), "{}\n{metrics}", output_text(&output));
    let misnamed = metrics.replace("pixy_open_streams", "pixy_openStreams_total");
    let output = promtool(&["check", "metrics"], &as_older_text(&misnamed)).unwrap();
    assert!(!output.status.success(), "promtool reads its input");
}
