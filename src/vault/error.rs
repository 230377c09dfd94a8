//! Errors of the vault. Each text says what was not done and what to do about it, and holds no secret.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::seal::OpenError;
use crate::name::AccountName;

/// Why the vault did not do what was asked. Unless the variant says otherwise, what was stored is unchanged.
#[derive(Debug)]
pub enum VaultError {
    /// The file system refused an operation.
    Io {
        /// The operation as a verb phrase, e.g. "write the record".
        what: &'static str,
        /// The file or directory it was about.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another process holds the lock of this directory.
    InUse {
        /// The vault's directory or the state directory.
        directory: PathBuf,
    },
    /// Other users of this machine may read or change a directory or a key.
    NotPrivate {
        /// The directory or key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it should have.
        wanted: u32,
    },
    /// A file or directory belongs to another user.
    WrongOwner {
        /// The file or directory.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The effective user id of Pixy.
        us: u32,
    },
    /// There are records, but the file that their key comes from is missing.
    KeyMissing {
        /// The key, passphrase, store id or key parameter file that is missing.
        path: PathBuf,
        /// The vault's directory.
        directory: PathBuf,
    },
    /// A key, store id or key parameter file has no valid content.
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// The content it should have.
        wanted: &'static str,
    },
    /// None of the configured keys sealed the record.
    WrongKey {
        /// The record, or the key parameter file that shows it.
        path: PathBuf,
    },
    /// A record is not as it was sealed.
    DamagedRecord {
        /// The record.
        path: PathBuf,
    },
    /// A record was sealed for another account, provider or store.
    ForeignRecord {
        /// The record.
        path: PathBuf,
    },
    /// A newer version of Pixy wrote the record.
    NewerRecord {
        /// The record.
        path: PathBuf,
        /// Its format version.
        version: u8,
    },
    /// The stored record is older than one seen before.
    RolledBack {
        /// The stored generation.
        stored: u64,
        /// The high-water mark.
        seen: u64,
    },
    /// A write has a lower generation than what is stored or was seen.
    StaleWrite {
        /// The lowest generation that is accepted.
        stored: u64,
        /// The generation of the write.
        offered: u64,
    },
    /// A record is larger than the vault stores.
    RecordTooLarge,
    /// An unlinked login could not be taken out of the vault. No request gets its token, but the record may still be there.
    NotRemoved {
        /// Why.
        source: Box<VaultError>,
    },
    /// An import would overwrite logins.
    AlreadyLinked {
        /// Of these accounts.
        accounts: Vec<AccountName>,
    },
    /// An import failed after some of its logins were stored.
    PartialImport {
        /// The accounts that were stored.
        imported: Vec<AccountName>,
        /// Why the next was not.
        source: Box<VaultError>,
    },
    /// The passphrase does not open the export.
    WrongPassphrase,
    /// The bytes are not an export, or a damaged one.
    DamagedExport,
    /// A newer version of Pixy made the export.
    NewerExport {
        /// Its format version.
        version: u8,
    },
    /// An export was asked for with an empty passphrase.
    EmptyPassphrase,
    /// A passphrase is longer than Argon2 takes (4 GiB).
    PassphraseTooLong,
    /// A file asks for more memory or time than Pixy spends on a passphrase; nothing was allocated for it.
    StretchTooCostly {
        /// The file: an export, or the path of a key parameter file.
        place: String,
        /// What it asks for, and the most that Pixy spends.
        cost: String,
    },
    /// There is no memory to stretch a passphrase.
    NoMemory {
        /// The memory that it needs.
        bytes: usize,
    },
    /// The configuration has no accounts, so no vault holds logins.
    NoAccounts,
    /// The account was removed from the configuration.
    NotConfigured,
    /// Pixy is shutting down, and the operation was not begun.
    ShuttingDown,
}

impl VaultError {
    /// For `map_err`: an [`VaultError::Io`] with the operation and its file.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(super) fn record(error: OpenError, path: PathBuf) -> Self {
        match error {
            OpenError::UnknownKey => Self::WrongKey { path },
            OpenError::Damaged => Self::DamagedRecord { path },
            OpenError::Foreign => Self::ForeignRecord { path },
            OpenError::NewerVersion(version) => Self::NewerRecord { path, version },
        }
    }

    /// For an unlinked login that stayed in the vault.
    pub(crate) fn during_unlink(self) -> Self {
        Self::NotRemoved { source: Box::new(self) }
    }

    /// For an import that failed after `imported` were stored.
    pub(super) fn during_import(self, imported: Vec<AccountName>) -> Self {
        if imported.is_empty() { self } else { Self::PartialImport { imported, source: Box::new(self) } }
    }

    /// A record is there and cannot be opened; linking the account again sets it aside and replaces it.
    pub fn is_unopenable_record(&self) -> bool {
        matches!(
            self,
            Self::WrongKey { .. } | Self::DamagedRecord { .. } | Self::ForeignRecord { .. } | Self::NewerRecord { .. }
        )
    }
}

impl std::error::Error for VaultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotRemoved { source } | Self::PartialImport { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, source } => {
                write!(f, "Pixy could not {what} ({}): {source}; {}", path.display(), advice(source.kind()))
            }
            Self::InUse { directory } => {
                write!(f, "another Pixy is using {}: stop it, or {OWN_DIRECTORY}", directory.display())
            }
            Self::NotPrivate { path, mode, wanted } => {
                let path = path.display();
                write!(f, "{path} {NOT_PRIVATE} (mode {mode:04o}): run `chmod {wanted:o} {path}`")
            }
            Self::WrongOwner { path, owner, us } => {
                let path = path.display();
                write!(
                    f,
                    "{path} belongs to user id {owner}, but Pixy runs as {us}: run `chown {us} {path}`, or run Pixy as its owner"
                )
            }
            Self::KeyMissing { path, directory } => {
                write!(f, "{} holds logins, but {}, {KEY_MISSING}", directory.display(), path.display())
            }
            Self::InvalidFile { path, wanted } => {
                write!(
                    f,
                    "{} does not hold {wanted}: it was changed or damaged; restore it from a backup",
                    path.display()
                )
            }
            Self::WrongKey { path } => write!(f, "{} {WRONG_KEY}", path.display()),
            Self::DamagedRecord { path } => write!(f, "{} {DAMAGED_RECORD}", path.display()),
            Self::ForeignRecord { path } => write!(f, "{} {FOREIGN_RECORD}", path.display()),
            Self::NewerRecord { path, version } => {
                write!(f, "{} was written by a newer Pixy (record version {version}): run that one", path.display())
            }
            Self::RolledBack { stored, seen } => {
                write!(f, "the stored login is an older copy (generation {stored}, but {seen} was seen): {ROLLED_BACK}")
            }
            Self::StaleWrite { stored, offered } => {
                write!(f, "a login of generation {offered} was not stored, because generation {stored} exists: {BUG}")
            }
            Self::RecordTooLarge => f.write_str("the login was not stored, because it is larger than 1 MiB"),
            Self::NotRemoved { source } => write!(f, "{NOT_REMOVED}: {source}; then unlink the account again"),
            Self::AlreadyLinked { accounts } => {
                write!(
                    f,
                    "nothing was imported, because these accounts are linked here: {}; {ASK_TO_REPLACE}",
                    list(accounts)
                )
            }
            Self::PartialImport { imported, source } => {
                write!(f, "only these accounts were imported: {}; {source}; import again, replacing", list(imported))
            }
            Self::WrongPassphrase => f.write_str("the passphrase does not open this export; nothing was imported"),
            Self::DamagedExport => f.write_str(DAMAGED_EXPORT),
            Self::NewerExport { version } => {
                write!(
                    f,
                    "nothing was imported: a newer Pixy made this export (version {version}); import it with that one"
                )
            }
            Self::EmptyPassphrase => {
                f.write_str("nothing was exported: an export needs a passphrase that is not empty")
            }
            Self::PassphraseTooLong => f.write_str("the passphrase was not used, because it is too long: shorten it"),
            Self::StretchTooCostly { place, cost } => {
                write!(f, "{place} asks for Argon2id with {cost}: ")?;
                f.write_str("it was changed or damaged; nothing was done. Restore it, or export again")
            }
            Self::NoMemory { bytes } => {
                let mib = bytes.div_ceil(1024 * 1024);
                write!(
                    f,
                    "nothing was done: a passphrase needs {mib} MiB for a moment, which `limits.memory` does not "
                )?;
                f.write_str("have free now; try again, or raise it")
            }
            Self::NoAccounts => {
                f.write_str("nothing was done: the configuration has no accounts, so there are no logins")
            }
            Self::NotConfigured => f.write_str("nothing was changed: the account was removed from the configuration"),
            Self::ShuttingDown => f.write_str("nothing was changed: Pixy is shutting down"),
        }
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on that disk",
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or configure another directory",
        io::ErrorKind::PermissionDenied => "let the user that runs Pixy reach it",
        io::ErrorKind::NotFound => "create it, or configure another path",
        _ => "check that disk",
    }
}

fn list(accounts: &[AccountName]) -> String {
    accounts.iter().map(AccountName::as_str).collect::<Vec<_>>().join(", ")
}

const OWN_DIRECTORY: &str = "give this one a directory of its own";
const NOT_PRIVATE: &str = "can be reached by other users of this machine";
const KEY_MISSING: &str = "which is needed to open them, is missing: restore it from a backup (a new one would not open \
    them), or configure an empty directory to start without logins";
const WRONG_KEY: &str = "was sealed with another key or passphrase than the one configured: configure that one; without it \
    the account must be linked again";
const DAMAGED_RECORD: &str = "is damaged and does not open: restore it from a backup of today, or link the account again \
    (the damaged file is kept beside it)";
const FOREIGN_RECORD: &str = "was sealed for another account, provider or machine: restore the right file, or link the \
    account again; to move logins between machines use `pixy export` and `pixy import`";
const ROLLED_BACK: &str = "its refresh token was probably spent, and using it may sign the account out everywhere; link the \
    account again, or, if the copy was restored on purpose, run `pixy link NAME --older-copy`";
const BUG: &str = "this is a bug in Pixy; please report it";
const NOT_REMOVED: &str = "no agent gets the login now, but it was not removed from the vault and may be used again after a \
    refresh or a restart";
const ASK_TO_REPLACE: &str = "unlink them first, or import again, replacing";
const DAMAGED_EXPORT: &str = "this is not an export of Pixy, or it is damaged; nothing was imported: export again";
