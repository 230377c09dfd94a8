//! Where the vault is and what opens it.

use std::path::PathBuf;

/// Where the vault is and what opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSettings {
    /// One sealed file per account in this directory.
    pub directory: PathBuf,
    /// The source of the key.
    pub key: KeySettings,
    /// A directory outside the vault, for what must not be rolled back with it (the high-water marks).
    pub state_dir: PathBuf,
}

/// The source of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySettings {
    /// A key file, created on the first start.
    File(PathBuf),
    /// A file with a passphrase, stretched with Argon2id.
    Passphrase(PathBuf),
}
