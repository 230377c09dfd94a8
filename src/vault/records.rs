//! The rules over files, keys and high-water marks: what a read refuses, and what a write keeps.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::file::{self, FileStore, Lock};
use super::high_water::HighWaterMarks;
use super::key::Keyring;
use super::seal::{self, Header, RecordId, StoreId};
use super::settings::{KeySettings, VaultSettings};
use super::stretch::Cost;
use crate::clock::Clock;
use crate::lock::lock;
use crate::name::AccountName;
use crate::secret::{base64_url, fill_random};

/// The records of an open vault. All methods block on the file system.
pub(super) struct Records {
    pub(super) store: FileStore,
    pub(super) id: StoreId,
    clock: Clock,
    /// Held over every change: a read of marks, keys and records sees whole writes.
    state: Mutex<State>,
    pub(super) rotating: Mutex<()>,
    /// What stretching the passphrase of an export costs.
    pub(super) export_cost: Cost,
    _locks: [Lock; 2],
}

pub(super) struct State {
    pub(super) keys: Keyring,
    pub(super) marks: HighWaterMarks,
}

/// An opened record.
pub struct Opened {
    /// Which write of the account's record this is.
    pub generation: u64,
    /// The plaintext; zeroed when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
}

/// The stored record that a write replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaced {
    /// There is none.
    Nothing,
    /// It opens, and has this generation.
    Generation(u64),
    /// It does not open: the write sets it aside.
    Unopenable,
}

impl Records {
    /// As [`super::Vault::open`], with the cost of stretching passphrases.
    pub(super) fn open(settings: &VaultSettings, cost: Cost) -> Result<Self, VaultError> {
        let directory = &settings.directory;
        file::make_directory(directory)?;
        file::private_directory(directory)?;
        file::make_directory(&settings.state_dir)?;
        // Another user who may write there could replace the control socket, or the marks.
        file::private_directory(&settings.state_dir)?;
        let locks = [Lock::take(directory, "lock")?, Lock::take(&settings.state_dir, "high-water.lock")?];
        file::remove_temporary(directory)?;
        file::remove_temporary(&settings.state_dir)?;
        if let KeySettings::File(path) = &settings.key
            && let Some(parent) = path.parent().filter(|parent| parent.is_dir())
        {
            // Errors are ignored: a read-only mount with a key has no temporary files of ours.
            drop(file::remove_temporary(parent));
        }

        let store = FileStore::new(directory.clone());
        let clock = Clock::default();
        let is_empty = store.list()?.is_empty();
        let id = StoreId::read_or_make(directory, is_empty)?;
        let keys = Keyring::open(&settings.key, directory, id, is_empty, cost)?;
        let marks = HighWaterMarks::load(&settings.state_dir, id, &clock)?;
        let state = Mutex::new(State { keys, marks });
        let records = Self { store, id, clock, state, rotating: Mutex::new(()), export_cost: cost, _locks: locks };
        records.verify()?;
        Ok(records)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// At start: some key must open the records, and marks that are behind (or were lost) are raised.
    fn verify(&self) -> Result<(), VaultError> {
        let mut state = self.state();
        let (mut opened, mut raised, mut wrong_key) = (false, false, None);
        for account in self.store.list()? {
            match self.stored(&state, &account) {
                Ok(Some((_, stored))) => {
                    opened = true;
                    raised |= state.marks.raise(&account, stored.generation);
                }
                Ok(None) => {}
                Err(error @ VaultError::WrongKey { .. }) => wrong_key = Some(error),
                // Reported again when the account is read; the other accounts work.
                Err(error) => tracing::warn!(%account, %error, "a login does not open"),
            }
        }
        match wrong_key {
            Some(error) if !opened => return Err(error),
            Some(error) => tracing::warn!(%error, "a login does not open"),
            None => {}
        }
        if raised { state.marks.save() } else { Ok(()) }
    }

    /// The stored record, with the provider that it was sealed for. Does not check the marks.
    pub(super) fn stored(&self, state: &State, account: &AccountName) -> Result<Option<(String, Opened)>, VaultError> {
        let Some(record) = self.store.read(account)? else { return Ok(None) };
        let fail = |error| VaultError::record(error, self.store.path(account));
        let provider = Header::parse(&record).map_err(fail)?.provider.to_owned();
        let id = RecordId { store: self.id, account: account.as_str(), provider: &provider };
        let (generation, plaintext) = seal::open(state.keys.opening(), &id, &record).map_err(fail)?;
        Ok(Some((provider, Opened { generation, plaintext })))
    }

    /// What a write to `account` would replace.
    pub(super) fn replaced(&self, state: &State, account: &AccountName) -> Result<Replaced, VaultError> {
        match self.stored(state, account) {
            Ok(None) => Ok(Replaced::Nothing),
            Ok(Some((_, stored))) => Ok(Replaced::Generation(stored.generation)),
            Err(error) if error.is_unopenable_record() => Ok(Replaced::Unopenable),
            Err(error) => Err(error),
        }
    }

    pub(super) fn read(&self, account: &AccountName, provider: &str) -> Result<Option<Opened>, VaultError> {
        let mut state = self.state();
        let Some((sealed_for, opened)) = self.stored(&state, account)? else { return Ok(None) };
        if sealed_for != provider {
            return Err(VaultError::ForeignRecord { path: self.store.path(account) });
        }
        let seen = state.marks.seen(account);
        if opened.generation < seen {
            return Err(VaultError::RolledBack { stored: opened.generation, seen });
        }
        // The mark is behind after a crash between record and mark.
        if state.marks.raise(account, opened.generation) {
            state.marks.save_or_warn();
        }
        Ok(Some(opened))
    }

    pub(super) fn write(
        &self,
        account: &AccountName,
        provider: &str,
        generation: u64,
        plaintext: &[u8],
    ) -> Result<(), VaultError> {
        let mut state = self.state();
        let replaced = self.replaced(&state, account)?;
        let lowest = replaced.generation().max(state.marks.seen(account));
        if generation < lowest {
            return Err(VaultError::StaleWrite { stored: lowest, offered: generation });
        }
        self.put(&state, replaced, account, provider, generation, plaintext)?;
        if state.marks.raise(account, generation) {
            state.marks.save_or_warn();
        }
        Ok(())
    }

    /// Seals and stores, without a check of the generation; a record that does not open is set aside first.
    pub(super) fn put(
        &self,
        state: &State,
        replaced: Replaced,
        account: &AccountName,
        provider: &str,
        generation: u64,
        plaintext: &[u8],
    ) -> Result<(), VaultError> {
        if replaced == Replaced::Unopenable {
            self.store.set_aside(account, self.clock.wall().as_seconds())?;
        }
        let id = RecordId { store: self.id, account: account.as_str(), provider };
        self.store.write(account, &seal::seal(state.keys.sealing(), &id, generation, plaintext))
    }

    /// The highest generation of the account that is stored or was seen, 0 when there is none.
    pub(super) fn highest(&self, account: &AccountName) -> Result<u64, VaultError> {
        let state = self.state();
        Ok(self.replaced(&state, account)?.generation().max(state.marks.seen(account)))
    }

    /// Lowers or raises the mark to the stored record.
    pub(super) fn accept_rollback(&self, account: &AccountName) -> Result<(), VaultError> {
        let mut state = self.state();
        if let Some((_, stored)) = self.stored(&state, account)? {
            state.marks.set(account, stored.generation);
            state.marks.save()?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, account: &AccountName) -> Result<(), VaultError> {
        let mut state = self.state();
        // The mark first: after a crash in between, the unlinked login is refused as an older copy. A full disk must not
        // prevent the removal.
        let highest = self.replaced(&state, account)?.generation().max(state.marks.seen(account));
        if highest > 0 {
            state.marks.set(account, highest.saturating_add(1));
            state.marks.save_or_warn();
        }
        self.store.delete(account)
    }
}

impl Replaced {
    /// The generation, 0 without one. What a record that does not open says about itself does not count.
    fn generation(self) -> u64 {
        match self {
            Self::Generation(generation) => generation,
            Self::Nothing | Self::Unopenable => 0,
        }
    }
}

impl StoreId {
    /// The id of the vault in `directory`; created if the vault `is_empty`, that is if no record was sealed for another id.
    fn read_or_make(directory: &Path, is_empty: bool) -> Result<Self, VaultError> {
        let path = directory.join("store");
        match file::read_private(&path)? {
            Some(text) => URL_SAFE_NO_PAD
                .decode(text.trim_ascii())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self)
                .ok_or(VaultError::InvalidFile { path, wanted: "the id of this vault" }),
            None if is_empty => {
                let mut id = [0; 16];
                fill_random(&mut id);
                file::write_durably(directory, "store", format!("{}\n", base64_url(&id)).as_bytes())?;
                Ok(Self(id))
            }
            None => Err(VaultError::KeyMissing { path, directory: directory.to_owned() }),
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("generation", &self.generation).finish_non_exhaustive()
    }
}
