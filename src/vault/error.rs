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

    /// What happened, in whole sentences.
    pub fn title(&self) -> String {
        let title = match self {
            Self::Io { what, path, source } => return format!("Pixy could not {what} ({}): {source}.", path.display()),
            Self::InUse { directory } => return format!("Another Pixy is using {}.", directory.display()),
            Self::NotPrivate { path, mode, .. } => {
                return format!("{} is open to other users of this machine (mode {mode:04o}).", path.display());
            }
            Self::WrongOwner { path, owner, us } => {
                return format!("{} belongs to user id {owner}, but Pixy runs as {us}.", path.display());
            }
            Self::KeyMissing { path, .. } => return format!("The vault's key is missing: {}.", path.display()),
            Self::InvalidFile { path, wanted } => return format!("{} does not hold {wanted}.", path.display()),
            Self::WrongKey { path } => {
                return format!("{} was sealed with another key than the one configured.", path.display());
            }
            Self::DamagedRecord { path } => return format!("{} is damaged.", path.display()),
            Self::ForeignRecord { path } => {
                return format!("{} was sealed for another account, provider or machine.", path.display());
            }
            Self::NewerRecord { path, version } => {
                return format!("A newer Pixy wrote {} (record version {version}).", path.display());
            }
            Self::RolledBack { stored, seen } => {
                return format!("The stored login is an older copy (generation {stored}, but {seen} was seen).");
            }
            Self::StaleWrite { stored, offered } => {
                return format!("The login was not stored: generation {offered} is older than {stored}.");
            }
            Self::RecordTooLarge => "The login is larger than 1 MiB.",
            Self::NotRemoved { source } => {
                return format!("The login was not removed from the vault. {}", source.title());
            }
            Self::AlreadyLinked { accounts } => {
                return format!("These accounts are linked here already: {}.", list(accounts));
            }
            Self::PartialImport { source, .. } => return format!("The import stopped. {}", source.title()),
            Self::WrongPassphrase => "The passphrase does not open this export.",
            Self::DamagedExport => "This is not an export of Pixy, or it is damaged.",
            Self::NewerExport { version } => return format!("A newer Pixy made this export (version {version})."),
            Self::EmptyPassphrase => "The passphrase is empty.",
            Self::PassphraseTooLong => "The passphrase is too long.",
            Self::StretchTooCostly { place, cost } => {
                return format!("Stretching the passphrase of {place} would take {cost}.");
            }
            Self::NoMemory { bytes } => {
                let mib = bytes.div_ceil(1024 * 1024);
                return format!("There are no {mib} MiB of memory free to stretch the passphrase.");
            }
            Self::NoAccounts => "The configuration has no accounts, so there are no logins.",
            Self::NotConfigured => "The account is no longer configured.",
            Self::ShuttingDown => "Pixy is shutting down.",
        };
        title.to_owned()
    }

    /// What to do about it, in whole sentences; empty if nothing.
    pub fn remedy(&self) -> String {
        let remedy = match self {
            Self::Io { source, .. } => io_remedy(source.kind()),
            Self::InUse { .. } => "Stop it, or give this one another directory.",
            Self::NotPrivate { path, wanted, .. } => return format!("Run `chmod {wanted:o} {}`.", path.display()),
            Self::WrongOwner { path, us, .. } => {
                return format!("Run `chown {us} {}`, or run Pixy as its owner.", path.display());
            }
            Self::KeyMissing { directory, .. } => {
                return format!(
                    "Restore it from a backup: a new one would not open the logins in {}. To start without logins, configure an empty directory.",
                    directory.display()
                );
            }
            Self::InvalidFile { .. } => "Restore it from a backup.",
            Self::WrongKey { .. } => "Configure that key; without it the account must be linked again.",
            Self::DamagedRecord { .. } => {
                "Restore it from a backup of today, or link the account again: the damaged file is kept beside it."
            }
            Self::ForeignRecord { .. } => {
                "Restore the right file, or link the account again. `pixy export` and `pixy import` move logins between machines."
            }
            Self::NewerRecord { .. } => "Run that version.",
            Self::RolledBack { .. } => {
                "Its refresh token was probably spent, and using it may sign the account out everywhere. Link the account again, or, if you restored the copy, run `pixy link NAME --older-copy`."
            }
            Self::StaleWrite { .. } => "This is a bug in Pixy; please report it.",
            Self::RecordTooLarge => "",
            Self::NotRemoved { source } => return source.remedy(),
            Self::AlreadyLinked { .. } => "Unlink them first, or import again and replace them.",
            Self::PartialImport { source, .. } => {
                return format!("{} Then import again and replace.", source.remedy());
            }
            Self::WrongPassphrase => "Enter it again.",
            Self::DamagedExport => "Export again on the other machine.",
            Self::NewerExport { .. } => "Import it with that version.",
            Self::EmptyPassphrase => "Choose one.",
            Self::PassphraseTooLong => "Choose a shorter one.",
            Self::StretchTooCostly { .. } => {
                "The file was changed or damaged: restore it, or export again on the other machine."
            }
            Self::NoMemory { .. } => "Try again when fewer requests are under way, or raise `limits.memory`.",
            Self::NoAccounts => "Configure an account.",
            Self::NotConfigured => "Put it back into Pixy's configuration.",
            Self::ShuttingDown => "Try again once it runs.",
        };
        remedy.to_owned()
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
        let remedy = self.remedy();
        f.write_str(&self.title())?;
        if remedy.is_empty() { Ok(()) } else { write!(f, " {remedy}") }
    }
}

fn io_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space on that disk.",
        io::ErrorKind::ReadOnlyFilesystem => "Mount it writable, or configure another directory.",
        io::ErrorKind::PermissionDenied => "Let the user that runs Pixy reach it.",
        io::ErrorKind::NotFound => "Create it, or configure another path.",
        _ => "Check that disk.",
    }
}

fn list(accounts: &[AccountName]) -> String {
    accounts.iter().map(AccountName::as_str).collect::<Vec<_>>().join(", ")
}
