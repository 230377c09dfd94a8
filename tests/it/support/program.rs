//! The binary as a process, for tests of signals, crashes, confinement and output.

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
    startup_output: String,
}

impl Program {
    /// Starts it and waits until it has read its logins and printed its addresses.
    pub(crate) async fn start(scratch: &Scratch, config: &Path) -> Self {
        Self::start_as(&[], scratch, config, &[]).await
    }

    /// As [`Program::start`], with these environment variables.
    pub(crate) async fn start_in(scratch: &Scratch, config: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_as(&[], scratch, config, environment).await
    }

    /// As [`Program::start`], run by another program with these arguments before Pixy's command line.
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

    /// As [`Program::start`], with this command.
    pub(crate) async fn spawn(mut command: Command, scratch: &Scratch) -> Self {
        command.stdin(Stdio::null());
        Self::spawn_with_stdin(command, scratch).await
    }

    /// As [`Program::spawn`], with the standard input of the command.
    pub(crate) async fn spawn_with_stdin(mut command: Command, scratch: &Scratch) -> Self {
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("the binary is built");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut output = String::new();
        let agents = loop {
            let Some(line) = within(lines.next_line()).await.expect("it is text") else {
                panic!("Pixy did not start:\n{output}");
            };
            if let Some(rest) = line.strip_prefix("  agents   http://") {
                break rest.split('/').next().and_then(|text| text.parse().ok()).expect("an address");
            }
            output = output + &line + "\n";
        };
        while !output.contains("\n  linked ") {
            let Some(line) = within(lines.next_line()).await.expect("it is text") else { break };
            output = output + &line + "\n";
        }
        // Later output is read too: a full pipe would block Pixy.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, control: scratch.path("state").join("control.sock"), agents, startup_output: output }
    }

    /// Where agents connect.
    pub(crate) fn agents(&self) -> SocketAddr {
        self.agents
    }

    /// Its process id, and the id of its main thread.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// What it printed at the start.
    pub(crate) fn startup_output(&self) -> &str {
        &self.startup_output
    }

    /// Waits until it has ended by itself or by a signal.
    pub(crate) async fn ended(mut self) -> std::process::ExitStatus {
        within(self.child.wait()).await.expect("it is our child")
    }

    /// The ids of the runtime's worker threads, the oldest first; excludes the main thread and the allocator's.
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

    /// Calls the JSON API over the control socket; `None` if Pixy ends before it answers.
    pub(crate) async fn api(&self, method: Method, path: &str) -> Option<Value> {
        pixy::control(&self.control, method, path, Value::Null).await.map(|(_, answer)| answer)
    }

    /// `POST` over the control socket; must succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        pixy::post(&self.control, path, body).await
    }

    /// Links account `a` by a pasted code.
    pub(crate) async fn link(&self, endpoint: &TokenEndpoint) {
        pixy::link(&self.control, endpoint).await;
    }

    /// The first account as the API shows it.
    pub(crate) async fn shown(&self) -> Value {
        let accounts = self.api(Method::GET, "/api/accounts").await.expect("Pixy answers");
        accounts[0].clone()
    }

    /// Sends `GET path` as an agent.
    pub(crate) async fn get(&self, path: &str) -> RawResponse {
        let request = format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n");
        RawClient::once(self.agents, request).await.expect("Pixy answers")
    }
}
