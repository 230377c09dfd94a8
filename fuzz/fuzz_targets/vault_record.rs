//! Bytes that were not sealed with these keys do not open; a sealed record opens only complete and under its own id.
#![no_main]

use std::sync::LazyLock;

use pixy::internals::{Header, OpenError, RecordId, RecordKey, StoreId, open, seal};

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault_record(data));

fn vault_record(data: &[u8]) {
    let store = StoreId([7; 16]);
    let id = RecordId { store, account: "a", provider: "oauth" };
    let open_here = |record: &[u8]| open([&KEYS.1, &KEYS.0], &id, record);

    assert!(open_here(data).is_err(), "not sealed here");
    // With a valid header, which passes the parser.
    let valid = seal(&KEYS.0, &id, 1, b"");
    let head = valid.len() - 24 - 16;
    let mut forged = valid[..head].to_vec();
    forged.extend_from_slice(data);
    assert!(open_here(&forged).is_err(), "not sealed here");
    if let Ok(header) = Header::parse(data) {
        assert!(header.provider.len() < data.len());
    }

    let [at, change, plaintext @ ..] = data else { return };
    let record = seal(&KEYS.0, &id, 41, plaintext);
    let opened = open_here(&record).expect("sealed here");
    assert_eq!((opened.0, opened.1.as_slice()), (41, plaintext));
    let elsewhere = RecordId { account: "b", ..id };
    assert_eq!(open([&KEYS.0], &elsewhere, &record).err(), Some(OpenError::Foreign));
    assert_eq!(open([&KEYS.1], &id, &record).err(), Some(OpenError::UnknownKey));

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
