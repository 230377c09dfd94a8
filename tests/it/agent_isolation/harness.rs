//! A linked Pixy that runs as a user of its own, and agents on the same machine.

use std::fs::{self, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::agent::listening;
use super::namespaces_are_missing;
use crate::support::{Pixy, Program, RawClient, Scratch, TokenEndpoint, Upstream, oauth_account};

/// The user that Pixy runs as, and the agent's.
pub(super) const PIXY: u32 = 64_701;
pub(super) const AGENT: u32 = 64_702;

const STATIC_KEY: &str = "marked-static-key-0-1";

/// Pixy with three accounts: `a` by OAuth, `k` by a key, and `n` by a key with a host name as upstream.
pub(super) struct Harness {
    pub(super) endpoint: TokenEndpoint,
    pub(super) upstream: Upstream,
    pub(super) scratch: Scratch,
    pub(super) program: Program,
    /// The name and value of each secret.
    canaries: Vec<(String, String)>,
    /// Every port that listened before Pixy started.
    pub(super) ports_of_fakes: Vec<u16>,
    ops: std::net::SocketAddr,
    public: TempDir,
}

impl Harness {
    pub(super) async fn new() -> Self {
        let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
        let ports_of_fakes = listening();
        let by_key =
            |url: String| json!({ "provider": "openai-compatible", "profile": { "api": { "base_url": url } } });
        let named = format!("http://localhost:{}", upstream.address().port());
        let accounts = json!({
            "a": oauth_account(&endpoint, &upstream), "k": by_key(upstream.url()), "n": by_key(named),
        });
        let ops = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let scratch = Scratch::new();
        let agents = json!(["127.0.0.1:0", { "address": format!("unix:{}", scratch.path("agent.sock").display()), "mode": "0660" }]);
        let more = json!({ "ops": { "listen": ops.to_string() }, "agent": { "listen": agents } });
        let pixy = Pixy::at(scratch, &accounts, &more).await;
        pixy.link(&endpoint).await;
        for name in ["k", "n"] {
            pixy.post(&format!("/api/accounts/{name}/key"), json!({ "key": STATIC_KEY })).await;
        }
        // The real binary continues with the files, as their new owner.
        let (scratch, config) = pixy.dismantle().await;
        for path in [scratch.path(""), scratch.path("state"), scratch.path("vault")].into_iter().chain(scratch.files())
        {
            chown(path, Some(PIXY), Some(PIXY)).unwrap();
        }
        // The parent directory is open, so that the permissions of each file count.
        fs::set_permissions(scratch.path(""), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
        let public = public();
        let binary = publish(assert_cmd::cargo::cargo_bin!("pixy"), &public.path().join("pixy"));
        let config = config.to_str().unwrap();
        let command = with_cores(PIXY, binary.to_str().unwrap(), &["--config", config], &scratch.path(""));
        let program = Program::spawn(command.into(), &scratch).await;
        let key = fs::read_to_string(scratch.path("key")).unwrap();
        let canaries = [
            ("access token", "marked-access-0-1"),
            ("refresh token", "marked-refresh-0-1"),
            ("static key", STATIC_KEY),
            ("vault key", key.trim()),
        ];
        let canaries = canaries.map(|(name, canary)| (name.to_owned(), canary.to_owned())).to_vec();
        Self { endpoint, upstream, scratch, program, canaries, ports_of_fakes, ops, public }
    }

    /// Runs a task of `agent.rs` as `user` and returns its summary; panics if the task fails.
    pub(super) fn agent(&self, user: u32, task: &str, more: &Value) -> String {
        self.agent_of(user, user, task, more)
    }

    /// As [`Harness::agent`], with the group `group`.
    pub(super) fn agent_of(&self, user: u32, group: u32, task: &str, more: &Value) -> String {
        let binary = publish(&std::env::current_exe().unwrap(), &self.public.path().join("agent"));
        let mut task = json!({ "do": task, "canaries": self.canaries });
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let output = Command::new("timeout")
            .arg("30")
            .arg(binary)
            .args(["--exact", "agent_isolation::the_agent", "--ignored", "--nocapture"])
            .env("PIXY_AGENT", task.to_string())
            .current_dir("/")
            .uid(user)
            .gid(group)
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        let (_, summary) = stdout.split_once("agent: ").expect("the task prints a summary");
        let identity = match (user, group) {
            (AGENT, AGENT) => "another user",
            (AGENT, _) => "another user of Pixy's group",
            _ => "Pixy's own user",
        };
        format!("as {identity}: {}", summary.lines().next().unwrap())
    }

    pub(super) async fn accounts(&self) -> Value {
        self.program.api(Method::GET, "/api/accounts").await.expect("Pixy answers")
    }

    pub(super) async fn metrics(&self) -> String {
        let request = "GET /metrics HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n";
        String::from_utf8(RawClient::once(self.ops, request).await.unwrap().body).unwrap()
    }

    pub(super) fn assert_clean(&self, place: &str, bytes: &[u8]) {
        for (name, canary) in &self.canaries {
            assert_eq!(count(bytes, canary.as_bytes()), 0, "{place} holds the {name}");
        }
    }

    /// The number of copies of each secret in Pixy's memory, read as root.
    pub(super) fn in_memory(&self) -> Vec<(String, usize)> {
        let process = self.program.id();
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let mut memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
        let mut counted: Vec<_> = self.canaries.iter().map(|(name, _)| (name.clone(), 0)).collect();
        for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[vvar")) {
            let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
            let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut bytes = Vec::new();
            memory.seek(SeekFrom::Start(from)).unwrap();
            if (&mut memory).take(to - from).read_to_end(&mut bytes).is_err() && bytes.is_empty() {
                continue; // a guard page
            }
            for ((_, canary), (_, hits)) in self.canaries.iter().zip(&mut counted) {
                *hits += count(&bytes, canary.as_bytes());
            }
        }
        counted
    }
}

/// Runs `body` in a network namespace of its own, by running this test again in one.
pub(super) fn in_a_namespace(name: &str, body: impl AsyncFnOnce()) {
    if std::env::var_os("PIXY_IN_A_NAMESPACE").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(body());
    }
    if namespaces_are_missing() {
        return;
    }
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", "ip link set lo up && exec timeout 60 \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("agent_isolation::{name}"), "--nocapture"])
        .env("PIXY_IN_A_NAMESPACE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test ran: {said}");
    said.lines().filter(|line| line.starts_with("  ")).for_each(|line| println!("{line}"));
}

/// A command that runs as `user` without a limit on the size of core files.
pub(super) fn with_cores(user: u32, program: &str, arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\"", program]).args(arguments);
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(directory).uid(user).gid(user);
    command
}

/// A directory that every user may write to, removed after the test.
pub(super) fn public() -> TempDir {
    let open = Permissions::from_mode(0o777);
    let directory = tempfile::Builder::new().prefix("pixy-test-").tempdir().unwrap();
    fs::set_permissions(directory.path(), open).unwrap();
    directory
}

/// Links or copies a program to a path where every user may execute it.
fn publish(program: &Path, path: &Path) -> PathBuf {
    if !path.exists() && fs::hard_link(program, path).is_err() {
        fs::copy(program, path).unwrap();
    }
    path.to_owned()
}

pub(super) fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, wanted).count()
}
