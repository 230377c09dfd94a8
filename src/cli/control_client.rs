//! Calls the running Pixy over its control socket.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{CommandError, problem_text};
use crate::api::{self, AccountStatus, Call, Problem};
use crate::config::{self, Config, Faults};

/// The control socket of the running Pixy.
pub(super) struct ControlClient {
    socket: PathBuf,
    /// What is wrong with the configuration that names the socket.
    faults: Option<Faults>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// Pixy answered with a problem.
    Problem(Problem),
    /// The control socket cannot be connected to.
    NotConnected { socket: PathBuf, error: std::io::Error, faults: Option<Faults> },
    /// Another user answers on the control socket. Nothing was sent.
    Stranger { socket: PathBuf, uid: u32 },
    /// The connection failed, or what came over it is not HTTP.
    Interrupted { socket: PathBuf, error: Box<dyn std::error::Error + Send + Sync> },
    /// The answer is not what this version of the call returns.
    OtherVersion(serde_json::Error),
}

/// Answers are small; the largest lists all accounts.
const MAX_ANSWER_BYTES: usize = 4 << 20;

impl ControlClient {
    /// The Pixy of this configuration.
    pub(super) fn new(config: &Config) -> Self {
        Self { socket: config.state_dir.join("control.sock"), faults: None }
    }

    /// The Pixy of this file, or of the default one. A file with faults still names the socket: Pixy keeps serving with the
    /// configuration that it applied before.
    pub(super) fn find(file: Option<&Path>) -> Result<Self, CommandError> {
        let faults = match config::load(file) {
            Ok(config) => return Ok(Self::new(&config)),
            Err(faults) => faults,
        };
        match config::state_dir(file) {
            Some(state_dir) => Ok(Self { socket: state_dir.join("control.sock"), faults: Some(faults) }),
            None => Err(CommandError::Usage(faults.to_string())),
        }
    }

    /// What is wrong with the file, as it is now.
    pub(super) fn faults(&self) -> Option<&Faults> {
        self.faults.as_ref()
    }

    /// Makes a call; `parameter` is the value of the path parameter, if the call has one.
    pub(super) async fn call<C: Call>(&self, parameter: &str, request: &C::Request) -> Result<C::Answer, CallError> {
        let body = serde_json::to_vec(request).map_err(|error| self.interrupted(error))?;
        let body = if body == b"null" { Bytes::new() } else { body.into() };
        let request = Request::builder()
            .method(C::METHOD)
            .uri(api::path_of::<C>(parameter))
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.interrupted(error))?;
        let (status, body) = self.exchange(request).await?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(CallError::OtherVersion);
        }
        Err(serde_json::from_slice(&body).map_or_else(CallError::OtherVersion, CallError::Problem))
    }

    /// The status of one account.
    pub(super) async fn account(&self, name: &str) -> Result<AccountStatus, CommandError> {
        let mut accounts = self.call::<api::ListAccounts>("", &()).await?;
        if let Some(index) = accounts.iter().position(|account| account.name == name) {
            return Ok(accounts.swap_remove(index));
        }
        let names: Vec<_> = accounts.iter().map(|account| account.name.as_str()).collect();
        let names = names.join(", ");
        Err(CommandError::Runtime(format!("there is no account \"{name}\"; the configuration has {names}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CallError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(error))?;
        let uid = stream.peer_cred().map_err(|error| self.not_connected(error))?.uid();
        if !self.may_answer(uid) {
            return Err(CallError::Stranger { socket: self.socket.clone(), uid });
        }
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.interrupted(error))?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.interrupted(error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| CallError::Interrupted { socket: self.socket.clone(), error })?;
        Ok((status, body.to_bytes()))
    }

    /// Whether a Pixy of this user may get secrets: root's and the caller's own may; from root, also that of the owner of
    /// `state_dir`. Whoever may write to that directory, or to one above it, can put another socket there.
    fn may_answer(&self, uid: u32) -> bool {
        let us = rustix::process::geteuid().as_raw();
        let owner =
            || self.socket.parent().and_then(|directory| directory.symlink_metadata().ok()).map(|found| found.uid());
        uid == 0 || uid == us || (us == 0 && owner() == Some(uid))
    }

    fn not_connected(&self, error: std::io::Error) -> CallError {
        CallError::NotConnected { socket: self.socket.clone(), error, faults: self.faults.clone() }
    }

    fn interrupted(&self, error: impl std::error::Error + Send + Sync + 'static) -> CallError {
        CallError::Interrupted { socket: self.socket.clone(), error: error.into() }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => f.write_str(&problem_text(problem)),
            Self::NotConnected { socket, error, faults: Some(faults) } => {
                let consequence = format!(
                    "and no Pixy was reached that still serves with an earlier version (on {}: {error})",
                    socket.display()
                );
                f.write_str(&faults.with_consequence(&consequence))
            }
            Self::NotConnected { socket, error, faults: None } => {
                let socket = socket.display();
                match error.kind() {
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => write!(
                        f,
                        "no Pixy is running with this configuration (nothing listens on {socket}). Start it with `pixy serve`"
                    ),
                    std::io::ErrorKind::PermissionDenied => write!(
                        f,
                        "the control socket {socket} belongs to another user. Run this command as the user that runs Pixy"
                    ),
                    _ => write!(f, "the control socket {socket} cannot be used: {error}"),
                }
            }
            Self::Stranger { socket, uid } => {
                let (socket, us) = (socket.display(), rustix::process::geteuid().as_raw());
                write!(
                    f,
                    "user id {uid} answers on the control socket {socket}, but this command runs as {us}: nothing was sent. Run it \
                     as the user that runs Pixy. If that is not {uid}, another program has taken the socket's place: let only \
                     Pixy's user write to its directory"
                )
            }
            Self::Interrupted { socket, error } => {
                write!(f, "the connection to Pixy on {} failed ({error})", socket.display())
            }
            Self::OtherVersion(error) => write!(
                f,
                "the running Pixy is of another version than this command ({error}). Restart it, or use its own program"
            ),
        }
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotConnected { faults: Some(_), .. } => Self::Usage(error.to_string()),
            _ => Self::Runtime(error.to_string()),
        }
    }
}
