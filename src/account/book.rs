//! All accounts of a running Pixy.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Account;
use crate::name::AccountName;
use crate::secret::Secret;
use crate::vault::{Existing, RotationReport, Vault, VaultError};

/// The accounts, in the order of the configuration.
#[derive(Clone, Default)]
pub struct Book(Arc<[Arc<Account>]>);

impl Book {
    /// A book of these accounts.
    pub fn new(accounts: Vec<Arc<Account>>) -> Self {
        Self(accounts.into())
    }

    /// The account of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        self.0.iter().find(|account| account.name().as_str() == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &AccountName> {
        self.0.iter().map(|account| account.name())
    }

    /// Makes a new vault key and seals every login with it, while running.
    ///
    /// # Errors
    /// As [`Vault::rotate_key`].
    pub async fn rotate_key(&self) -> Result<RotationReport, VaultError> {
        self.vault()?.rotate_key().await
    }

    /// All logins, sealed to a passphrase, for moving house.
    ///
    /// # Errors
    /// As [`Vault::export`].
    pub async fn export(&self, passphrase: &Secret) -> Result<Vec<u8>, VaultError> {
        self.vault()?.export(passphrase).await
    }

    /// Takes in what [`Book::export`] gave; the accounts that are configured serve it at once. What is there stays, unless
    /// `replace`.
    ///
    /// # Errors
    /// As [`Vault::import`].
    pub async fn import(
        &self,
        sealed: &[u8],
        passphrase: &Secret,
        replace: bool,
    ) -> Result<Vec<AccountName>, VaultError> {
        let existing = if replace { Existing::Replace } else { Existing::Refuse };
        let names = self.vault()?.import(sealed, passphrase, existing).await?;
        for account in names.iter().filter_map(|name| self.find(name.as_str())) {
            account.reload().await;
        }
        Ok(names)
    }

    /// All accounts share one.
    fn vault(&self) -> Result<&Vault, VaultError> {
        let first = self
            .0
            .first()
            .ok_or(VaultError::Unsupported("the configuration has no accounts, so there are no logins"))?;
        Ok(&first.parts().vault)
    }

    /// Starts each account's keeper. They end after `shutdown` becomes true, each when its refresh, if one is under way, is
    /// over and durable.
    pub fn keep(&self, shutdown: &watch::Receiver<bool>) -> JoinSet<()> {
        self.iter().map(|account| Arc::clone(account).keep(shutdown.clone())).collect()
    }
}
