//! The vault: one sealed record per account, in files.
//!
//! | file | what it does |
//! |---|---|
//! | `seal` | the sealed record: bytes in, bytes out |
//! | `key` | the keys: from a key file, or a passphrase |
//! | `stretch` | Argon2id, one at a time, below a ceiling |
//! | `file` | private, atomic, durable files and the lock |
//! | `high_water` | the highest generation ever seen, stored outside the vault |
//! | `records` | the rules: what a read refuses, what a write keeps |
//! | `rotate` | a new key, while the vault is in use |
//! | `export` | all records sealed to a passphrase, for another machine |
//!
//! A write returns once it is durable. No failure empties or truncates what was stored. A record that does not open is never
//! treated as missing. An operation that was begun is completed, also when its caller's future is dropped.

mod error;
mod export;
mod codec;
mod file;
mod key;
mod high_water;
mod records;
mod rotate;
pub(crate) mod seal;
mod settings;
mod stretch;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::name::AccountName;
use crate::secret::Secret;

pub use error::VaultError;
pub use export::Existing;
pub use key::new_key;
pub use records::Opened;
use records::Records;
pub use rotate::RotationReport;
pub use settings::{KeySettings, VaultSettings};
use stretch::Cost;
pub use stretch::reserve_memory_in;

/// An open vault; clones share it. The directory is locked until the last is dropped.
#[derive(Clone)]
pub struct Vault(Arc<Records>);

/// Creates the directories of records, state and key (0700) where they are missing. [`Vault::open`] does so too, except for the
/// key's when no key is to be created.
///
/// # Errors
/// [`VaultError::Io`].
pub fn make_directories(settings: &VaultSettings) -> Result<(), VaultError> {
    file::make_directory(&settings.directory)?;
    file::make_directory(&settings.state_dir)?;
    match &settings.key {
        KeySettings::File(path) => {
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), file::make_directory)
        }
        KeySettings::Passphrase(_) => Ok(()),
    }
}

impl Vault {
    /// Opens the vault; creates directories (0700), store id and key (0600) on the first start. Blocks on the file system.
    ///
    /// # Errors
    /// [`VaultError::InUse`] when another process has it; [`VaultError::NotPrivate`] and [`VaultError::WrongOwner`] when others
    /// can reach it; [`VaultError::KeyMissing`] when there are records but no key; [`VaultError::WrongKey`] when the key
    /// opens none of them; [`VaultError::InvalidFile`]; [`VaultError::Io`].
    pub fn open(settings: &VaultSettings) -> Result<Self, VaultError> {
        Records::open(settings, Cost::STRONG).map(|records| Self(Arc::new(records)))
    }

    /// A stable identifier of this vault for providers that require one of the installation; it reveals nothing of the
    /// content. A version 8 UUID (RFC 9562 §5.8) as a URN.
    pub fn installation(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::new().chain_update("pixy installation").chain_update(self.0.id.0).finalize();
        let mut id: [u8; 16] = std::array::from_fn(|index| digest[index]);
        id[6] = (id[6] & 0x0f) | 0x80;
        id[8] = (id[8] & 0x3f) | 0x80;
        let hex = format!("{:032x}", u128::from_be_bytes(id));
        format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The account's record, if there is one.
    ///
    /// # Errors
    /// When the record [does not open](VaultError::is_unopenable_record), for example because it was sealed for another
    /// provider; [`VaultError::RolledBack`] when it is older than one seen before; [`VaultError::Io`]. None of these changes
    /// anything.
    pub async fn read(&self, account: &AccountName, provider: &str) -> Result<Option<Opened>, VaultError> {
        let (account, provider) = (account.clone(), provider.to_owned());
        self.blocking(move |records| records.read(&account, &provider)).await
    }

    /// Proves that a write would succeed now, before a refresh token is spent: writes, syncs and removes a file of the size of
    /// a record, which detects a full or read-only disk, an exceeded quota and a failing disk.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn probe(&self) -> Result<(), VaultError> {
        self.blocking(|records| records.store.probe()).await
    }

    /// Seals and stores; returns once it is durable (temporary file, fsync, rename, fsync of the directory). A record that
    /// does not open is first kept as `<account>.record.damaged-<seconds>`.
    ///
    /// # Errors
    /// [`VaultError::StaleWrite`] when `generation` is lower than the stored one or one seen before;
    /// [`VaultError::RecordTooLarge`]; [`VaultError::Io`]. What was stored is unchanged, unless only the last fsync of the
    /// directory failed: then either may be stored.
    pub async fn write(
        &self,
        account: &AccountName,
        provider: &str,
        generation: u64,
        plaintext: Zeroizing<Vec<u8>>,
    ) -> Result<(), VaultError> {
        let (account, provider) = (account.clone(), provider.to_owned());
        self.blocking(move |records| records.write(&account, &provider, generation, &plaintext)).await
    }

    /// A generation for a new login: higher than any that this account ever had here.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn next_generation(&self, account: &AccountName) -> Result<u64, VaultError> {
        let account = account.clone();
        self.blocking(move |records| Ok(records.highest(&account)?.saturating_add(1))).await
    }

    /// Removes the account's record and the copies of it that were set aside. A copy that is restored later is
    /// [`VaultError::RolledBack`].
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn remove(&self, account: &AccountName) -> Result<(), VaultError> {
        let account = account.clone();
        self.blocking(move |records| records.remove(&account)).await
    }

    /// The accounts that have a record, whether it opens or not, sorted.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn accounts(&self) -> Result<Vec<AccountName>, VaultError> {
        self.blocking(|records| records.store.list()).await
    }

    /// Accepts an older copy permanently, because a person asked for it: the next [`Vault::read`] returns it.
    ///
    /// # Errors
    /// When the record does not open; [`VaultError::Io`] when the new mark could not be written.
    pub async fn accept_rollback(&self, account: &AccountName) -> Result<(), VaultError> {
        let account = account.clone();
        self.blocking(move |records| records.accept_rollback(&account)).await
    }

    /// Makes a new key and seals every record with it, while the vault is in use. Old keys open until no record needs them;
    /// after an interruption at any point everything opens, and a second rotation completes it.
    ///
    /// # Errors
    /// [`VaultError::Io`]; nothing is lost.
    pub async fn rotate_key(&self) -> Result<RotationReport, VaultError> {
        self.blocking(Records::rotate).await
    }

    /// All records, sealed to a passphrase.
    ///
    /// # Errors
    /// When a record does not open (an incomplete export would look complete); [`VaultError::EmptyPassphrase`];
    /// [`VaultError::PassphraseTooLong`].
    pub async fn export(&self, passphrase: &Secret) -> Result<Vec<u8>, VaultError> {
        let passphrase = passphrase.clone();
        self.blocking(move |records| records.export(&passphrase)).await
    }

    /// Stores the records of an export and returns their accounts. A login older than one seen here is
    /// [`VaultError::RolledBack`] when read.
    ///
    /// # Errors
    /// [`VaultError::PartialImport`]: some were stored. All others, of which [`VaultError::AlreadyLinked`],
    /// [`VaultError::WrongPassphrase`] and [`VaultError::DamagedExport`] are usual: nothing was stored.
    /// [`VaultError::StretchTooCostly`]: the file asks for more memory or time than a passphrase may cost.
    pub async fn import(
        &self,
        bytes: &[u8],
        passphrase: &Secret,
        existing: Existing,
    ) -> Result<Vec<AccountName>, VaultError> {
        let (bytes, passphrase) = (bytes.to_owned(), passphrase.clone());
        self.blocking(move |records| records.import(&bytes, &passphrase, existing)).await
    }

    /// File work runs in a thread of its own: a slow disk delays no request, and dropping the future stops no write.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Records) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let records = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&records)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(VaultError::ShuttingDown),
            },
        }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.0.store).finish()
    }
}
