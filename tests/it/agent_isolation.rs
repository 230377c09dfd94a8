//! Two users in one network namespace, as in a pod: Pixy runs as one, the agent as the other, and nobody helps Pixy.
//!
//! Each test runs itself once more in a network namespace of its own, where every port that listens is Pixy's or a fake's. Pixy is
//! the real binary; the agent is this test binary again, started as its user with a task (`hostile/agent.rs`).
#![allow(clippy::print_stdout, reason = "what was skipped, and what was counted, is for the reader of the log")]

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
fn attack_01_the_agent_finds_no_way_in_on_any_port() {
    in_a_namespace("attack_01_the_agent_finds_no_way_in_on_any_port", async || {
        let house = Harness::new().await;
        let before = house.accounts().await;
        assert_eq!(house.upstream.requests().len(), 0);
        println!("  {}", house.agent(AGENT, "crawl", &json!({ "not": house.ports_of_fakes })));
        assert_eq!(house.accounts().await, before, "nothing has changed");
        assert_eq!(house.upstream.requests().len(), 0, "nothing went up");
        assert_eq!((house.endpoint.refreshes(), house.endpoint.revoked().len()), (0, 0));
        assert!(house.metrics().await.contains("\npixy_agent_same_uid 0\n"), "another user");
    });
}

#[test]
fn attack_05_nobody_else_listens_on_a_port_of_pixy() {
    in_a_namespace("attack_05_nobody_else_listens_on_a_port_of_pixy", async || {
        let house = Harness::new().await;
        let ports = json!({ "not": house.ports_of_fakes });
        println!("  {}", house.agent(AGENT, "listen", &ports));
        // SO_REUSEPORT lets the same user in where the first socket has it as well: this one has not.
        println!("  {}", house.agent(PIXY, "listen", &ports));
    });
}

#[test]
fn attack_06_the_agent_reaches_no_file_of_pixy() {
    in_a_namespace("attack_06_the_agent_reaches_no_file_of_pixy", async || {
        let house = Harness::new().await;
        let files = house.scratch.files();
        assert!(["control.sock", "a.record", "k.record", "key", "pixy.yaml", "high-water.json"].iter().all(|name| {
            files.iter().any(|file| file.ends_with(name)) // the list is not empty, and whole
        }));
        let directories = ["state", "vault"].map(|name| house.scratch.path(name));
        println!("  {}", house.agent(AGENT, "files", &json!({ "files": files, "directories": directories })));
    });
}

#[test]
fn attack_06_a_socket_for_the_group_lets_the_group_in_and_nobody_else() {
    in_a_namespace("attack_06_a_socket_for_the_group_lets_the_group_in_and_nobody_else", async || {
        let house = Harness::new().await;
        let [agents, control] = ["agent.sock", "state/control.sock"].map(|name| house.scratch.path(name));
        let none: [&str; 0] = [];
        println!("  {}", house.agent(AGENT, "knock", &json!({ "open": none, "closed": [agents, control] })));
        println!("  {}", house.agent_of(AGENT, PIXY, "knock", &json!({ "open": [agents], "closed": [control] })));
    });
}

#[test]
fn attack_06_an_agent_of_pixys_own_user_is_told_of_over_tcp_too() {
    in_a_namespace("attack_06_an_agent_of_pixys_own_user_is_told_of_over_tcp_too", async || {
        let house = Harness::new().await;
        house.agent(PIXY, "ask", &json!({ "address": house.program.agents().to_string() }));
        within(async {
            while !house.metrics().await.contains("\npixy_agent_same_uid 1\n") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    });
}

#[test]
fn attack_48_an_abort_leaves_no_core_and_nobody_makes_one() {
    in_a_namespace("attack_48_an_abort_leaves_no_core_and_nobody_makes_one", async || {
        // What happens to a program that does not care, so that the test is known to look in the right place.
        let other =
            harness::with_cores(PIXY, "sh", &["-c", "kill -ABRT $$"], harness::public().path()).status().unwrap();
        if !other.core_dumped() {
            println!("  this machine makes no core files at all: only Pixy's own limits are seen");
        }
        let house = Harness::new().await;
        let limits = fs::read_to_string(format!("/proc/{}/limits", house.program.id())).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "hard and soft");
        for user in [AGENT, PIXY] {
            println!("  {}", house.agent(user, "attach", &json!({ "process": house.program.id() })));
        }
        let abort = Command::new("sh").args(["-c", &format!("kill -ABRT {}", house.program.id())]).status().unwrap();
        assert!(abort.success());
        let scratch = house.scratch;
        let ended = house.program.ended().await;
        assert_eq!(ended.signal(), Some(6));
        assert!(!ended.core_dumped(), "{ended}");
        assert!(!scratch.files().iter().any(|file| file.file_name().unwrap().to_str().unwrap().starts_with("core")));
    });
}

#[test]
fn attack_49_proc_shows_no_secret_to_the_agent_nor_to_pixys_own_user() {
    in_a_namespace("attack_49_proc_shows_no_secret_to_the_agent_nor_to_pixys_own_user", async || {
        let house = Harness::new().await;
        for user in [AGENT, PIXY] {
            println!("  {}", house.agent(user, "proc", &json!({ "process": house.program.id() })));
        }
        for file in ["environ", "cmdline"] {
            let read = fs::read(format!("/proc/{}/{file}", house.program.id())).unwrap();
            house.assert_clean(file, &read); // not even for root
        }
    });
}

#[test]
fn attack_51_after_unlinking_memory_is_searched_for_what_was_known() {
    in_a_namespace("attack_51_after_unlinking_memory_is_searched_for_what_was_known", async || {
        let house = Harness::new().await;
        for path in ["/a/v1/models", "/k/models"] {
            assert_eq!(house.program.get(path).await.status, 200);
        }
        let live = house.in_memory();
        assert!(live.iter().any(|(_, hits)| *hits > 0), "a token that is in use is in memory: {live:?}");
        for account in ["a", "k", "n"] {
            house.program.api(Method::DELETE, &format!("/api/accounts/{account}")).await;
        }
        within(async {
            while house.accounts().await.as_array().unwrap().iter().any(|account| account["state"] != "unlinked") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let after = house.in_memory();
        for ((name, live), (_, after)) in live.iter().zip(&after) {
            println!("  {name}: {live} copies in memory while linked and used, {after} after unlinking");
        }
        let total = |counted: &[(String, usize)]| counted.iter().map(|(_, hits)| hits).sum::<usize>();
        assert!(total(&after) <= total(&live), "unlinking leaves no more than there was");
    });
}

#[test]
fn pixy_says_how_it_is_guarded_and_finds_names_and_certificates_all_the_same() {
    in_a_namespace("pixy_says_how_it_is_guarded_and_finds_names_and_certificates_all_the_same", async || {
        let house = Harness::new().await;
        let told = house.program.startup_output();
        let line = told.lines().find(|line| line.starts_with("  guarded  ")).expect("it is said");
        for guard in ["no core dumps", "memory closed", "no new privileges"] {
            assert!(line.contains(guard), "{line}");
        }
        assert!(line.contains("paths (Landlock") || line.contains("files are not limited ("), "{line}");
        assert!(line.contains("system calls refused (seccomp)"), "{line}");
        assert!(!told.contains("runs as root"), "{told}");
        println!("{line}");
        // The upstream of `n` is a name: the resolver still reads its files.
        assert_eq!(house.program.get("/n/models").await.status, 200);
        let answer: Value = house.program.api(Method::POST, "/api/vault/rotate").await.unwrap();
        assert!(answer.get("type").is_none(), "the key's directory may be written: {answer:#}");
    });
}

/// The task of a process that one of the tests has started as another user.
#[test]
#[ignore = "the tests of this file start it, as another user"]
fn the_agent() {
    if let Ok(task) = std::env::var("PIXY_AGENT") {
        agent::run(&serde_json::from_str(&task).unwrap());
    }
}

/// Says so; where nothing may be skipped, fails.
fn namespaces_are_missing() -> bool {
    let works = Command::new("unshare").args(["-n", "ip", "link", "set", "lo", "up"]).stderr(Stdio::null()).status();
    let missing = !rustix::process::geteuid().is_root() || !works.is_ok_and(|status| status.success());
    if missing {
        println!("skipped: this needs root, unshare (util-linux) and ip (iproute2)");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    missing
}
