//! No secret passes the scrubber and nothing else changes, however the text is split.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use pixy::internals::{Encoded, encodings};
use pixy::scrub::{MIN_SECRET, Scrubber, SecretPatterns};
use pixy::secret::Secret;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scrubber(data));

/// With every character that an encoding changes, a JWT, self-overlapping, a prefix of another, and too short to be searched for.
const SECRETS: [&str; 6] = [
    "sk-ant/oat01+QmFy~c3Vt.Zm9vYmFyYmF6_cXV4+Lw==",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl",
    "abababababababababab",
    "abcdefghijklmnopqrst",
    "abcdefghijklmnopqrstuvwxyz",
    "only15characte!",
];

static PATTERNS: LazyLock<Arc<SecretPatterns>> = LazyLock::new(|| {
    let secrets: Vec<_> = SECRETS.iter().map(|secret| Secret::new((*secret).to_owned())).collect();
    Arc::new(SecretPatterns::new(&secrets))
});

static ENCODINGS: LazyLock<Vec<Encoded>> = LazyLock::new(|| {
    let long = SECRETS.iter().filter(|secret| secret.len() >= MIN_SECRET);
    long.flat_map(|secret| encodings(secret)).collect()
});

/// The input refers to secrets, so that the fuzzer need not guess any: a byte from 0xF8 to 0xFF, then which encoding, and how much
/// of it. The first byte seeds where the text is split.
fn scrubber(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let text = expand(data);
    let expected = reference_scrub(&text);

    let scrubbed = scrub_in_pieces(&text, seed);
    assert_eq!(scrubbed.len(), text.len(), "the length stays");
    assert_eq!(scrubbed, expected, "however it is split");
    for encoded in ENCODINGS.iter() {
        assert!(memchr::memmem::find(&scrubbed, encoded).is_none(), "a secret passes");
    }
    let at_once = PATTERNS.scrub(&text);
    assert_eq!(at_once.as_ref().map_or(&text, |(scrubbed, _)| scrubbed), &expected, "as a header value");
}

/// The whole output. Each piece is 1 to 64 bytes long; with seed 0 the text is one piece.
fn scrub_in_pieces(text: &[u8], seed: u8) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(&PATTERNS));
    let (mut left, mut out, mut state) = (text, Vec::new(), u32::from(seed));
    while !left.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = if seed == 0 { left.len() } else { (state >> 24) as usize % 64 + 1 };
        let (piece, rest) = left.split_at(size.min(left.len()));
        let last = rest.is_empty() && seed.is_multiple_of(2);
        let piece = Bytes::copy_from_slice(piece);
        out.extend_from_slice(&if last { scrubber.finish_with(piece) } else { scrubber.feed(piece) });
        // Only the last word is held back, as far as the longest pattern reaches, whatever it is.
        let held = &text[out.len()..text.len() - rest.len()];
        assert_eq!(held.len(), scrubber.held());
        let longest = ENCODINGS.iter().map(|encoded| encoded.len()).max().unwrap_or_default();
        assert!(held.len() <= longest && held.iter().all(|byte| byte.is_ascii_graphic()), "held back without need");
        left = rest;
    }
    out.extend_from_slice(&scrubber.finish());
    assert_eq!(scrubber.held(), 0);
    out
}

fn expand(data: &[u8]) -> Vec<u8> {
    let (mut text, mut left) = (Vec::new(), data);
    while let Some((&byte, rest)) = left.split_first() {
        left = if let (0xF8.., &[which, much, ref more @ ..]) = (byte, rest) {
            let encoded = &ENCODINGS[(usize::from(byte) * 256 + usize::from(which)) % ENCODINGS.len()];
            let length = usize::from(much % 128).min(encoded.len());
            let part = if much < 128 { &encoded[..length] } else { &encoded[encoded.len() - length..] };
            text.extend_from_slice(if much.is_multiple_of(4) { encoded } else { part });
            more
        } else {
            text.push(byte);
            rest
        };
    }
    text
}

/// The reference implementation: replaces the leftmost, longest encoding by comparison at every offset.
fn reference_scrub(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let replacement = [b"[pixy:redacted]".as_slice(), &[b'*'; 1024]].concat();
    let (mut at, mut last_end) = (0, 0);
    let is_base64 = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
    while at < text.len() {
        let here = ENCODINGS.iter().filter(|encoded| text[at..].starts_with(encoded)).max_by_key(|encoded| encoded.len());
        let Some(encoded) = here else {
            at += 1;
            continue;
        };
        let end = at + encoded.len();
        if encoded.shares_first && at > last_end && is_base64(text.get(at - 1)) {
            out[at - 1] = b'*';
        }
        if encoded.shares_last && is_base64(text.get(end)) {
            out[end] = b'*';
        }
        out[at..end].copy_from_slice(&replacement[..end - at]);
        (at, last_end) = (end, end);
    }
    out
}
