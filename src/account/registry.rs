//! All accounts of a running Pixy.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Account, AccountServices};
use crate::name::AccountName;
use crate::oauth::profile::Profile;
use crate::secret::Secret;
use crate::vault::{Existing, RotationReport, Vault, VaultError};

/// The accounts, in the order of the configuration. Clones share it.
#[derive(Clone, Default)]
pub struct Accounts(Arc<Entries>);

#[derive(Default)]
struct Entries {
    served: ArcSwap<Vec<Arc<Account>>>,
    /// Every account that was ever served, each with its keeper: one that comes back is the same one.
    known: Mutex<Vec<Arc<Account>>>,
}

/// An account as the configuration wants it.
pub struct AccountSettings {
    /// Its name.
    pub name: AccountName,
    /// Its provider.
    pub profile: Arc<Profile>,
    /// It may be linked.
    pub terms_accepted: bool,
}

impl Accounts {
    /// The account of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.0.served.load().iter().find(|account| account.name().as_str() == name).cloned()
    }

    /// All of them, as they are now.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Account>> + use<> {
        Vec::clone(&self.0.served.load()).into_iter()
    }

    /// The account of that name, also if it is not served any more.
    pub fn known(&self, name: &AccountName) -> Option<Arc<Account>> {
        self.all().iter().find(|account| account.name() == name).cloned()
    }

    /// Serves these from now on, and no others. An account that is known goes on, its login untouched; its provider must be
    /// the same as before. Those that are new have `services`, and a keeper among `keepers` that ends after `shutdown` becomes
    /// true, when its refresh, if one is under way, is over and durable.
    pub fn serve(
        &self,
        wanted: Vec<AccountSettings>,
        services: &AccountServices,
        keepers: &mut JoinSet<()>,
        shutdown: &watch::Receiver<bool>,
    ) {
        let served: Vec<Arc<Account>> = wanted
            .into_iter()
            .map(|AccountSettings { name, profile, terms_accepted }| {
                if let Some(account) = self.known(&name) {
                    account.configure(profile, terms_accepted);
                    return account;
                }
                let account = Account::new(name, profile, terms_accepted, services.clone());
                keepers.spawn(Arc::clone(&account).keep(shutdown.clone()));
                self.all().push(Arc::clone(&account));
                account
            })
            .collect();
        let before = self.0.served.swap(Arc::new(served.clone()));
        for gone in before.iter().filter(|account| !served.iter().any(|other| Arc::ptr_eq(account, other))) {
            gone.put_aside();
        }
        services.changes.send_modify(|count| *count += 1);
    }

    /// A panic elsewhere leaves a list that is still a list.
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Account>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes in what [`Accounts::export`] gave; the accounts that are configured serve it at once. What is there stays, unless
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
    fn vault(&self) -> Result<Vault, VaultError> {
        let first = self.all().first().map(|account| account.services().vault.clone());
        first.ok_or(VaultError::NoAccounts)
    }
}
