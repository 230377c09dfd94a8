//! The keys of records: from a key file, or from a passphrase stretched with Argon2id (RFC 9106).
//!
//! Several keys may open records, the first seals them. In both cases a file lists the keys, one per line: the key file itself
//! (32 bytes as base64), or the vault's `kdf` file (salt and cost of the stretching, and the id of the resulting key, which
//! detects a wrong passphrase before anything is sealed with it).
//!
//! A key file beside the vault protects a stolen backup of the vault, not a stolen machine.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::file;
use super::seal::{RecordKey, StoreId};
use super::settings::KeySettings;
use super::stretch::Cost;
use crate::secret::{Secret, base64_url, fill_random};

/// The keys of one store; never empty.
pub(super) struct Keyring {
    keys: Vec<Key>,
    source: Source,
    store: StoreId,
}

struct Key {
    record: RecordKey,
    /// Its line in the file that lists the keys.
    line: Secret,
}

enum Source {
    File(PathBuf),
    Passphrase { kdf: PathBuf, passphrase: Secret, cost: Cost },
}

/// A new key in the format of a key file: 32 random bytes as base64.
///
/// # Panics
/// When the operating system provides no randomness.
pub fn new_key() -> Secret {
    let mut master = Zeroizing::new([0; 32]);
    fill_random(&mut *master);
    Secret::new(BASE64.encode(*master))
}

impl Keyring {
    /// Reads the keys; makes the first one if `fresh`, that is if no record was sealed with another.
    pub(super) fn open(
        settings: &KeySettings,
        directory: &Path,
        store: StoreId,
        fresh: bool,
        cost: Cost,
    ) -> Result<Self, VaultError> {
        match settings {
            KeySettings::File(path) => Self::from_file(path, directory, store, fresh),
            KeySettings::Passphrase(path) => Self::from_passphrase(path, directory, store, fresh, cost),
        }
    }

    fn from_file(path: &Path, directory: &Path, store: StoreId, fresh: bool) -> Result<Self, VaultError> {
        let bytes = match file::read_private(path)? {
            Some(bytes) => bytes,
            None if fresh => {
                let (parent, name) = split(path)?;
                file::make_directory(parent)?;
                // Another process may have created it (two vaults with one key): then its key is read.
                file::create_durably(parent, name, format!("{}\n", new_key().expose()).as_bytes())?;
                file::read_private(path)?.ok_or_else(|| unreadable(path, KEY_LINES))?
            }
            None => return Err(VaultError::KeyMissing { path: path.to_owned(), directory: directory.to_owned() }),
        };
        let keys = lines(&bytes).filter(|line| !line.starts_with('#'));
        let keys: Option<Vec<Key>> = keys.map(|line| Key::from_base64(line.trim(), store)).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(|| unreadable(path, KEY_LINES))?;
        // Rotation replaces the file: symbolic links are resolved, so that it replaces their target.
        let path = path.canonicalize().map_err(VaultError::io("find the key file", path))?;
        Ok(Self { keys, source: Source::File(path), store })
    }

    fn from_passphrase(
        path: &Path,
        directory: &Path,
        store: StoreId,
        fresh: bool,
        cost: Cost,
    ) -> Result<Self, VaultError> {
        let bytes = file::read_private(path)?
            .ok_or_else(|| VaultError::io("read the passphrase", path)(std::io::ErrorKind::NotFound.into()))?;
        // The first seals; further lines are earlier passphrases, which still open.
        let passphrases: Vec<Secret> = lines(&bytes).map(|line| Secret::new(line.to_owned())).collect();
        let passphrase = passphrases.first().ok_or_else(|| unreadable(path, "a passphrase"))?.clone();

        let kdf = directory.join(KDF);
        let listed = file::read_private(&kdf)?;
        let source = Source::Passphrase { kdf: kdf.clone(), passphrase, cost };
        match listed {
            Some(listed) => {
                let keys: Result<Vec<Key>, VaultError> =
                    lines(&listed).map(|line| Key::from_kdf_line(line, &passphrases, store, &kdf)).collect();
                let keys = keys?;
                if keys.is_empty() { Err(unreadable(&kdf, KDF_LINES)) } else { Ok(Self { keys, source, store }) }
            }
            None if fresh => {
                let mut ring = Self { keys: Vec::new(), source, store };
                ring.add()?;
                Ok(ring)
            }
            None => Err(VaultError::KeyMissing { path: kdf, directory: directory.to_owned() }),
        }
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> &RecordKey {
        &self.keys[0].record
    }

    /// The keys that open.
    pub(super) fn opening(&self) -> impl Iterator<Item = &RecordKey> {
        self.keys.iter().map(|key| &key.record)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Makes a new sealing key; the others still open records. It is used only once the file that lists it is durable.
    pub(super) fn add(&mut self) -> Result<(), VaultError> {
        let key = match &self.source {
            Source::File(path) => {
                let line = new_key();
                Key::from_base64(line.expose(), self.store).ok_or_else(|| unreadable(path, KEY_LINES))?
            }
            Source::Passphrase { passphrase, cost, .. } => Key::from_passphrase(passphrase, *cost, self.store)?,
        };
        let all: Vec<&Key> = std::iter::once(&key).chain(&self.keys).collect();
        self.save(&all)?;
        self.keys.insert(0, key);
        Ok(())
    }

    /// Removes every key except the sealing one and those that are `needed`.
    pub(super) fn retain(&mut self, needed: impl Fn(&RecordKey) -> bool) -> Result<(), VaultError> {
        let keep: Vec<bool> = self.keys.iter().enumerate().map(|(at, key)| at == 0 || needed(&key.record)).collect();
        if keep.iter().all(|keep| *keep) {
            return Ok(());
        }
        let kept: Vec<&Key> = self.keys.iter().zip(&keep).filter_map(|(key, keep)| keep.then_some(key)).collect();
        self.save(&kept)?;
        let mut keep = keep.into_iter();
        self.keys.retain(|_| keep.next().unwrap_or(true));
        Ok(())
    }

    fn save(&self, keys: &[&Key]) -> Result<(), VaultError> {
        let path = match &self.source {
            Source::File(path) => path,
            Source::Passphrase { kdf, .. } => kdf,
        };
        let mut text = Zeroizing::new(String::with_capacity(keys.len() * 256));
        for key in keys {
            text.push_str(key.line.expose());
            text.push('\n');
        }
        let (parent, name) = split(path)?;
        file::write_durably(parent, name, text.as_bytes())
    }
}

impl Key {
    fn from_base64(line: &str, store: StoreId) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        // Longer than a key, so that a longer key is refused rather than truncated.
        let mut room = Zeroizing::new([0; 48]);
        let standard: Zeroizing<Vec<u8>> = Zeroizing::new(
            line.bytes()
                .map(|byte| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    byte => byte,
                })
                .collect(),
        );
        let length = BASE64.decode_slice(&*standard, &mut *room).ok()?;
        if length != 32 {
            return None;
        }
        bytes.copy_from_slice(&room[..32]);
        Some(Self { record: RecordKey::derive(&bytes, store), line: Secret::new(line.to_owned()) })
    }

    fn from_passphrase(passphrase: &Secret, cost: Cost, store: StoreId) -> Result<Self, VaultError> {
        let mut salt = [0; SALT];
        fill_random(&mut salt);
        let master = cost.stretch(passphrase, &salt)?;
        let record = RecordKey::derive(&master, store);
        let Cost { memory_kib, passes, lanes } = cost;
        let line = format!(
            "argon2id m={memory_kib} t={passes} p={lanes} salt={} check={}",
            base64_url(&salt),
            base64_url(&record.id())
        );
        Ok(Self { record, line: Secret::new(line) })
    }

    fn from_kdf_line(line: &str, passphrases: &[Secret], store: StoreId, kdf: &Path) -> Result<Self, VaultError> {
        let (cost, salt, check) = parse_kdf_line(line).ok_or_else(|| unreadable(kdf, KDF_LINES))?;
        cost.check(|| kdf.display().to_string())?;
        for passphrase in passphrases {
            let master = cost.stretch(passphrase, &salt)?;
            let record = RecordKey::derive(&master, store);
            if record.id() == check {
                return Ok(Self { record, line: Secret::new(line.to_owned()) });
            }
        }
        Err(VaultError::WrongKey { path: kdf.to_owned() })
    }
}

fn parse_kdf_line(line: &str) -> Option<(Cost, [u8; SALT], [u8; 16])> {
    let mut words = line.split_ascii_whitespace();
    let mut value = |name: &str| words.next()?.strip_prefix(name);
    value("argon2id")?;
    let memory_kib = value("m=")?.parse().ok()?;
    let passes = value("t=")?.parse().ok()?;
    let lanes = value("p=")?.parse().ok()?;
    let mut bytes =
        |name: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(value(name)?).ok()?.try_into().ok();
    Some((Cost { memory_kib, passes, lanes }, bytes("salt=")?, bytes("check=")?))
}

/// The lines that are not blank, without their line ends only: spaces are part of a passphrase.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(bytes).unwrap_or_default().lines().filter(|line| !line.trim().is_empty())
}

fn split(path: &Path) -> Result<(&Path, &str), VaultError> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    parent.zip(path.file_name().and_then(|name| name.to_str())).ok_or_else(|| unreadable(path, KEY_LINES))
}

fn unreadable(path: &Path, wanted: &'static str) -> VaultError {
    VaultError::InvalidFile { path: path.to_owned(), wanted }
}

const KDF: &str = "kdf";
const SALT: usize = 16;
const KEY_LINES: &str = "keys (one a line, 32 random bytes as base64, as `openssl rand -base64 32` prints them)";
const KDF_LINES: &str = "how the passphrase is stretched";
/// Padding or not: people make keys with many tools.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
