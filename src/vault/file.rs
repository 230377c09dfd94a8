//! The file store: `<account>.record` in one private directory. Every change is durable when its call returns.
//!
//! It handles sealed bytes only. Another store needs the same six operations: read, write, set aside, delete, list, probe.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::name::AccountName;
use crate::secret::fill_random;

/// The records of one directory.
#[derive(Debug)]
pub(super) struct FileStore {
    directory: PathBuf,
}

impl FileStore {
    /// The directory must have passed [`private_directory`].
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The path of the account's record.
    pub(super) fn path(&self, account: &AccountName) -> PathBuf {
        self.directory.join(record_name(account))
    }

    pub(super) fn read(&self, account: &AccountName) -> Result<Option<Vec<u8>>, VaultError> {
        let path = self.path(account);
        let fail = |source| VaultError::Io { what: "read the record", path: path.clone(), source };
        // NOFOLLOW: a symbolic link must not redirect the read. NONBLOCK: a FIFO must not block it.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let metadata = file.metadata().map_err(fail)?;
        owned_by_us(&path, metadata.uid())?;
        if !metadata.is_file() || metadata.len() > MAX_RECORD {
            return Err(VaultError::DamagedRecord { path });
        }
        let mut bytes = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(bytes))
    }

    pub(super) fn write(&self, account: &AccountName, record: &[u8]) -> Result<(), VaultError> {
        if record.len() as u64 > MAX_RECORD {
            return Err(VaultError::RecordTooLarge);
        }
        write_durably(&self.directory, &record_name(account), record)
    }

    /// Keeps the current record under a second name as well, `<account>.record.damaged-<seconds>`.
    pub(super) fn set_aside(&self, account: &AccountName, now_seconds: i64) -> Result<(), VaultError> {
        let path = self.path(account);
        for seconds in now_seconds..now_seconds.saturating_add(60) {
            let aside = self.directory.join(format!("{}{SET_ASIDE}{seconds}", record_name(account)));
            // A hard link rather than a rename: the account always has its record.
            match fs::hard_link(&path, &aside) {
                Ok(()) => return sync_directory(&self.directory),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                // Some file systems (FAT, some network ones) have no hard links: copy.
                Err(_) => {
                    let bytes = fs::read(&path).map_err(VaultError::io("read the damaged record", &path))?;
                    return write_durably(
                        &self.directory,
                        &format!("{}{SET_ASIDE}{seconds}", record_name(account)),
                        &bytes,
                    );
                }
            }
        }
        Err(VaultError::Io { what: "set the damaged record aside", path, source: io::ErrorKind::AlreadyExists.into() })
    }

    /// Removes the record and every copy of it that was set aside.
    pub(super) fn delete(&self, account: &AccountName) -> Result<(), VaultError> {
        let copies = format!("{}{SET_ASIDE}", record_name(account));
        for name in names(&self.directory)?.into_iter().filter(|name| name.starts_with(&copies)) {
            remove(&self.directory.join(name))?;
        }
        remove(&self.path(account))?;
        sync_directory(&self.directory)
    }

    /// The accounts that have a record, sorted.
    pub(super) fn list(&self) -> Result<Vec<AccountName>, VaultError> {
        let mut accounts: Vec<_> = names(&self.directory)?
            .iter()
            .filter_map(|name| AccountName::parse(name.strip_suffix(".record")?).ok())
            .collect();
        accounts.sort();
        Ok(accounts)
    }

    /// Writes and syncs a temporary file as [`FileStore::write`] does, without the rename.
    pub(super) fn probe(&self) -> Result<(), VaultError> {
        // Random: a compressing file system could store zeros even when it is full.
        let mut bytes = vec![0; PROBE];
        fill_random(&mut bytes);
        drop(write_temporary(&self.directory, &bytes, File::sync_all)?);
        Ok(())
    }
}

/// An exclusive `flock` on a directory, until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _held: File,
}

impl Lock {
    pub(super) fn take(directory: &Path, name: &str) -> Result<Self, VaultError> {
        let path = directory.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(VaultError::io("open the lock file", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _held: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(VaultError::InUse { directory: directory.to_owned() }),
            Err(error) => Err(VaultError::Io { what: "lock the directory", path, source: error.into() }),
        }
    }
}

/// Creates the directory and its missing parents (0700), durably: a record is only as durable as its path.
pub(super) fn make_directory(directory: &Path) -> Result<(), VaultError> {
    if directory.is_dir() {
        return Ok(());
    }
    let fail = VaultError::io("create the directory", directory);
    let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return DirBuilder::new().mode(0o700).create(directory).map_err(fail);
    };
    make_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(fail(error)),
        _ => sync_directory(parent),
    }
}

/// Refuses a directory that other users can access.
pub(super) fn private_directory(directory: &Path) -> Result<(), VaultError> {
    let metadata = fs::metadata(directory).map_err(VaultError::io("read the directory's metadata", directory))?;
    owned_by_us(directory, metadata.uid())?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(VaultError::NotPrivate { path: directory.to_owned(), mode, wanted: 0o700 });
    }
    Ok(())
}

/// Reads a key or a passphrase; refuses one that other users can read. `None` when there is no such file.
pub(super) fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    let fail = |source| VaultError::Io { what: "read the key", path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let metadata = file.metadata().map_err(fail)?;
    let us = rustix::process::geteuid().as_raw();
    // systemd credentials and Kubernetes secrets belong to root and are readable through the group (or an ACL, which appears
    // as group bits). For a user other than root this is the only way, and chmod cannot change it.
    let is_roots = metadata.uid() == 0 && us != 0;
    if !is_roots {
        owned_by_us(path, metadata.uid())?;
    }
    let mode = metadata.mode() & 0o7777;
    let forbidden = if is_roots { 0o037 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(VaultError::NotPrivate {
            path: path.to_owned(),
            mode,
            wanted: if is_roots { 0o440 } else { 0o600 },
        });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_KEY_FILE).unwrap_or_default()));
    file.take(MAX_KEY_FILE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(Some(bytes))
}

/// Replaces the file (0600) atomically: its bytes are synced before the rename, and the rename before this returns.
pub(super) fn write_durably(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), VaultError> {
    write_durably_with(directory, name, bytes, File::sync_all)
}

/// As [`write_durably`], but an existing file stays unchanged, and the result is `false`.
pub(super) fn create_durably(directory: &Path, name: &str, bytes: &[u8]) -> Result<bool, VaultError> {
    let path = directory.join(name);
    match write_temporary(directory, bytes, File::sync_all)?.persist_noclobber(&path) {
        Ok(_) => sync_directory(directory).map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(VaultError::Io { what: "put the file in place", path, source: error.error }),
    }
}

/// As [`write_durably`], with an `fsync` that a test can make fail.
fn write_durably_with(
    directory: &Path,
    name: &str,
    bytes: &[u8],
    sync: fn(&File) -> io::Result<()>,
) -> Result<(), VaultError> {
    let path = directory.join(name);
    let file = write_temporary(directory, bytes, sync)?;
    file.persist(&path).map_err(|error| VaultError::Io { what: "put the file in place", path, source: error.error })?;
    sync_directory(directory)
}

/// Writes and syncs a temporary file, which is removed on any error: after a failed fsync the kernel may mark pages clean
/// that it dropped, so a second fsync of that file proves nothing.
fn write_temporary(
    directory: &Path,
    bytes: &[u8],
    sync: fn(&File) -> io::Result<()>,
) -> Result<tempfile::NamedTempFile, VaultError> {
    let fail = |source| VaultError::Io { what: "write to the directory", path: directory.to_owned(), source };
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)
        // tempfile's error contains the path of the temporary file; ours has the directory.
        .map_err(|error| fail(without_path(&error)))?;
    file.as_file_mut().write_all(bytes).map_err(fail)?;
    sync(file.as_file()).map_err(fail)?;
    Ok(file)
}

/// Removes the temporary files that a crash left in `directory`, nothing else.
pub(super) fn remove_temporary(directory: &Path) -> Result<(), VaultError> {
    let is_temporary = |name: &String| name.strip_suffix(".tmp").is_some_and(|name| name.starts_with(TEMPORARY));
    for name in names(directory)?.into_iter().filter(is_temporary) {
        remove(&directory.join(name))?;
    }
    Ok(())
}

/// Makes renames and removals in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), VaultError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(VaultError::io("sync the directory", directory))
}

fn remove(path: &Path) -> Result<(), VaultError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VaultError::Io { what: "remove the file", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn names(directory: &Path) -> Result<Vec<String>, VaultError> {
    let list = || fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let names = list().map_err(VaultError::io("list the directory", directory))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn owned_by_us(path: &Path, owner: u32) -> Result<(), VaultError> {
    let us = rustix::process::geteuid().as_raw();
    if owner == us { Ok(()) } else { Err(VaultError::WrongOwner { path: path.to_owned(), owner, us }) }
}

fn without_path(error: &io::Error) -> io::Error {
    // The source of the wrapped error has the error number.
    let inner =
        error.get_ref().and_then(|wrapped| wrapped.source()).and_then(|source| source.downcast_ref::<io::Error>());
    inner.and_then(io::Error::raw_os_error).map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn record_name(account: &AccountName) -> String {
    format!("{account}.record")
}

const TEMPORARY: &str = ".pixy-vault-";
const SET_ASIDE: &str = ".damaged-";
/// A login has a few KiB; no record of Pixy is larger than this.
const MAX_RECORD: u64 = 1024 * 1024;
const MAX_KEY_FILE: u64 = 64 * 1024;
/// Larger than any known login (tokens that are JWTs reach 10 KiB).
const PROBE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, FileStore, AccountName) {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().to_owned());
        (directory, store, AccountName::parse("claude").unwrap())
    }

    #[test]
    fn attack_75_a_failed_fsync_leaves_the_old_record_and_no_file() {
        let (directory, store, account) = store();
        store.write(&account, b"old").unwrap();
        let failing = |_: &File| Err(io::Error::from_raw_os_error(5));
        let error = write_durably_with(directory.path(), "claude.record", b"new", failing).unwrap_err();
        assert!(matches!(&error, VaultError::Io { source, .. } if source.raw_os_error() == Some(5)), "{error}");
        assert_eq!(store.read(&account).unwrap().unwrap(), b"old");
        assert_eq!(names(directory.path()).unwrap(), ["claude.record"]);
    }

    #[test]
    fn attack_78_damaged_copies_are_never_overwritten() {
        let (directory, store, account) = store();
        for bytes in [b"one", b"two"] {
            store.write(&account, bytes).unwrap();
            store.set_aside(&account, 1_000).unwrap();
        }
        store.write(&account, b"now").unwrap();
        assert_eq!(fs::read(directory.path().join("claude.record.damaged-1000")).unwrap(), b"one");
        assert_eq!(fs::read(directory.path().join("claude.record.damaged-1001")).unwrap(), b"two");
        assert_eq!(store.list().unwrap(), [account], "a copy counts as an account");
    }

    #[test]
    fn attack_76_a_symlink_as_a_record_is_not_followed() {
        let (directory, store, account) = store();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("claude.record")).unwrap();
        assert!(matches!(store.read(&account), Err(VaultError::Io { .. })));
    }

    #[test]
    fn files_are_private_and_a_probe_leaves_nothing() {
        let (directory, store, account) = store();
        store.probe().unwrap();
        assert!(names(directory.path()).unwrap().is_empty());
        store.write(&account, b"x").unwrap();
        assert_eq!(fs::metadata(store.path(&account)).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn attack_73_only_pixys_temporary_files_are_removed() {
        let (directory, _, _) = store();
        for name in [".pixy-vault-Ab3.tmp", "claude.record", "notes.tmp"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_temporary(directory.path()).unwrap();
        let mut left = names(directory.path()).unwrap();
        left.sort();
        assert_eq!(left, ["claude.record", "notes.tmp"]);
    }
}
