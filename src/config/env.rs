//! Reads the environment; no other module does.

use std::path::{Path, PathBuf};

use listenfd::ListenFd;

use crate::secret::Secret;
use crate::server::PassedSocket;

/// The variables that a configuration depends on, as a value that tests can make.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `HOME`, which `~` stands for.
    pub home: Option<PathBuf>,
    /// `PIXY_CONFIG`: the file, when the command line names none.
    pub config: Option<PathBuf>,
    /// Where a service manager mounts secrets, in order of preference: `CREDENTIALS_DIRECTORY`, `/run/secrets`.
    pub secret_directories: Vec<PathBuf>,
}

impl Env {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let secrets = path("CREDENTIALS_DIRECTORY").into_iter().chain([PathBuf::from("/run/secrets")]);
        Self {
            home: path("HOME").filter(|home| home.is_absolute()),
            config: path("PIXY_CONFIG"),
            secret_directories: secrets.collect(),
        }
    }

    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The vault's key, if a service manager or an orchestrator mounted one.
    pub(super) fn mounted_key(&self) -> Option<PathBuf> {
        self.secret_directories.iter().map(|directory| directory.join("pixy-key")).find(|file| file.is_file())
    }
}

/// Takes the listening sockets that a service manager passed to this process (sd_listen_fds(3)). Call it once, at the start.
///
/// # Errors
/// In words: a passed file is no listening stream socket.
pub fn passed_sockets() -> Result<Vec<PassedSocket>, String> {
    let own = variable("LISTEN_PID").is_some_and(|id| id == std::process::id().to_string());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    if !own || count == 0 {
        return Ok(Vec::new());
    }
    if count > MOST_SOCKETS {
        return Err(format!("LISTEN_FDS is {count}, but Pixy takes at most {MOST_SOCKETS} sockets"));
    }
    let mut passed = ListenFd::from_env();
    let mut take = |at: usize| {
        // A file of another kind stays where it is, for the next attempt.
        if let Ok(Some(socket)) = passed.take_unix_listener(at) {
            return PassedSocket::unix(socket);
        }
        passed.take_tcp_listener(at)?.map_or_else(|| Err(std::io::ErrorKind::InvalidInput.into()), PassedSocket::tcp)
    };
    let one =
        |at| take(at).map_err(|error| format!("file {} of LISTEN_FDS is no listening stream socket: {error}", at + 3));
    (0..count).map(one).collect()
}

/// Most sockets that a service manager may pass: more than the listeners of any configuration.
const MOST_SOCKETS: usize = 64;

/// All variables of this process, for `pixy doctor`, which searches them for credentials.
pub fn variables() -> Vec<(String, Secret)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), Secret::new(text(value)))).collect()
}

/// A variable that the output of a terminal depends on; `None` when unset or empty.
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    Some(value.to_string_lossy().into_owned())
}
