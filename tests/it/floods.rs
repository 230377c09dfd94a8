//! Floods against the program: whatever clients do, its resident memory stays under `limits.memory`, `/livez` answers, and an agent
//! with a key is served.
//!
//! Each flood is short and has few connections, but in an optimized build with `PIXY_LONG=1` (`tests/run --long`) it lasts 30 s at ten
//! times the default limits. The figures are printed as a table.
//!
//! The bounds of an optimized build are those of the guarantee. Those of an unoptimized one are wider (`LIVEZ_SLACK`, `POLITE_SLACK`): it needs up to
//! twenty times the processor time, and shares two cores with the flood and the upstream.
#![allow(clippy::print_stdout, reason = "the table of what was measured")]

mod clients;
mod probes;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Program, Scratch, TokenEndpoint, Upstream, oauth_account};
use clients::{Flood, Port};
use probes::Figures;

/// The longest waits of `/livez` and of a polite agent.
const LIVEZ: Duration = Duration::from_millis(100);
const POLITE: Duration = Duration::from_secs(1);

/// How much longer they may be here.
const LIVEZ_SLACK: u32 = if cfg!(debug_assertions) { 20 } else { 1 };
const POLITE_SLACK: u32 = if cfg!(debug_assertions) { 5 } else { 1 };

/// The keys of two agents; the flood uses the first.
const HOSTILE: &str = "hostile-agent-key-0123456789";
const POLITE_KEY: &str = "polite-agent-key-0123456789";

/// The size of a run.
struct Scale {
    connections: usize,
    /// Clients of a flood of agents, and of one of another surface, whose limit is 64.
    agents: usize,
    others: usize,
    /// Each client of a flood connects again after this.
    pause: Duration,
    time: Duration,
    memory_mib: usize,
}

/// A program with a linked account `a`, and what the floods need.
struct Target {
    program: Program,
    agents: SocketAddr,
    page: SocketAddr,
    ops: SocketAddr,
    _upstream: upstream::SilentUpstream,
    _scratch: Scratch,
    scale: Scale,
}

fn is_long() -> bool {
    std::env::var("PIXY_LONG").as_deref() == Ok("1") && !cfg!(debug_assertions)
}

fn scale() -> Scale {
    if is_long() {
        Scale {
            connections: 1024,
            agents: 10 * 1024,
            others: 10 * 64,
            pause: Duration::from_secs(1),
            time: Duration::from_secs(30),
            memory_mib: 128,
        }
    } else {
        Scale {
            connections: 64,
            agents: 10 * 64,
            others: 10 * 64,
            pause: Duration::from_millis(250),
            time: Duration::from_secs(1),
            memory_mib: 128,
        }
    }
}

impl Target {
    async fn start(with_keys: bool) -> Self {
        Self::start_by(&[], with_keys).await
    }

    /// As [`Target::start`], run by another program with these arguments before Pixy's command line.
    async fn start_by(words: &[&str], with_keys: bool) -> Self {
        let scale = scale();
        let (endpoint, scratch) = (TokenEndpoint::start().await, Scratch::new());
        let upstream = upstream::SilentUpstream::start();
        let mut account = oauth_account(&endpoint, &Upstream::start().await);
        account["profile"]["api"]["base_url"] = json!(upstream.url());
        account["profile"]["api"]["websocket"] = json!(["/v1/responses"]);
        let key = |name, key: &str| {
            let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "name": name, "sha256": digest, "accounts": ["a"] })
        };
        let keys = if with_keys { json!([key("hostile", HOSTILE), key("polite", POLITE_KEY)]) } else { json!([]) };
        let more = json!({
            "agent": { "listen": "127.0.0.1:0", "keys": keys },
            "limits": { "connections": scale.connections, "memory": format!("{}MiB", scale.memory_mib) },
        });
        let config = scratch.config_with(&json!({ "a": account }), &more);
        let program = Program::start_by(words, &scratch, &config).await;
        program.link(&endpoint).await;
        let printed = |label: &str| -> SocketAddr {
            let output = program.startup_output();
            let line = output.lines().find_map(|line| line.trim_start().strip_prefix(label)).expect(label);
            let address = line.trim_start().trim_start_matches("http://").split('/').next();
            address.and_then(|text| text.parse().ok()).expect("an address")
        };
        let (agents, page, ops) = (program.agents(), printed("you "), printed("probes "));
        Self { agents, page, ops, program, _upstream: upstream, _scratch: scratch, scale }
    }

    fn address(&self, port: Port) -> SocketAddr {
        match port {
            Port::Agents => self.agents,
            Port::Page => self.page,
            Port::Ops => self.ops,
        }
    }

    /// Floods a port and measures Pixy meanwhile.
    async fn flood(&self, flood: Flood, port: Port) -> Figures {
        let (pid, agents, ops) = (self.program.id(), self.agents, self.ops);
        let clients = if port == Port::Agents { self.scale.agents } else { self.scale.others };
        let (address, time) = (self.address(port), self.scale.time);
        let running = clients::start(flood, address, clients, self.scale.pause);
        let figures = tokio::task::spawn_blocking(move || probes::measure(pid, agents, ops, time)).await.unwrap();
        running.stop();
        figures
    }

    /// Floods ports one after the other; each must leave Pixy within its bounds.
    async fn endures(&self, floods: &[(Flood, Port)]) {
        println!(
            "{:<14} {:<7} {:>9} {:>11} {:>11} {:>7}",
            "flood", "port", "peak MiB", "livez ms", "polite ms", "served"
        );
        let mut failures = Vec::new();
        for &(flood, port) in floods {
            let figures = self.flood(flood, port).await;
            let Figures { peak, livez, polite, served, failed } = &figures;
            let ms = |time: &Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
            let (flood, port) = (format!("{flood:?}"), format!("{port:?}"));
            println!(
                "{flood:<14} {port:<7} {:>9.1} {:>11} {:>11} {served:>7}{}",
                f64::from(u32::try_from(*peak >> 10).unwrap_or(u32::MAX)) / 1024.0,
                ms(livez),
                ms(polite),
                failed.as_deref().map(|why| format!("  {why}")).unwrap_or_default()
            );
            let fits = *peak < self.scale.memory_mib << 20
                && *livez < LIVEZ * LIVEZ_SLACK
                && *polite < POLITE * POLITE_SLACK
                && *served > 0
                && failed.is_none();
            if !fits {
                failures.push(format!("{flood} at {port}: {figures:?}"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_81_heads_and_connections_stay_within_memory() {
    use Flood::{Connections, Fields, Paths, Pipelining, SlowHeads};
    let every = [SlowHeads, Connections, Paths, Fields, Pipelining];
    let floods: Vec<_> =
        [Port::Agents, Port::Page, Port::Ops].into_iter().flat_map(|port| every.map(|flood| (flood, port))).collect();
    Target::start(true).await.endures(&floods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_82_kept_bodies_and_slow_readers_stay_within_memory() {
    let target = Target::start(true).await;
    let floods = [
        (Flood::KeptBodies, Port::Agents),
        (Flood::SlowReaders, Port::Agents),
        (Flood::SlowReaders, Port::Page),
        (Flood::SlowReaders, Port::Ops),
    ];
    target.endures(&floods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_83_a_polite_agent_is_served_beside_waiters() {
    let target = Target::start(true).await;
    target.endures(&[(Flood::SlowBodies, Port::Agents), (Flood::WebSockets, Port::Agents)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_83_without_keys_stalled_clients_make_room() {
    use Flood::{Connections, Fields, SlowBodies, SlowHeads, SlowReaders, WebSockets};
    let every = [SlowHeads, SlowBodies, SlowReaders, WebSockets, Connections, Fields];
    Target::start(false).await.endures(&every.map(|flood| (flood, Port::Agents))).await;
}

/// The limit of the example for Kubernetes, in bytes.
fn kubernetes_limit() -> usize {
    let example = std::fs::read_to_string("examples/kubernetes/base/deployment.yaml").unwrap();
    let limit = example.split("limits: { memory: ").nth(1).and_then(|rest| rest.split("Mi").next());
    limit.and_then(|number| number.parse::<usize>().ok()).expect("it has one in Mi") << 20
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_82_the_kubernetes_limit_suffices() {
    // Besides the process, its part of the page cache and the kernel's socket buffers count.
    let Some(group) = ControlGroup::new(kubernetes_limit()) else {
        println!("skipped: this machine lets the test make no control group with a memory limit");
        return;
    };
    let directory = group.0.to_str().unwrap();
    let words = ["sh", "-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"", directory];
    let target = Target::start_by(&words, true).await;
    target
        .endures(&[
            (Flood::KeptBodies, Port::Agents),
            (Flood::SlowReaders, Port::Agents),
            (Flood::Fields, Port::Agents),
        ])
        .await;
    drop(target);
}

/// A control group with a memory limit (cgroups(7), version 1 or 2), removed when dropped.
struct ControlGroup(std::path::PathBuf);

impl ControlGroup {
    fn new(bytes: usize) -> Option<Self> {
        let name = format!("pixy-test-{}", std::process::id());
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(
            |(parent, limit)| {
                let group = Self(std::path::Path::new(parent).join(&name));
                std::fs::create_dir(&group.0).ok()?;
                // The file exists if the controller does: it must not be created.
                let limited =
                    group.0.join(limit).exists() && std::fs::write(group.0.join(limit), bytes.to_string()).is_ok();
                limited.then_some(group)
            },
        )
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20)); // the process has not ended yet
        }
    }
}
