//! Exports: every record in one file, sealed to a passphrase, for another machine.
//!
//! ```text
//! header      magic "PIXYEXP" | version | memory KiB 4 | passes 4 | lanes 4 | salt 16 | key commitment 32
//! nonce       24 random bytes
//! ciphertext  XChaCha20-Poly1305 of (account, provider, generation, plaintext)…, each prefixed by its length
//! ```
//! The passphrase is stretched with Argon2id (RFC 9106); the header is authenticated as associated data.

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::codec::{self, Reader};
use super::error::VaultError;
use super::records::Records;
use super::stretch::Cost;
use crate::name::AccountName;
use crate::secret::{Secret, fill_random};

/// What an import does with accounts that are already linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Imports nothing, and reports them.
    Refuse,
    /// Overwrites their logins.
    Replace,
}

/// One record of an export.
struct Login {
    account: AccountName,
    provider: String,
    generation: u64,
    plaintext: Zeroizing<Vec<u8>>,
}

struct ExportKey {
    key: Zeroizing<[u8; 32]>,
    commitment: [u8; 32],
}

impl Records {
    pub(super) fn export(&self, passphrase: &Secret) -> Result<Vec<u8>, VaultError> {
        if passphrase.is_empty() {
            return Err(VaultError::EmptyPassphrase);
        }
        let logins = {
            let state = self.state();
            let mut logins = Vec::new();
            for account in self.store.list()? {
                if let Some((provider, stored)) = self.stored(&state, &account)? {
                    logins.push(Login {
                        account,
                        provider,
                        generation: stored.generation,
                        plaintext: stored.plaintext,
                    });
                }
            }
            logins
        };
        seal(&logins, passphrase, self.export_cost)
    }

    pub(super) fn import(
        &self,
        bytes: &[u8],
        passphrase: &Secret,
        existing: Existing,
    ) -> Result<Vec<AccountName>, VaultError> {
        let logins = open(bytes, passphrase)?;
        let mut state = self.state();
        if existing == Existing::Refuse {
            let here = self.store.list()?;
            let accounts: Vec<_> =
                logins.iter().map(|login| &login.account).filter(|account| here.contains(account)).cloned().collect();
            if !accounts.is_empty() {
                return Err(VaultError::AlreadyLinked { accounts });
            }
        }
        let mut imported = Vec::new();
        for login in logins {
            // With its own generation, also if that is below the mark: an export made before the last refresh holds a spent
            // token, and reading it is refused until a person accepts it.
            let stored = self.replaced(&state, &login.account).and_then(|replaced| {
                self.put(&state, replaced, &login.account, &login.provider, login.generation, &login.plaintext)
            });
            if let Err(error) = stored {
                state.marks.save_or_warn();
                return Err(error.during_import(imported));
            }
            state.marks.raise(&login.account, login.generation);
            imported.push(login.account);
        }
        state.marks.save_or_warn();
        Ok(imported)
    }
}

fn seal(logins: &[Login], passphrase: &Secret, cost: Cost) -> Result<Vec<u8>, VaultError> {
    // Sized in advance: a growing buffer would leave copies of tokens in freed memory.
    let size: usize = logins.iter().map(|login| login.plaintext.len() + login.provider.len() + 128).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(size + 16));
    for login in logins {
        codec::put(&mut body, login.account.as_str().as_bytes());
        codec::put(&mut body, login.provider.as_bytes());
        codec::put(&mut body, &login.generation.to_be_bytes());
        codec::put(&mut body, &login.plaintext);
    }

    let (mut salt, mut nonce) = ([0; 16], [0; 24]);
    fill_random(&mut salt);
    fill_random(&mut nonce);
    let key = ExportKey::derive(passphrase, cost, &salt)?;
    let mut out = Vec::with_capacity(body.len() + 128);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    for number in [cost.memory_kib, cost.passes, cost.lanes] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&salt);
    out.extend_from_slice(&key.commitment);
    XChaCha20Poly1305::new(&(*key.key).into())
        .encrypt_in_place(&XNonce::from(nonce), &out, &mut *body)
        .expect("an export is shorter than the cipher's 256 GiB");
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&body);
    Ok(out)
}

fn open(bytes: &[u8], passphrase: &Secret) -> Result<Vec<Login>, VaultError> {
    let mut reader = Reader::new(bytes);
    if reader.array::<7>() != Some(*MAGIC) {
        return Err(VaultError::DamagedExport);
    }
    match reader.array() {
        Some([OLDEST_VERSION..=VERSION]) => {}
        Some([version]) if version > VERSION => return Err(VaultError::NewerExport { version }),
        _ => return Err(VaultError::DamagedExport),
    }
    let mut number = || Some(u32::from_be_bytes(reader.array()?));
    let (Some(memory_kib), Some(passes), Some(lanes)) = (number(), number(), number()) else {
        return Err(VaultError::DamagedExport);
    };
    let (Some(salt), Some(commitment)) = (reader.array::<16>(), reader.array::<32>()) else {
        return Err(VaultError::DamagedExport);
    };
    let header = &bytes[..bytes.len() - reader.rest().len()];
    let nonce = reader.array::<24>().ok_or(VaultError::DamagedExport)?;

    let cost = Cost { memory_kib, passes, lanes };
    cost.check(|| "the export".to_owned())?;
    let key = ExportKey::derive(passphrase, cost, &salt)?;
    if !bool::from(key.commitment.ct_eq(&commitment)) {
        return Err(VaultError::WrongPassphrase);
    }
    let mut body = Zeroizing::new(reader.rest().to_vec());
    XChaCha20Poly1305::new(&(*key.key).into())
        .decrypt_in_place(&XNonce::from(nonce), header, &mut *body)
        .map_err(|_| VaultError::DamagedExport)?;

    let mut reader = Reader::new(&body);
    let mut logins = Vec::new();
    while !reader.rest().is_empty() {
        logins.push(read_login(&mut reader).ok_or(VaultError::DamagedExport)?);
    }
    Ok(logins)
}

fn read_login(reader: &mut Reader<'_>) -> Option<Login> {
    Some(Login {
        account: AccountName::parse(reader.text()?).ok()?,
        provider: reader.text()?.to_owned(),
        generation: u64::from_be_bytes(reader.field()?.try_into().ok()?),
        plaintext: Zeroizing::new(reader.field()?.to_vec()),
    })
}

impl ExportKey {
    /// Argon2id, then HKDF for key and commitment: the cipher does not commit to its key, and an export is tried with
    /// passphrases that people choose (partitioning oracle attacks, USENIX Security 2021).
    fn derive(passphrase: &Secret, cost: Cost, salt: &[u8; 16]) -> Result<Self, VaultError> {
        let master = cost.stretch(passphrase, salt)?;
        let hkdf = Hkdf::<Sha256>::new(Some(salt), &*master);
        let mut derived = Self { key: Zeroizing::new([0; 32]), commitment: [0; 32] };
        hkdf.expand(b"pixy export v1", &mut *derived.key).expect("SHA-256 expands to 32 bytes");
        hkdf.expand(b"pixy export v1 commitment", &mut derived.commitment).expect("SHA-256 expands to 32 bytes");
        Ok(derived)
    }
}

const MAGIC: &[u8; 7] = b"PIXYEXP";
const VERSION: u8 = 2; // the records in it are of version 2, as in `seal`

/// Exports from this version on are imported.
const OLDEST_VERSION: u8 = 1;
