//! Two users in one network namespace, as in a pod: Pixy runs as one, the agent as the other.
//!
//! Each test runs itself again in a network namespace of its own, where every listening port is Pixy's or a fake's. Pixy is the
//! real binary; the agent is this test binary, started as another user with a task (`agent_isolation/agent.rs`).
#![allow(clippy::print_stdout, reason = "what was skipped and what was counted goes to the log")]

mod agent;
mod doctor;
mod harness;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use self::harness::{AGENT, Harness, PIXY, in_a_namespace};
use crate::support::within;

#[test]
fn attack_01_no_port_gives_the_agent_access() {
    in_a_namespace("attack_01_no_port_gives_the_agent_access", async || {
        let harness = Harness::new().await;
        let before = harness.accounts().await;
        assert_eq!(harness.upstream.requests().len(), 0);
        println!("  {}", harness.agent(AGENT, "crawl", &json!({ "not": harness.ports_of_fakes })));
        assert_eq!(harness.accounts().await, before, "the accounts are unchanged");
        assert_eq!(harness.upstream.requests().len(), 0, "no request reached the upstream");
        assert_eq!((harness.endpoint.refreshes(), harness.endpoint.revoked().len()), (0, 0));
        assert!(harness.metrics().await.contains("\npixy_agent_same_uid 0\n"), "another user");
    });
}

#[test]
fn attack_05_a_port_of_pixy_cannot_be_shared() {
    in_a_namespace("attack_05_a_port_of_pixy_cannot_be_shared", async || {
        let harness = Harness::new().await;
        let ports = json!({ "not": harness.ports_of_fakes });
        println!("  {}", harness.agent(AGENT, "listen", &ports));
        // SO_REUSEPORT shares a port with the same user only if the first socket has set it too: Pixy's has not.
        println!("  {}", harness.agent(PIXY, "listen", &ports));
    });
}

#[test]
fn attack_06_the_agent_reaches_no_file_of_pixy() {
    in_a_namespace("attack_06_the_agent_reaches_no_file_of_pixy", async || {
        let harness = Harness::new().await;
        let files = harness.scratch.files();
        assert!(["control.sock", "a.record", "k.record", "key", "pixy.yaml", "high-water.json"].iter().all(|name| {
            files.iter().any(|file| file.ends_with(name)) // the list is complete
        }));
        let directories = ["state", "vault"].map(|name| harness.scratch.path(name));
        println!("  {}", harness.agent(AGENT, "files", &json!({ "files": files, "directories": directories })));
    });
}

#[test]
fn attack_06_a_group_socket_admits_only_the_group() {
    in_a_namespace("attack_06_a_group_socket_admits_only_the_group", async || {
        let harness = Harness::new().await;
        let [agents, control] = ["agent.sock", "state/control.sock"].map(|name| harness.scratch.path(name));
        let none: [&str; 0] = [];
        println!("  {}", harness.agent(AGENT, "connect", &json!({ "open": none, "closed": [agents, control] })));
        println!("  {}", harness.agent_of(AGENT, PIXY, "connect", &json!({ "open": [agents], "closed": [control] })));
    });
}

#[test]
fn attack_06_an_agent_of_the_same_user_is_counted_over_tcp() {
    in_a_namespace("attack_06_an_agent_of_the_same_user_is_counted_over_tcp", async || {
        let harness = Harness::new().await;
        harness.agent(PIXY, "ask", &json!({ "address": harness.program.agents().to_string() }));
        within(async {
            while !harness.metrics().await.contains("\npixy_agent_same_uid 1\n") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    });
}

#[test]
fn attack_48_no_core_is_dumped_on_abort_or_by_a_debugger() {
    in_a_namespace("attack_48_no_core_is_dumped_on_abort_or_by_a_debugger", async || {
        // A program without this hardening, to prove that the test looks for core files in the right place.
        let other = self::harness::with_cores(PIXY, "sh", &["-c", "kill -ABRT $$"], self::harness::public().path())
            .status()
            .unwrap();
        if !other.core_dumped() {
            println!("  this machine writes no core files: only Pixy's limits are checked");
        }
        let harness = Harness::new().await;
        let limits = fs::read_to_string(format!("/proc/{}/limits", harness.program.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "hard and soft");
        for user in [AGENT, PIXY] {
            println!("  {}", harness.agent(user, "attach", &json!({ "process": harness.program.id() })));
        }
        let abort = Command::new("sh").args(["-c", &format!("kill -ABRT {}", harness.program.id())]).status().unwrap();
        assert!(abort.success());
        let scratch = harness.scratch;
        let ended = harness.program.ended().await;
        assert_eq!(ended.signal(), Some(6));
        assert!(!ended.core_dumped(), "{ended}");
        assert!(!scratch.files().iter().any(|file| file.file_name().unwrap().to_str().unwrap().starts_with("core")));
    });
}

#[test]
fn attack_49_proc_shows_no_secret_to_the_agent_or_pixys_user() {
    in_a_namespace("attack_49_proc_shows_no_secret_to_the_agent_or_pixys_user", async || {
        let harness = Harness::new().await;
        for user in [AGENT, PIXY] {
            println!("  {}", harness.agent(user, "proc", &json!({ "process": harness.program.id() })));
        }
        for file in ["environ", "cmdline"] {
            let read = fs::read(format!("/proc/{}/{file}", harness.program.id())).unwrap();
            harness.assert_clean(file, &read); // not even for root
        }
    });
}

#[test]
fn attack_51_memory_is_searched_for_secrets_after_unlinking() {
    in_a_namespace("attack_51_memory_is_searched_for_secrets_after_unlinking", async || {
        let harness = Harness::new().await;
        for path in ["/a/v1/models", "/k/models"] {
            assert_eq!(harness.program.get(path).await.status, 200);
        }
        let live = harness.in_memory();
        assert!(live.iter().any(|(_, hits)| *hits > 0), "a token that is in use is in memory: {live:?}");
        for account in ["a", "k", "n"] {
            harness.program.api(Method::DELETE, &format!("/api/accounts/{account}")).await;
        }
        within(async {
            while harness.accounts().await.as_array().unwrap().iter().any(|account| account["state"] != "unlinked") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let after = harness.in_memory();
        for ((name, live), (_, after)) in live.iter().zip(&after) {
            println!("  {name}: {live} copies in memory while linked and used, {after} after unlinking");
        }
        let total = |counted: &[(String, usize)]| counted.iter().map(|(_, hits)| hits).sum::<usize>();
        assert!(total(&after) <= total(&live), "unlinking adds no copies");
    });
}

#[test]
fn pixy_reports_its_hardening_and_still_resolves_names() {
    in_a_namespace("pixy_reports_its_hardening_and_still_resolves_names", async || {
        let harness = Harness::new().await;
        let output = harness.program.startup_output();
        let line = output.lines().find(|line| line.starts_with("  guarded  ")).expect("the line is printed");
        for guard in ["no core dumps", "memory closed", "no new privileges"] {
            assert!(line.contains(guard), "{line}");
        }
        assert!(line.contains("paths (Landlock") || line.contains("files are not limited ("), "{line}");
        assert!(line.contains("system calls refused (seccomp)"), "{line}");
        assert!(!output.contains("runs as root"), "{output}");
        println!("{line}");
        // The upstream of `n` is a name: the resolver still reads its files.
        assert_eq!(harness.program.get("/n/models").await.status, 200);
        let answer: Value = harness.program.api(Method::POST, "/api/vault/rotate").await.unwrap();
        assert!(answer.get("type").is_none(), "the key's directory is writable: {answer:#}");
    });
}

/// The entry point of a process that a test starts as another user.
#[test]
#[ignore = "started by the tests of this file, as another user"]
fn the_agent() {
    if let Ok(task) = std::env::var("PIXY_AGENT") {
        agent::run(&serde_json::from_str(&task).unwrap());
    }
}

/// Whether network namespaces cannot be used here; then the test is skipped, or fails in CI.
fn namespaces_are_missing() -> bool {
    let works = Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    let missing = !rustix::process::geteuid().is_root() || !works.is_ok_and(|status| status.success());
    if missing {
        println!("skipped: this needs root, unshare (util-linux) and ip (iproute2)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    missing
}
