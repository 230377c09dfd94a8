//! The vault: one sealed record an account, on files.
//!
//! ```text
//! seal     the envelope: bytes in, bytes out                     marks    the highest generation ever seen, kept apart
//! key      what opens it: key file or passphrase                 rotate   a new key while running
//! file     private, atomic, durable files and the lock           export   all of it sealed to a passphrase, for moving house
//! records  the rules: what a read refuses, what a write keeps
//! ```
//! What holds: a write returns once it is durable; no failure empties or shortens what was stored; what does not open is
//! never treated as "nothing there"; and a call that was begun goes on to its end, whoever stops waiting for it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::name::AccountName;
use crate::secret::Secret;

mod error;
mod export;
mod codec;
mod file;
mod key;
mod high_water;
mod records;
mod rotate;
pub(crate) mod seal;
#[cfg(test)]
mod tests;

pub use error::VaultError;
pub use export::Existing;
pub use key::new_key;
pub use rotate::RotationReport;

use file::{FileStore, Lock};
use high_water::HighWaterMarks;
use key::{Cost, Keyring};
use seal::StoreId;

/// Where records are kept and what opens them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// One sealed file per account in this directory.
    pub directory: PathBuf,
    /// What opens them.
    pub key: KeySettings,
    /// A directory apart from the store, for what must not be rolled back with it (the generation high-water mark).
    pub state_dir: PathBuf,
}

/// What opens records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySettings {
    /// A key file, made on first start.
    File(PathBuf),
    /// A passphrase, stretched with Argon2id.
    Passphrase(PathBuf),
}

/// An open vault; clones share it. The directory is locked until the last is dropped.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

/// A record, opened.
pub struct Opened {
    /// Which write of the account's record this is.
    pub generation: u64,
    /// What was sealed; zeroed when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
}

struct Inner {
    store: FileStore,
    id: StoreId,
    clock: Clock,
    /// One change at a time: every read of marks, keys and records sees whole writes.
    state: Mutex<State>,
    rotating: Mutex<()>,
    export_cost: Cost,
    _locks: [Lock; 2],
}

struct State {
    keys: Keyring,
    marks: HighWaterMarks,
}

/// Makes the directories of records, state and key (0700) where they are missing; [`Vault::open`] does it too, but for the key's
/// when there is no key to be made.
///
/// # Errors
/// [`VaultError::Io`].
pub fn make_directories(settings: &Settings) -> Result<(), VaultError> {
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
    /// Opens the vault; makes directories (0700), store id and key (0600) on the first start. Blocks, so call it at start.
    ///
    /// # Errors
    /// [`VaultError::InUse`] when another process has it; [`VaultError::NotPrivate`] and [`VaultError::WrongOwner`] when others
    /// can reach it; [`VaultError::KeyMissing`] when there are records but no key; [`VaultError::WrongKey`] when the key
    /// opens none of them; [`VaultError::Io`].
    pub fn open(settings: &Settings) -> Result<Self, VaultError> {
        Self::open_at_cost(settings, Cost::STRONG)
    }

    /// A name of this vault for providers that ask for one of the installation: always the same, and it tells nothing of what
    /// is inside. A version 8 UUID (RFC 9562 §5.8) as a URN.
    pub fn installation(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let digest = Sha256::new().chain_update("pixy installation").chain_update(self.0.id.0).finalize();
        let mut id: [u8; 16] = std::array::from_fn(|index| digest[index]);
        id[6] = (id[6] & 0x0f) | 0x80;
        id[8] = (id[8] & 0x3f) | 0x80;
        let hex = format!("{:032x}", u128::from_be_bytes(id));
        format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Tests stretch passphrases at a lower cost.
    fn open_at_cost(settings: &Settings, cost: Cost) -> Result<Self, VaultError> {
        let directory = &settings.directory;
        file::make_directory(directory)?;
        file::private_directory(directory)?;
        file::make_directory(&settings.state_dir)?;
        let locks = [Lock::take(directory, "lock")?, Lock::take(&settings.state_dir, "high-water.lock")?];
        file::clean(directory)?;
        file::clean(&settings.state_dir)?;
        if let KeySettings::File(path) = &settings.key
            && let Some(parent) = path.parent().filter(|parent| parent.is_dir())
        {
            // Best effort: a key from a read-only mount has no leftovers of ours.
            drop(file::clean(parent));
        }

        let store = FileStore::new(directory.clone());
        let clock = Clock::default();
        let fresh = store.list()?.is_empty();
        let id = StoreId::read_or_make(directory, fresh)?;
        let keys = Keyring::open(&settings.key, directory, id, fresh, cost)?;
        let marks = HighWaterMarks::load(&settings.state_dir, id, &clock)?;
        let state = Mutex::new(State { keys, marks });
        let inner = Inner { store, id, clock, state, rotating: Mutex::new(()), export_cost: cost, _locks: locks };
        inner.verify()?;
        Ok(Self(Arc::new(inner)))
    }

    /// The account's record, if there is one.
    ///
    /// # Errors
    /// When the record is there and [does not open](VaultError::is_unopenable_record), for example as `provider` is not the one it
    /// was written for; [`VaultError::RolledBack`] when it is older than one seen before; [`VaultError::Io`]. None of these
    /// changes anything.
    pub async fn read(&self, account: &AccountName, provider: &str) -> Result<Option<Opened>, VaultError> {
        let (account, provider) = (account.clone(), provider.to_owned());
        self.blocking(move |vault| vault.read(&account, &provider)).await
    }

    /// Proves that a write would succeed now, before a refresh token is spent: writes, syncs and removes a file of the size of
    /// a record, so that a full or read-only disk, a quota or a failing one shows here.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn probe(&self) -> Result<(), VaultError> {
        self.blocking(|vault| vault.store.probe()).await
    }

    /// Seals and stores; returns once it is durable (temporary file, fsync, rename, fsync of the directory). A record that
    /// does not open is first kept aside as `<account>.record.damaged-<seconds>`.
    ///
    /// # Errors
    /// [`VaultError::StaleWrite`] when `generation` is lower than the stored one or one seen before; [`VaultError::Io`]. What was
    /// stored is still there, unless only the last fsync of the directory failed: then it may be either.
    pub async fn write(
        &self,
        account: &AccountName,
        provider: &str,
        generation: u64,
        plaintext: Zeroizing<Vec<u8>>,
    ) -> Result<(), VaultError> {
        let (account, provider) = (account.clone(), provider.to_owned());
        self.blocking(move |vault| vault.write(&account, &provider, generation, &plaintext)).await
    }

    /// A generation for a login that is linked anew: higher than any that this account ever had here.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn next_generation(&self, account: &AccountName) -> Result<u64, VaultError> {
        let account = account.clone();
        self.blocking(move |vault| {
            let state = vault.state();
            Ok(vault.highest(&state, &account)?.saturating_add(1))
        })
        .await
    }

    /// Forgets the account's record and the copies of it that were set aside. A copy put back later is
    /// [`VaultError::RolledBack`].
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn remove(&self, account: &AccountName) -> Result<(), VaultError> {
        let account = account.clone();
        self.blocking(move |vault| vault.remove(&account)).await
    }

    /// The accounts that have a record, whether it opens or not, sorted.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn accounts(&self) -> Result<Vec<AccountName>, VaultError> {
        self.blocking(|vault| vault.store.list()).await
    }

    /// Takes an older copy for good, after a person said so: the next [`Vault::read`] gives it.
    ///
    /// # Errors
    /// When the record does not open; [`VaultError::Io`] when the new mark could not be written.
    pub async fn accept_rollback(&self, account: &AccountName) -> Result<(), VaultError> {
        let account = account.clone();
        self.blocking(move |vault| {
            let mut state = vault.state();
            if let Some((_, stored)) = vault.stored(&state, &account)? {
                state.marks.set(&account, stored.generation);
                state.marks.save()?;
            }
            Ok(())
        })
        .await
    }

    /// Makes a new key and seals every record with it, while running. Old keys still open until no record needs them; stopped
    /// at any point, everything opens, and doing it again finishes it.
    ///
    /// # Errors
    /// [`VaultError::Io`]; nothing is lost.
    pub async fn rotate_key(&self) -> Result<RotationReport, VaultError> {
        self.blocking(Inner::rotate).await
    }

    /// All records, sealed to a passphrase.
    ///
    /// # Errors
    /// When a record does not open (a part would pass for the whole), or the passphrase is empty.
    pub async fn export(&self, passphrase: &Secret) -> Result<Vec<u8>, VaultError> {
        let passphrase = passphrase.clone();
        self.blocking(move |vault| vault.export(&passphrase)).await
    }

    /// Stores what [`Vault::export`] gave, here or elsewhere; names the accounts. A login older than one seen here is
    /// [`VaultError::RolledBack`] when read.
    ///
    /// # Errors
    /// [`VaultError::AlreadyLinked`], [`VaultError::WrongPassphrase`], [`VaultError::DamagedExport`]: nothing was stored.
    /// [`VaultError::PartialImport`]: some were.
    pub async fn import(
        &self,
        bytes: &[u8],
        passphrase: &Secret,
        existing: Existing,
    ) -> Result<Vec<AccountName>, VaultError> {
        let (bytes, passphrase) = (bytes.to_owned(), passphrase.clone());
        self.blocking(move |vault| vault.import(&bytes, &passphrase, existing)).await
    }

    /// File work has its own thread: a slow disk stops no request, and dropping the future stops no write.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(VaultError::ShuttingDown),
            },
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The files are the truth; what a panic left in memory is a ring and marks that were whole before it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.0.store).finish()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("generation", &self.generation).finish_non_exhaustive()
    }
}
