//! A record sealed and opened, for `crate::benching`.

use std::hint::black_box;

use super::seal::{Place, RecordKey, StoreId, open, seal};

type Step = Box<dyn FnMut()>;

/// `seal` and `open`, of 2 KiB.
pub(crate) fn steps() -> Vec<(&'static str, Step)> {
    let place = || Place { store: StoreId([7; 16]), account: "a", provider: "oauth" };
    let key = || RecordKey::derive(&[1; 32], StoreId([7; 16]));
    let (sealing, opening) = (key(), key());
    let record = seal(&sealing, &place(), 1, &PLAINTEXT);
    let seal = move || {
        black_box(seal(&sealing, &place(), 1, &PLAINTEXT));
    };
    let open = move || {
        black_box(open([&opening], &place(), &record).is_ok());
    };
    vec![("seal", Box::new(seal)), ("open", Box::new(open))]
}

const PLAINTEXT: [u8; 2048] = [b'x'; 2048];
