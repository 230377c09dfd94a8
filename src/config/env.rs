//! The one door to the environment.

use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// What a configuration takes from the environment; a value, so that tests need none.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `HOME`, which `~` stands for.
    pub home: Option<PathBuf>,
    /// `PIXY_CONFIG`: the file, when the command line names none.
    pub config: Option<PathBuf>,
    /// Where a service manager puts secrets, most wanted first: `CREDENTIALS_DIRECTORY`, `/run/secrets`.
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

    /// The vault's key as a service manager or an orchestrator hands it over.
    pub(super) fn mounted_key(&self) -> Option<PathBuf> {
        self.secret_directories.iter().map(|directory| directory.join("pixy-key")).find(|file| file.is_file())
    }
}

/// Every variable of this process, for `pixy doctor`, which looks for forgotten credentials among them.
pub fn variables() -> Vec<(String, Secret)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), Secret::new(text(value)))).collect()
}

/// One variable, if it is set to anything: for what a terminal is shown, which depends on where it is.
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    Some(value.to_string_lossy().into_owned())
}
