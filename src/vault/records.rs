//! The rules over store, keys and marks: what a read refuses, and what a write keeps.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::VaultError;
use super::file;
use super::seal::{self, Header, Place, StoreId};
use super::{Inner, Opened, State};
use crate::name::AccountName;
use crate::secret::{base64_url, fill_random};

impl Inner {
    /// At start: some key must open what is there, and marks that are behind (or were lost) rise to it.
    pub(super) fn verify(&self) -> Result<(), VaultError> {
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
                // The account's own trouble, told when it is read; the others work.
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

    /// The record as it is, with the provider that it was sealed for; marks are the caller's affair.
    pub(super) fn stored(&self, state: &State, account: &AccountName) -> Result<Option<(String, Opened)>, VaultError> {
        let Some(record) = self.store.read(account)? else { return Ok(None) };
        let fail = |why| VaultError::record(why, self.store.path(account));
        let provider = Header::parse(&record).map_err(fail)?.provider.to_owned();
        let place = Place { store: self.id, account: account.as_str(), provider: &provider };
        let (generation, plaintext) = seal::open(state.keys.opening(), &place, &record).map_err(fail)?;
        Ok(Some((provider, Opened { generation, plaintext })))
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
        // Behind after a crash between record and mark.
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
        let lowest = self.highest(&state, account)?;
        if generation < lowest {
            return Err(VaultError::StaleWrite { stored: lowest, offered: generation });
        }
        self.put(&state, account, provider, generation, plaintext)?;
        if state.marks.raise(account, generation) {
            state.marks.save_or_warn();
        }
        Ok(())
    }

    /// Seals and stores, whatever the generation; what is there and does not open is set aside.
    pub(super) fn put(
        &self,
        state: &State,
        account: &AccountName,
        provider: &str,
        generation: u64,
        plaintext: &[u8],
    ) -> Result<(), VaultError> {
        match self.stored(state, account) {
            Ok(_) => {}
            Err(error) if error.is_unopenable_record() => {
                self.store.set_aside(account, self.clock.wall().as_seconds())?;
            }
            Err(error) => return Err(error),
        }
        let place = Place { store: self.id, account: account.as_str(), provider };
        self.store.write(account, &seal::seal(state.keys.sealing(), &place, generation, plaintext))
    }

    /// The highest generation known of the account, 0 when none is. What a record that does not open says of itself does
    /// not count.
    pub(super) fn highest(&self, state: &State, account: &AccountName) -> Result<u64, VaultError> {
        let stored = match self.stored(state, account) {
            Ok(stored) => stored.map_or(0, |(_, stored)| stored.generation),
            Err(error) if error.is_unopenable_record() => 0,
            Err(error) => return Err(error),
        };
        Ok(stored.max(state.marks.seen(account)))
    }

    pub(super) fn remove(&self, account: &AccountName) -> Result<(), VaultError> {
        let mut state = self.state();
        // First the mark: after a crash in between, a person who wanted the login gone is asked rather than served. A full
        // disk must not keep it from being removed.
        let highest = self.highest(&state, account)?;
        if highest > 0 {
            state.marks.set(account, highest.saturating_add(1));
            state.marks.save_or_warn();
        }
        self.store.delete(account)
    }
}

impl StoreId {
    /// The id of the vault in `directory`; made if `fresh`, that is if no record was sealed for another.
    pub(super) fn read_or_make(directory: &Path, fresh: bool) -> Result<Self, VaultError> {
        let path = directory.join("store");
        match file::read_private(&path)? {
            Some(text) => URL_SAFE_NO_PAD
                .decode(text.trim_ascii())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self)
                .ok_or(VaultError::InvalidFile { path, wanted: "the id of this vault" }),
            None if fresh => {
                let mut id = [0; 16];
                fill_random(&mut id);
                file::write_durably(directory, "store", format!("{}\n", base64_url(&id)).as_bytes())?;
                Ok(Self(id))
            }
            None => Err(VaultError::KeyMissing { path, directory: directory.to_owned() }),
        }
    }
}
