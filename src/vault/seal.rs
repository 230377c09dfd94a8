//! The format of a sealed record: bytes in, bytes out; no file, no clock.
//!
//! ```text
//! header      magic "PIXYVLT" | version | key id 16 | key commitment 32 | store id 16 | generation 8 | account | provider
//! nonce       24 random bytes
//! ciphertext  XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), tag included
//! ```
//! Version 2 differs from version 1 in the plaintext alone: its logins are bound to their origins, which an older Pixy would
//! ignore and drop. Account and provider are prefixed by their length. The whole header is authenticated as associated data, and so is the
//! [`RecordId`] that the caller expects: a record that was moved does not open. The random 192-bit nonce needs no state.

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::codec::{self, Reader};
use crate::secret::fill_random;

/// The random id of one vault, created with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

/// The place of a record, which is authenticated with it.
pub struct RecordId<'a> {
    /// The vault that holds it.
    pub store: StoreId,
    /// Whose login it is.
    pub account: &'a str,
    /// The profile that the account was linked with.
    pub provider: &'a str,
}

/// What seals and opens the records of one store.
pub struct RecordKey {
    id: [u8; 16],
    commitment: [u8; 32],
    key: Zeroizing<[u8; 32]>,
}

/// The header of a record; not authenticated until the record was opened.
pub struct Header<'a> {
    version: u8,
    key_id: [u8; 16],
    commitment: [u8; 32],
    store: StoreId,
    /// Increases with every write of the account's record.
    pub generation: u64,
    account: &'a str,
    /// The profile that the account was linked with.
    pub provider: &'a str,
    /// All bytes of the header, as they are authenticated.
    bytes: &'a [u8],
    nonce: [u8; 24],
    ciphertext: &'a [u8],
}

/// Why a record does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// None of the given keys sealed it.
    UnknownKey,
    /// It is not as it was sealed.
    Damaged,
    /// It was sealed for another account, provider or store.
    Foreign,
    /// A newer version of Pixy wrote it.
    NewerVersion(u8),
}

/// Seals `plaintext` for `id`.
pub fn seal(key: &RecordKey, id: &RecordId<'_>, generation: u64, plaintext: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(plaintext.len() + 512);
    record.extend_from_slice(MAGIC);
    record.push(VERSION);
    record.extend_from_slice(&key.id);
    record.extend_from_slice(&key.commitment);
    record.extend_from_slice(&id.store.0);
    record.extend_from_slice(&generation.to_be_bytes());
    codec::put(&mut record, id.account.as_bytes());
    codec::put(&mut record, id.provider.as_bytes());
    let associated = associated_data(&record, VERSION, id, generation);

    let mut nonce = [0; NONCE];
    fill_random(&mut nonce);
    // Room for the tag, so that the buffer is not moved and no copy of the plaintext stays behind.
    let mut body = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG));
    body.extend_from_slice(plaintext);
    XChaCha20Poly1305::new(&(*key.key).into())
        .encrypt_in_place(&XNonce::from(nonce), &associated, &mut *body)
        .expect("a record is shorter than the cipher's 256 GiB");
    record.extend_from_slice(&nonce);
    record.extend_from_slice(&body);
    record
}

/// Opens the record of `id` with the one of `keys` that sealed it; returns its generation and plaintext.
pub fn open<'k>(
    keys: impl IntoIterator<Item = &'k RecordKey>,
    id: &RecordId<'_>,
    record: &[u8],
) -> Result<(u64, Zeroizing<Vec<u8>>), OpenError> {
    #[cfg(test)]
    OPENED.set(OPENED.get() + 1);
    let header = Header::parse(record)?;
    // Checked before the key: a record from another machine is reported as such, although its key is unknown too.
    if header.store != id.store || header.account != id.account || header.provider != id.provider {
        return Err(OpenError::Foreign);
    }
    let key = header.key_among(keys)?;
    let associated = associated_data(header.bytes, header.version, id, header.generation);
    let mut body = Zeroizing::new(header.ciphertext.to_vec());
    XChaCha20Poly1305::new(&(*key.key).into())
        .decrypt_in_place(&XNonce::from(header.nonce), &associated, &mut *body)
        .map_err(|_| OpenError::Damaged)?;
    Ok((header.generation, body))
}

impl RecordKey {
    /// The key for the records of `store`: HKDF-SHA-256 (RFC 5869) of the master key, salted with the store id.
    pub fn derive(master: &[u8; 32], store: StoreId) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(&store.0), master);
        let mut derived = Self { id: [0; 16], commitment: [0; 32], key: Zeroizing::new([0; 32]) };
        for (label, out) in [
            (b"pixy record v1 key id".as_slice(), derived.id.as_mut_slice()),
            (b"pixy record v1 commitment", &mut derived.commitment),
            (b"pixy record v1", &mut *derived.key),
        ] {
            hkdf.expand(label, out).expect("SHA-256 expands to 32 bytes");
        }
        derived
    }

    /// Identifies the key and reveals nothing of it.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }
}

impl<'a> Header<'a> {
    /// Reads the header; nothing is decrypted.
    pub fn parse(record: &'a [u8]) -> Result<Self, OpenError> {
        let mut reader = Reader::new(record);
        let magic = reader.array::<7>().ok_or(OpenError::Damaged)?;
        let [version] = reader.array().ok_or(OpenError::Damaged)?;
        match version {
            _ if magic != *MAGIC => Err(OpenError::Damaged),
            OLDEST_VERSION..=VERSION => Self::parse_rest(version, record, reader).ok_or(OpenError::Damaged),
            newer if newer > VERSION => Err(OpenError::NewerVersion(newer)),
            _ => Err(OpenError::Damaged),
        }
    }

    fn parse_rest(version: u8, record: &'a [u8], mut reader: Reader<'a>) -> Option<Self> {
        Some(Self {
            version,
            key_id: reader.array()?,
            commitment: reader.array()?,
            store: StoreId(reader.array()?),
            generation: u64::from_be_bytes(reader.array()?),
            account: reader.text()?,
            provider: reader.text()?,
            bytes: &record[..record.len() - reader.rest().len()],
            nonce: reader.array()?,
            ciphertext: reader.rest(),
        })
    }

    /// The key that this header names.
    pub fn key_among<'k>(&self, keys: impl IntoIterator<Item = &'k RecordKey>) -> Result<&'k RecordKey, OpenError> {
        for key in keys {
            // XChaCha20-Poly1305 does not commit to its key (one ciphertext can be made to open with two), hence both.
            match (self.key_id == key.id, bool::from(self.commitment.ct_eq(&key.commitment))) {
                (true, true) => return Ok(key),
                (false, false) => {}
                // This key made one of them, so the other is not as it was written: damage, not another key.
                _ => return Err(OpenError::Damaged),
            }
        }
        Err(OpenError::UnknownKey)
    }
}

fn associated_data(header: &[u8], version: u8, id: &RecordId<'_>, generation: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * header.len() + 128);
    codec::put(&mut out, header);
    codec::put(&mut out, &[version]);
    codec::put(&mut out, &id.store.0);
    codec::put(&mut out, id.account.as_bytes());
    codec::put(&mut out, id.provider.as_bytes());
    codec::put(&mut out, &generation.to_be_bytes());
    out
}

#[cfg(test)]
thread_local! {
    /// The number of calls of [`open`] in this thread.
    pub(super) static OPENED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

const MAGIC: &[u8; 7] = b"PIXYVLT";
const VERSION: u8 = 2;

/// Records from this version on open.
const OLDEST_VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([7; 16]);
    const ID: RecordId<'static> = RecordId { store: STORE, account: "claude", provider: "oauth" };
    const PLAINTEXT: &[u8] = b"canary-plaintext";

    fn key() -> RecordKey {
        RecordKey::derive(&[1; 32], STORE)
    }

    #[test]
    fn a_sealed_record_opens_and_shows_no_plaintext() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        let (generation, plaintext) = open([&key()], &ID, &record).unwrap();
        assert_eq!((generation, plaintext.as_slice()), (3, PLAINTEXT));
        assert!(!record.windows(PLAINTEXT.len()).any(|window| window == PLAINTEXT));
        assert_ne!(record, seal(&key(), &ID, 3, PLAINTEXT), "every sealing has its own nonce");
    }

    #[test]
    fn attack_78_every_byte_flipped_is_refused() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        for at in 0..record.len() {
            for bit in 0..8 {
                let mut flipped = record.clone();
                flipped[at] ^= 1 << bit;
                let refused = open([&key()], &ID, &flipped).unwrap_err();
                assert_ne!(refused, OpenError::UnknownKey, "byte {at}: one flip never looks like another key");
            }
        }
    }

    #[test]
    fn attack_78_truncation_at_every_length_is_refused() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        for length in 0..record.len() {
            assert_eq!(open([&key()], &ID, &record[..length]).unwrap_err(), OpenError::Damaged, "{length}");
        }
        let longer = [record.as_slice(), &[0]].concat();
        assert_eq!(open([&key()], &ID, &longer).unwrap_err(), OpenError::Damaged);
    }

    #[test]
    fn attack_76_a_moved_record_does_not_open() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        for id in [
            RecordId { account: "work", ..ID },
            RecordId { provider: "openai", ..ID },
            RecordId { store: StoreId([8; 16]), ..ID },
            // Moving a letter from one name to the next must not make the same associated data.
            RecordId { account: "claudeo", provider: "auth", ..ID },
        ] {
            assert_eq!(open([&key()], &id, &record).unwrap_err(), OpenError::Foreign);
        }
    }

    #[test]
    fn attack_76_a_rewritten_header_does_not_open() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        for (id, generation) in
            [(RecordId { account: "zlaude", ..ID }, 3), (RecordId { provider: "zauth", ..ID }, 3), (ID, 4)]
        {
            let mut forged = seal(&key(), &id, generation, PLAINTEXT);
            let header = Header::parse(&forged).unwrap().bytes.len();
            forged.truncate(header);
            forged.extend_from_slice(&record[header..]);
            assert_eq!(open([&key()], &id, &forged).unwrap_err(), OpenError::Damaged);
        }
    }

    #[test]
    fn attack_78_another_key_is_reported() {
        let record = seal(&key(), &ID, 3, PLAINTEXT);
        let other = RecordKey::derive(&[2; 32], STORE);
        assert_eq!(open([&other], &ID, &record).unwrap_err(), OpenError::UnknownKey);
        assert!(open([&other, &key()], &ID, &record).is_ok(), "several keys may open");
    }

    #[test]
    fn attack_76_the_same_master_key_differs_between_stores() {
        assert_ne!(key().id(), RecordKey::derive(&[1; 32], StoreId([8; 16])).id());
    }

    #[test]
    fn attack_80_a_newer_version_is_reported() {
        let mut record = seal(&key(), &ID, 3, PLAINTEXT);
        record[7] = VERSION + 1;
        assert_eq!(open([&key()], &ID, &record).unwrap_err(), OpenError::NewerVersion(VERSION + 1));
        record[7] = OLDEST_VERSION; // the version is authenticated
        assert_eq!(open([&key()], &ID, &record).unwrap_err(), OpenError::Damaged);
        record[7] = 0;
        assert_eq!(open([&key()], &ID, &record).unwrap_err(), OpenError::Damaged);
    }
}
