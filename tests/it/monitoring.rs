//! `examples/monitoring` and `/metrics`, judged by Prometheus' own `promtool`; without it these tests say that they are skipped.
#![allow(clippy::print_stdout, reason = "what was skipped is for the reader of the log")]

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

/// What `promtool` says; `None` without it. It works on files and its standard input alone.
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

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(monitoring().join(name)).unwrap()).unwrap()
}

#[test]
fn promtool_finds_the_rules_right_and_their_alarms_where_they_belong() {
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts-test.yaml"],
        ["check", "config", "prometheus.yaml"],
    ] {
        let Some(output) = promtool(&arguments, "") else { return };
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn every_alert_is_tried_on_what_it_is_for_and_when_all_is_well() {
    let rules = yaml("alerts.yaml");
    let alerts: BTreeSet<&str> =
        rules["groups"][0]["rules"].as_array().unwrap().iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
    assert!(alerts.len() > 7, "{alerts:?}");
    let tests = yaml("alerts-test.yaml");
    let tried = |scene: &str, fires: bool| -> BTreeSet<&str> {
        let scene = tests["tests"].as_array().unwrap().iter().find(|test| test["name"] == scene).unwrap();
        let looks = scene["alert_rule_test"].as_array().unwrap().iter();
        let looks = looks.filter(|look| look["exp_alerts"].as_array().unwrap().is_empty() != fires);
        looks.map(|look| look["alertname"].as_str().unwrap()).collect()
    };
    assert_eq!(tried("all is well", false), alerts);
    assert_eq!(tried("everything is wrong", true), alerts);
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
async fn promtool_finds_nothing_to_say_of_the_names_of_metrics() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let at_first = RawClient::once(pixy.ops(), request).await.unwrap().text();
    for outcome in ["renewed", "terminal", "transient", "unheard", "unknown", "vault_unwritable"] {
        let first = format!("\npixy_refreshes_total{{account=\"a\",outcome=\"{outcome}\"}} 0\n");
        assert!(at_first.contains(&first), "an increase is seen from 0 on: {at_first}");
    }
    let (status, _) = pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    assert_eq!(status, 200);
    upstream.answer(Reply::new(401)); // and so a repair
    for path in ["/a/v1/models", "/nobody/v1/models"] {
        within(pixy.get(path)).await;
    }
    let response = RawClient::once(pixy.ops(), request).await.unwrap();
    assert_eq!(response.header("content-type"), ["application/openmetrics-text; version=1.0.0; charset=utf-8"]);
    let metrics = response.text();
    assert!(metrics.ends_with("\n# EOF\n") && metrics.contains("pixy_repairs_total{"), "{metrics}");
    let first = "\npixy_redactions_total{account=\"a\"} 0\n";
    assert!(metrics.contains(first), "an increase is seen from 0 on: {metrics}");
    let Some(output) = promtool(&["check", "metrics"], &as_older_text(&metrics)) else { return };
    assert!(output.status.success() && said(&output).is_empty(), "{}\n{metrics}", said(&output));
    let misnamed = metrics.replace("pixy_open_streams", "pixy_openStreams_total");
    let output = promtool(&["check", "metrics"], &as_older_text(&misnamed)).unwrap();
    assert!(!output.status.success(), "it looks at what it is given");
}
