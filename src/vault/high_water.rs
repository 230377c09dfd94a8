//! The high-water marks: the highest generation of each account's record that was ever stored.
//!
//! They are kept outside the vault, so that restoring an older copy of the vault does not restore its marks. A copy of the same
//! generation equals the record, so a record whose generation is the mark is accepted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::VaultError;
use super::file;
use super::seal::StoreId;
use crate::clock::Clock;
use crate::name::AccountName;
use crate::secret::base64_url;

/// The marks of one store. The file may also hold those of other stores, because a person may switch between vaults.
#[derive(Debug)]
pub(super) struct HighWaterMarks {
    directory: PathBuf,
    store: String,
    file: Document,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    stores: BTreeMap<String, BTreeMap<String, u64>>,
}

impl HighWaterMarks {
    /// Reads the marks.
    ///
    /// Without a file the marks start at the stored generations. Refusing would turn every lost state directory (a new container
    /// with the old volume) into a lost login, and an attacker who can delete marks can lower them as well. A damaged file, or
    /// one of another version, is set aside, and the marks start as without one.
    pub(super) fn load(directory: &Path, store: StoreId, clock: &Clock) -> Result<Self, VaultError> {
        let path = directory.join(NAME);
        let file = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).ok().filter(|file: &Document| file.version == VERSION),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Document::empty()),
            Err(error) => return Err(VaultError::io("read the high-water marks", &path)(error)),
        };
        let file = if let Some(file) = file {
            file
        } else {
            let aside = directory.join(format!("{NAME}.damaged-{}", clock.wall().as_seconds()));
            fs::rename(&path, &aside).map_err(VaultError::io("set the high-water marks aside", &path))?;
            tracing::warn!(kept = %aside.display(), "the high-water marks were damaged and start anew: an older login that was restored before now is not detected");
            Document::empty()
        };
        Ok(Self { directory: directory.to_owned(), store: base64_url(&store.0), file })
    }

    /// The highest generation that was stored; 0 when none was.
    pub(super) fn seen(&self, account: &AccountName) -> u64 {
        self.file.stores.get(&self.store).and_then(|marks| marks.get(account.as_str())).copied().unwrap_or(0)
    }

    /// Sets a mark in memory; [`HighWaterMarks::save`] makes it durable.
    pub(super) fn set(&mut self, account: &AccountName, generation: u64) {
        self.file.stores.entry(self.store.clone()).or_default().insert(account.as_str().to_owned(), generation);
    }

    /// Raises a mark in memory; `true` if it was lower.
    pub(super) fn raise(&mut self, account: &AccountName, generation: u64) -> bool {
        let higher = generation > self.seen(account);
        if higher {
            self.set(account, generation);
        }
        higher
    }

    /// Writes the marks durably.
    pub(super) fn save(&self) -> Result<(), VaultError> {
        let text = serde_json::to_vec_pretty(&self.file).expect("names and numbers are JSON");
        file::write_durably(&self.directory, NAME, &text)
    }

    /// As [`HighWaterMarks::save`] once the record is durable: an error would make the caller treat the record as not stored.
    /// The mark is kept in memory, and the next save writes it.
    pub(super) fn save_or_warn(&self) {
        if let Err(error) = self.save() {
            tracing::warn!(%error, "the high-water mark was not written; the login itself is stored");
        }
    }
}

impl Document {
    fn empty() -> Self {
        Self { version: VERSION, stores: BTreeMap::new() }
    }
}

const NAME: &str = "high-water.json";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn load(directory: &Path, store: u8) -> HighWaterMarks {
        HighWaterMarks::load(directory, StoreId([store; 16]), &Clock::default()).unwrap()
    }

    #[test]
    fn marks_only_rise_and_persist() {
        let directory = tempfile::tempdir().unwrap();
        let account = AccountName::parse("claude").unwrap();
        let mut marks = load(directory.path(), 1);
        assert_eq!(marks.seen(&account), 0);
        assert!(marks.raise(&account, 7));
        assert!(!marks.raise(&account, 6));
        marks.save().unwrap();
        assert_eq!(load(directory.path(), 1).seen(&account), 7);
        assert_eq!(load(directory.path(), 2).seen(&account), 0, "stores share marks");
    }

    #[test]
    fn damaged_marks_are_set_aside_and_reset() {
        let directory = tempfile::tempdir().unwrap();
        for damage in ["{", "", r#"{"version":2,"stores":{}}"#] {
            fs::write(directory.path().join(NAME), damage).unwrap();
            assert_eq!(load(directory.path(), 1).seen(&AccountName::parse("claude").unwrap()), 0);
        }
        let mut names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.all(|name| name.to_str().unwrap().starts_with("high-water.json.damaged-")));
    }
}
