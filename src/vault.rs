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

// STUB
#[derive(Clone, Debug)]
pub struct Vault;
#[derive(Debug)]
pub enum VaultError {
    X,
}
impl std::fmt::Display for VaultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
impl std::error::Error for VaultError {}
pub struct Opened {
    pub generation: u64,
    pub plaintext: zeroize::Zeroizing<Vec<u8>>,
}
use crate::name::AccountName;
impl Vault {
    pub fn open(_: &Settings) -> Result<Vault, VaultError> {
        Ok(Vault)
    }
    pub async fn read(&self, _a: &AccountName, _p: &str) -> Result<Option<Opened>, VaultError> {
        Ok(None)
    }
    pub async fn probe(&self) -> Result<(), VaultError> {
        Ok(())
    }
    pub async fn write(
        &self,
        _a: &AccountName,
        _p: &str,
        _g: u64,
        _b: zeroize::Zeroizing<Vec<u8>>,
    ) -> Result<(), VaultError> {
        Ok(())
    }
    pub async fn remove(&self, _a: &AccountName) -> Result<(), VaultError> {
        Ok(())
    }
}
