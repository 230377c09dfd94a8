//! What can go wrong with the vault, in sentences for the person who runs Pixy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::seal::DoesNotOpen;
use crate::name::AccountName;

/// Why the vault could not do what was asked. The text says what happened and what to do, and holds no secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum VaultError {
    /// The file system refused.
    Io {
        /// What was being done, e.g. "write the record".
        what: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has this directory open.
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// Others on this machine may read or change a directory or a key.
    NotPrivate {
        /// What they can reach.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What it should be.
        wanted: u32,
    },
    /// A file or directory belongs to somebody else.
    NotOurs {
        /// Which.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
        /// The user id that Pixy runs as.
        us: u32,
    },
    /// There are records, but what opens them is not there.
    KeyMissing {
        /// The key, passphrase or key parameter file that is missing.
        path: PathBuf,
        /// The vault's directory.
        directory: PathBuf,
    },
    /// A file that the vault needs does not hold what it should.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Sealed with a key that was not given.
    WrongKey {
        /// The record, or the file that shows it.
        path: PathBuf,
    },
    /// A record is not as it was sealed.
    Damaged {
        /// The record.
        path: PathBuf,
    },
    /// A record was sealed for another account, provider or machine.
    NotForThis {
        /// The record.
        path: PathBuf,
    },
    /// A newer Pixy wrote the record.
    NewerVersion {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// An older copy of a record was put back.
    RolledBack {
        /// The generation that is there.
        stored: u64,
        /// The highest that was ever there.
        seen: u64,
    },
    /// A write that is older than what is stored.
    Stale {
        /// The lowest generation that would be taken.
        stored: u64,
        /// What was offered.
        offered: u64,
    },
    /// An import would overwrite logins.
    Exists {
        /// Of these accounts.
        accounts: Vec<AccountName>,
    },
    /// The passphrase does not open the export.
    WrongPassphrase,
    /// The export is damaged, or not an export.
    BadExport,
    /// Not offered; the text says what is.
    Unsupported(&'static str),
    /// Pixy is stopping, and this was not begun.
    Stopped,
}

impl VaultError {
    /// For `map_err`: names what was done and to what.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    pub(super) fn record(why: DoesNotOpen, path: PathBuf) -> Self {
        match why {
            DoesNotOpen::OtherKey => Self::WrongKey { path },
            DoesNotOpen::Damaged => Self::Damaged { path },
            DoesNotOpen::NotForThis => Self::NotForThis { path },
            DoesNotOpen::NewerVersion(version) => Self::NewerVersion { path, version },
        }
    }

    /// A record is there and cannot be opened; linking the account anew sets it aside and replaces it.
    pub fn does_not_open(&self) -> bool {
        matches!(
            self,
            Self::WrongKey { .. } | Self::Damaged { .. } | Self::NotForThis { .. } | Self::NewerVersion { .. }
        )
    }
}

impl std::error::Error for VaultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, source } => {
                write!(f, "Pixy could not {what} ({}): {source}; ", path.display())?;
                f.write_str(match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space on that disk",
                    io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or name another directory",
                    io::ErrorKind::PermissionDenied => "let the user that runs Pixy reach it",
                    io::ErrorKind::NotFound => "make it, or name another path in the configuration",
                    _ => "look at that disk of this machine",
                })
            }
            Self::InUse { directory } => write!(
                f,
                "another Pixy is using {}: stop it, or give this one a directory of its own",
                directory.display()
            ),
            Self::NotPrivate { path, mode, wanted } => write!(
                f,
                "{} can be reached by other users of this machine (mode {mode:04o}): run `chmod {wanted:o} {}`",
                path.display(),
                path.display()
            ),
            Self::NotOurs { path, owner, us } => write!(
                f,
                "{} belongs to user id {owner}, but Pixy runs as {us}: run `chown {us} {}`, or run Pixy as its owner",
                path.display(),
                path.display()
            ),
            Self::KeyMissing { path, directory } => write!(
                f,
                "{} holds logins, but {}, which is needed to open them, is not there: put it back from a backup \
                 (a new one would not open them), or name an empty directory to begin anew",
                directory.display(),
                path.display()
            ),
            Self::Unreadable { path, wanted } => write!(
                f,
                "{} does not hold {wanted}: it was changed or damaged; put it back from a backup",
                path.display()
            ),
            Self::WrongKey { path } => write!(
                f,
                "{} was sealed with another key or passphrase than the one configured: configure that one; \
                 without it the account must be linked again",
                path.display()
            ),
            Self::Damaged { path } => write!(
                f,
                "{} is damaged and does not open: put it back from a backup of today, or link the account again \
                 (the damaged file is kept beside it)",
                path.display()
            ),
            Self::NotForThis { path } => write!(
                f,
                "{} was sealed for another account, provider or machine: put the right file back, or link the account \
                 again; to move logins between machines use `pixy export` and `pixy import`",
                path.display()
            ),
            Self::NewerVersion { path, version } => {
                write!(f, "{} was written by a newer Pixy (record version {version}): run that one", path.display())
            }
            Self::RolledBack { stored, seen } => write!(
                f,
                "the stored login is an older copy (generation {stored}, but {seen} was here): its refresh token was \
                 probably spent, and using it may sign the account out everywhere; link the account again, or, \
                 if the copy was put back on purpose, run `pixy link NAME --older-copy`"
            ),
            Self::Stale { stored, offered } => write!(
                f,
                "a login of generation {offered} was not stored, because it is older than {stored}: this is a fault of \
                 Pixy; please report it"
            ),
            Self::Exists { accounts } => {
                f.write_str("already linked here:")?;
                for account in accounts {
                    write!(f, " {account}")?;
                }
                f.write_str("; nothing was imported: unlink them first, or say that they are to be replaced")
            }
            Self::WrongPassphrase => f.write_str("the passphrase does not open this export; nothing was imported"),
            Self::BadExport => {
                f.write_str("this is not an export of Pixy, or it is damaged; nothing was imported: make it again")
            }
            Self::Unsupported(text) => f.write_str(text),
            Self::Stopped => f.write_str("Pixy is stopping and began nothing new in the vault"),
        }
    }
}
