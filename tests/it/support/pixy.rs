//! A whole Pixy in the test process, on ports that the system chose.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use pixy::account::Account;
use pixy::app::{self, Running};
use pixy::config::{self, Env};
use pixy::server::Address;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{RawClient, RawResponse, Scratch, TokenEndpoint, oauth_account, within};
use crate::support::Upstream;

/// A running Pixy. Dropping it acts as a crash: every task is aborted.
pub(crate) struct Pixy {
    running: Running,
    pub(crate) scratch: Scratch,
    config: PathBuf,
}

impl Pixy {
    /// Starts with these accounts.
    pub(crate) async fn start(accounts: &Value) -> Self {
        Self::with(accounts, &json!({})).await
    }

    /// Starts with these accounts and top-level keys.
    pub(crate) async fn with(accounts: &Value, more: &Value) -> Self {
        Self::at(Scratch::new(), accounts, more).await
    }

    /// As [`Pixy::with`], in a directory whose path `more` may contain.
    pub(crate) async fn at(scratch: Scratch, accounts: &Value, more: &Value) -> Self {
        let config = scratch.config_with(accounts, more);
        Self { running: run(&config).await, scratch, config }
    }

    /// Starts with one account `a`, linked at `endpoint`, for `upstream`.
    pub(crate) async fn linked(endpoint: &TokenEndpoint, upstream: &Upstream) -> Self {
        let pixy = Self::start(&json!({ "a": oauth_account(endpoint, upstream) })).await;
        pixy.link(endpoint).await;
        pixy
    }

    /// Shuts down and starts again on the same files.
    pub(crate) async fn restart(self) -> Self {
        let Self { running, scratch, config } = self;
        within(running.stop()).await.expect("nothing is under way");
        Self { running: run(&config).await, scratch, config }
    }

    /// Crashes and starts again on the same files.
    pub(crate) async fn crash(self) -> Self {
        let Self { running, scratch, config } = self;
        drop(running);
        // A blocking file operation continues in its thread until its system call returns; the vault lock shows when.
        for _ in 0..200 {
            if let Ok(running) = app::start(parse(&config)).await {
                return Self { running: loaded(running).await, scratch, config };
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the vault stays locked");
    }

    /// Shuts down; returns its files and its configuration for another Pixy.
    pub(crate) async fn dismantle(self) -> (Scratch, PathBuf) {
        let Self { running, scratch, config } = self;
        within(running.stop()).await.expect("nothing is under way");
        (scratch, config)
    }

    /// SIGTERM.
    pub(crate) async fn stop(self) -> Result<(), app::RefreshNotFinished> {
        within(self.running.stop()).await
    }

    /// Rewrites the file with these accounts and top-level keys, and reloads.
    pub(crate) async fn reload(&mut self, accounts: &Value, more: &Value) -> Result<(), String> {
        self.scratch.config_with(accounts, more);
        within(self.running.reload(&Env::default())).await.map_err(|error| error.to_string())
    }

    /// Rewrites the file with this text, and reloads.
    pub(crate) async fn reload_text(&mut self, text: &str) -> Result<(), String> {
        self.scratch.write("pixy.yaml", text);
        within(self.running.reload(&Env::default())).await.map_err(|error| error.to_string())
    }

    /// The first agent listener.
    pub(crate) fn agents(&self) -> SocketAddr {
        tcp(&self.running.agents[0])
    }

    /// All agent listeners, in the order of the file.
    pub(crate) fn all_agents(&self) -> &[Address] {
        &self.running.agents
    }

    /// The page.
    pub(crate) fn page(&self) -> SocketAddr {
        tcp(self.running.page.as_ref().expect("the page is on"))
    }

    /// Probes and metrics.
    pub(crate) fn ops(&self) -> SocketAddr {
        tcp(&self.running.ops)
    }

    pub(crate) fn account(&self, name: &str) -> Arc<Account> {
        self.running.accounts.find(name).expect("it is configured")
    }

    /// Calls the JSON API over the control socket; returns status and body.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        control(&self.running.control, method, path, body).await.expect("Pixy answers")
    }

    /// `POST` over the control socket; must succeed.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        post(&self.running.control, path, body).await
    }

    /// Links account `a` by a pasted code.
    pub(crate) async fn link(&self, endpoint: &TokenEndpoint) {
        link(&self.running.control, endpoint).await;
    }

    /// The account as the API shows it.
    pub(crate) async fn shown(&self, name: &str) -> Value {
        let (_, accounts) = self.api(Method::GET, "/api/accounts", Value::Null).await;
        let found = accounts.as_array().unwrap().iter().find(|account| account["name"] == name);
        found.expect("it is configured").clone()
    }

    /// Sends `GET path` as an agent.
    pub(crate) async fn get(&self, path: &str) -> RawResponse {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n")).await
    }

    /// Sends these bytes as an agent; returns one response.
    pub(crate) async fn send(&self, bytes: &str) -> RawResponse {
        RawClient::once(self.agents(), bytes).await.expect("Pixy answers")
    }
}

/// Calls the JSON API over a control socket; `None` if Pixy ends before it answers.
pub(super) async fn control(socket: &Path, method: Method, path: &str, body: Value) -> Option<(u16, Value)> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let response = within(sender.send_request(request)).await.ok()?;
    let status = response.status().as_u16();
    let bytes = within(response.into_body().collect()).await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// `POST` over a control socket; must succeed.
pub(super) async fn post(socket: &Path, path: &str, body: Value) -> Value {
    let (status, answer) = control(socket, Method::POST, path, body).await.expect("Pixy answers");
    assert!(status < 300, "{path}: {answer:#}");
    answer
}

/// Links account `a` by a pasted code.
pub(super) async fn link(socket: &Path, endpoint: &TokenEndpoint) {
    let begun = post(socket, "/api/accounts/a/attempts", Value::Null).await;
    let consent = endpoint.consent(begun["authorize_url"].as_str().unwrap());
    let id = begun["attempt"].as_str().unwrap();
    let text = format!("{}#{}", consent.code, consent.state);
    post(socket, &format!("/api/attempts/{id}/paste"), json!({ "text": text })).await;
    post(socket, &format!("/api/attempts/{id}/confirm"), Value::Null).await;
}

async fn run(config: &Path) -> Running {
    let running = app::start(parse(config)).await.unwrap_or_else(|error| panic!("{error}"));
    loaded(running).await
}

/// Waits until the accounts have read the vault.
async fn loaded(running: Running) -> Running {
    for account in running.accounts.iter() {
        let read = async {
            while account.view().state == pixy::account::State::Starting {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        within(read).await;
    }
    running
}

fn parse(config: &Path) -> pixy::config::Config {
    let text = std::fs::read_to_string(config).unwrap();
    config::parse(&text, Some(config.to_owned()), &Env::default()).unwrap_or_else(|faults| panic!("{faults}"))
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{} is no TCP address", path.display()),
    }
}
