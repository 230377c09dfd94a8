//! The high-water marks: the highest generation of each account's record that was ever there.
//!
//! They live apart from the vault, so that an older copy of the vault put back does not bring its own marks. Within a
//! generation a copy is as good as the record itself, so equal is fine.

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

/// The marks of one store; a directory may keep those of others, for a person may switch between vaults.
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
    /// No file: the marks start from what is stored. To refuse would turn each lost state directory (a new container with
    /// the old volume) into a lost login, and who can delete marks can as well lower them. A file that is not ours to
    /// understand is kept aside and likewise begun anew.
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
            tracing::warn!(kept = %aside.display(), "the high-water marks were damaged: an older login put back before now is not noticed");
            Document::empty()
        };
        Ok(Self { directory: directory.to_owned(), store: base64_url(&store.0), file })
    }

    /// The highest generation seen; 0 when none was.
    pub(super) fn seen(&self, account: &AccountName) -> u64 {
        self.file.stores.get(&self.store).and_then(|marks| marks.get(account.as_str())).copied().unwrap_or(0)
    }

    /// Sets a mark in memory; [`HighWaterMarks::save`] makes it last.
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

    /// The same when the record itself is safe already: failing now would make the caller believe that it is not. The mark
    /// counts in memory, and the next save writes it.
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
        assert_eq!(load(directory.path(), 2).seen(&account), 0, "another store has its own");
    }

    #[test]
    fn damaged_marks_are_set_aside_and_reset() {
        let directory = tempfile::tempdir().unwrap();
        for damage in ["{", "", r#"{"version":2,"stores":{}}"#] {
            fs::write(directory.path().join(NAME), damage).unwrap();
            assert_eq!(load(directory.path(), 1).seen(&AccountName::parse("claude").unwrap()), 0);
        }
        let kept = fs::read_dir(directory.path()).unwrap().count();
        assert!(kept >= 1);
    }
}
