//! Speaks to the running Pixy over its control socket.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::{Failure, told};
use crate::config::{self, Config, Faults};
use crate::link::Problem;

/// The running Pixy.
pub(super) struct Control {
    socket: PathBuf,
    /// What is wrong with the file that says where it is.
    faults: Option<Faults>,
}

/// An answer that is not what was asked for.
pub(super) enum Refused {
    /// Pixy says why; the person may be able to go on.
    Problem(Problem),
    /// Pixy was not reached.
    Failure(Failure),
}

/// Answers are small; the largest lists all accounts.
const LARGEST: usize = 4 << 20;

impl Control {
    /// The Pixy of this configuration.
    pub(super) fn of(config: &Config) -> Self {
        Self { socket: config.state_dir.join("control.sock"), faults: None }
    }

    /// The Pixy of this file (else of where a configuration is looked for). A file with faults is no reason not to find it: it
    /// serves on by what it took up before.
    pub(super) fn find(file: Option<&Path>) -> Result<Self, Failure> {
        let faults = match config::load(file) {
            Ok(config) => return Ok(Self::of(&config)),
            Err(faults) => faults,
        };
        match config::state_dir(file) {
            Some(state_dir) => Ok(Self { socket: state_dir.join("control.sock"), faults: Some(faults) }),
            None => Err(Failure::Usage(faults.to_string())),
        }
    }

    /// What is wrong with the file, as it is now.
    pub(super) fn faults(&self) -> Option<&Faults> {
        self.faults.as_ref()
    }

    /// One call of the JSON API.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_running(&error))?;
        let broken = |error: &dyn std::fmt::Display| {
            Refused::Failure(Failure::Runtime(format!(
                "Pixy answered on {} and then did not ({error})",
                self.socket.display()
            )))
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(connection);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let bytes =
            Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| broken(&error))?.to_bytes();
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| broken(&error))?;
        if status.is_success() {
            return Ok(document);
        }
        Err(match serde_json::from_value(document) {
            Ok(problem) => Refused::Problem(problem),
            Err(error) => broken(&error),
        })
    }

    fn not_running(&self, error: &std::io::Error) -> Refused {
        let socket = self.socket.display();
        if let Some(faults) = &self.faults {
            let consequence =
                format!("and no Pixy was reached that serves by an earlier version (on {socket}: {error})");
            return Refused::Failure(Failure::Usage(faults.told(&consequence)));
        }
        let text = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                format!(
                    "no Pixy is running with this configuration (nothing answers on {socket}). Start it with `pixy serve`"
                )
            }
            std::io::ErrorKind::PermissionDenied => {
                format!(
                    "the control socket {socket} belongs to another user. Run this command as the user that runs Pixy"
                )
            }
            _ => format!("the control socket {socket} cannot be used: {error}"),
        };
        Refused::Failure(Failure::Runtime(text))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Problem(problem) => Self::Runtime(told(&problem)),
            Refused::Failure(failure) => failure,
        }
    }
}
