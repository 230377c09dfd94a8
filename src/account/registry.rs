//! The accounts of a running Pixy.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::services::AccountServices;
use super::{Account, detached};
use crate::lock::lock;
use crate::name::AccountName;
use crate::oauth::profile::Profile;
use crate::secret::Secret;
use crate::vault::{Existing, RotationReport, Vault, VaultError};

/// The accounts, in the order of the configuration. Clones share them.
#[derive(Clone, Default)]
pub struct Accounts(Arc<Entries>);

#[derive(Default)]
struct Entries {
    served: ArcSwap<Vec<Arc<Account>>>,
    /// Every account that was ever served, each with its task: one that is configured again is the same value.
    known: Mutex<Vec<Arc<Account>>>,
}

/// The configuration of one account.
pub struct AccountSettings {
    /// Its name.
    pub name: AccountName,
    /// Its provider.
    pub profile: Arc<Profile>,
    /// Whether it may be linked.
    pub terms_accepted: bool,
}

impl Accounts {
    /// The account of that name.
    pub fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.0.served.load().iter().find(|account| account.name().as_str() == name).cloned()
    }

    /// The accounts that are served now.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Account>> + use<> {
        Vec::clone(&self.0.served.load()).into_iter()
    }

    /// The account of that name, also if it is not served any more.
    pub fn known(&self, name: &AccountName) -> Option<Arc<Account>> {
        lock(&self.0.known).iter().find(|account| account.name() == name).cloned()
    }

    /// Serves exactly these accounts. A known account keeps its login; its provider must be the same as before. Each new one
    /// gets a task in `tasks`, which ends after `shutdown` becomes true, once a refresh in progress is durable.
    pub fn serve(
        &self,
        wanted: Vec<AccountSettings>,
        services: &AccountServices,
        tasks: &mut JoinSet<()>,
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
                tasks.spawn(Arc::clone(&account).run(shutdown.clone()));
                lock(&self.0.known).push(Arc::clone(&account));
                account
            })
            .collect();
        let before = self.0.served.swap(Arc::new(served.clone()));
        for removed in before.iter().filter(|account| !served.iter().any(|other| Arc::ptr_eq(account, other))) {
            removed.remove();
        }
        services.changes.send_modify(|count| *count += 1);
    }

    /// Makes a new vault key and seals every login with it, while accounts are served.
    ///
    /// # Errors
    /// As [`Vault::rotate_key`].
    pub async fn rotate_key(&self) -> Result<RotationReport, VaultError> {
        self.vault()?.rotate_key().await
    }

    /// All logins, sealed to a passphrase, for another machine.
    ///
    /// # Errors
    /// As [`Vault::export`].
    pub async fn export(&self, passphrase: &Secret) -> Result<Vec<u8>, VaultError> {
        self.vault()?.export(passphrase).await
    }

    /// Imports an export; the configured accounts serve its logins at once. With `replace` it overwrites existing logins. Continues
    /// when the caller's future is dropped.
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
        let (accounts, vault) = (self.clone(), self.vault()?);
        let (sealed, passphrase) = (sealed.to_vec(), passphrase.clone());
        detached(async move {
            let outcome = vault.import(&sealed, &passphrase, existing).await;
            let stored = match &outcome {
                Ok(names) => names.as_slice(),
                Err(VaultError::PartialImport { imported, .. }) => imported,
                Err(_) => &[],
            };
            for account in stored.iter().filter_map(|name| accounts.find(name.as_str())) {
                account.reload().await;
            }
            outcome
        })
        .await
    }

    /// The vault that all accounts share.
    fn vault(&self) -> Result<Vault, VaultError> {
        let first = lock(&self.0.known).first().map(|account| account.services().vault.clone());
        first.ok_or(VaultError::NoAccounts)
    }
}
