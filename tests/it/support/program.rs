//! The real binary, as a process of its own: for what only a process can suffer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use http::Method;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{RawClient, RawResponse, Scratch, TokenEndpoint, pixy, within};

/// A running `pixy --config …`. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    control: PathBuf,
    agents: SocketAddr,
    told: String,
}

impl Program {
    /// Starts it and waits until it has read its logins and says where agents connect.
    pub(crate) async fn start(scratch: &Scratch, config: &Path) -> Self {
        Self::start_as(&[], scratch, config, &[]).await
    }

    /// The same, with these variables in its environment.
    pub(crate) async fn start_in(scratch: &Scratch, config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_as(&[], scratch, config, environment).await
    }

    /// The same, started by another program: its words come first, and ours are its last ones.
    pub(crate) async fn start_by(words: &[&str], scratch: &Scratch, config: &Path) -> Self {
        Self::start_as(words, scratch, config, &[]).await
    }

    async fn start_as(words: &[&str], scratch: &Scratch, config: &Path, environment: &[(&str, &str)]) -> Self {
        let program = assert_cmd::cargo::cargo_bin!("pixy");
        let mut command = match words.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().envs(environment.iter().copied()).arg("--config").arg(config);
        Self::spawn(command, scratch).await
    }

    /// The same, by a command of the test's own.
    pub(crate) async fn spawn(mut command: Command, scratch: &Scratch) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary is built");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut told = String::new();
        let agents = loop {
            let Some(line) = within(lines.next_line()).await.expect("it is text") else {
                panic!("Pixy did not start:\n{told}");
            };
            if let Some(rest) = line.strip_prefix("  agents   http://") {
                break rest.split('/').next().and_then(|text| text.parse().ok()).expect("an address");
            }
            told = told + &line + "\n";
        };
        while !told.contains("\n  linked ") {
            let Some(line) = within(lines.next_line()).await.expect("it is text") else { break };
            told = told + &line + "\n";
        }
        // What it says later is read as well: a full pipe would hold it up.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, control: scratch.path("state").join("control.sock"), agents, told }
    }

    /// Where agents connect.
    pub(crate) fn agents(&self) -> SocketAddr {
        self.agents
    }

    /// Its process id, which is also its main thread's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// What it said when it started.
    pub(crate) fn told(&self) -> &str {
        &self.told
    }

    /// Waits until it has ended by itself, or by somebody else's signal.
    pub(crate) async fn ended(mut self) -> std::process::ExitStatus {
        within(self.child.wait()).await.expect("it is our child")
    }

    /// The ids of the runtime's other threads, the oldest first; the allocator has one of its own.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it runs");
        let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        let name = |id: u32| std::fs::read_to_string(format!("/proc/{}/task/{id}/comm", self.id())).unwrap_or_default();
        let mut ids: Vec<u32> = ids.filter(|&id| id != self.id() && name(id).starts_with("tokio")).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// `kill -9`, and waits for the end.
    pub(crate) async fn kill(mut self) {
        within(self.child.kill()).await.expect("it is our child");
    }

    /// One call of the JSON API over the control socket; `None` when it dies of it.
    pub(crate) async fn api(&self, method: Method, path: &str) -> Option<Value> {
        pixy::control(&self.control, method, path, Value::Null).await.map(|(_, answer)| answer)
    }

    /// `POST` over the control socket that must succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        pixy::post(&self.control, path, body).await
    }

    /// Links account `a` by a pasted code, the whole way.
    pub(crate) async fn link(&self, endpoint: &TokenEndpoint) {
        pixy::link(&self.control, endpoint).await;
    }

    /// Account `a` as the API tells it.
    pub(crate) async fn shown(&self) -> Value {
        let accounts = self.api(Method::GET, "/api/accounts").await.expect("Pixy answers");
        accounts[0].clone()
    }

    /// `GET` of a path, as an agent.
    pub(crate) async fn get(&self, path: &str) -> RawResponse {
        let request = format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n");
        RawClient::once(self.agents, request).await.expect("Pixy answers")
    }
}
