//! The invariants of a record's envelope, for `crate::fuzzing`.
#![allow(clippy::missing_panics_doc, reason = "a panic is how a target tells that a rule is broken")]

use std::sync::LazyLock;

use super::seal::{DoesNotOpen, Header, Place, RecordKey, StoreId, open, seal};

/// Bytes that nobody sealed do not open, and what was sealed opens only whole and in its place.
pub fn vault_record(data: &[u8]) {
    let store = StoreId([7; 16]);
    let place = Place { store, account: "a", provider: "oauth" };
    let open_here = |record: &[u8]| open([&KEYS.1, &KEYS.0], &place, record);

    assert!(open_here(data).is_err(), "nobody sealed this");
    // With a true head: what comes after the parser.
    let true_head = seal(&KEYS.0, &place, 1, b"");
    let head = true_head.len() - 24 - 16;
    let mut forged = true_head[..head].to_vec();
    forged.extend_from_slice(data);
    assert!(open_here(&forged).is_err(), "nobody sealed this");
    if let Ok(header) = Header::parse(data) {
        assert!(header.provider.len() < data.len());
    }

    let [at, change, plaintext @ ..] = data else { return };
    let record = seal(&KEYS.0, &place, 41, plaintext);
    let opened = open_here(&record).expect("it was sealed here");
    assert_eq!((opened.0, opened.1.as_slice()), (41, plaintext));
    let elsewhere = Place { account: "b", ..place };
    assert_eq!(open([&KEYS.0], &elsewhere, &record).err(), Some(DoesNotOpen::NotForThis));
    assert_eq!(open([&KEYS.1], &place, &record).err(), Some(DoesNotOpen::OtherKey));

    let at = usize::from(*at) * record.len() / 256;
    assert!(open_here(&record[..at]).is_err(), "cut");
    let mut damaged = record;
    damaged[at] ^= change.max(&1);
    assert!(open_here(&damaged).is_err(), "changed at {at}");
}

static KEYS: LazyLock<(RecordKey, RecordKey)> = LazyLock::new(|| {
    let derive = |byte| RecordKey::derive(&[byte; 32], StoreId([7; 16]));
    (derive(1), derive(2))
});
