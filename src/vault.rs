//! The vault: one sealed record an account, on files.

use std::path::PathBuf;

/// Where records are kept and what opens them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where records are.
    pub store: StoreSettings,
    /// What opens them.
    pub key: KeySettings,
    /// A directory apart from the store, for what must not be rolled back with it (the generation high-water mark).
    pub state_dir: PathBuf,
}

/// Where records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// One file an account in this directory.
    Files(PathBuf),
    /// A table; the URL is read from this file.
    Postgres {
        /// Holds the database URL, password included.
        url_file: PathBuf,
    },
}

/// What opens records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySettings {
    /// A key file, made on first start.
    File(PathBuf),
    /// A passphrase, stretched with Argon2id.
    Passphrase(PathBuf),
}
