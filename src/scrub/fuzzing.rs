//! The invariants of the scrubber, for `crate::fuzzing`.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{HEAD, Needles, SHORTEST, Scrubber, redact, spell};
use crate::secret::Secret;

/// Of different kinds: with every character that an encoding changes, a JWT's beginning, one that overlaps with itself, one that
/// begins like a longer one, and one that is too short to be looked for.
const SECRETS: [&str; 6] = [
    "sk-ant/oat01+QmFy~c3Vt.Zm9vYmFyYmF6_cXV4+Lw==",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl",
    "abababababababababab",
    "abcdefghijklmnopqrst",
    "abcdefghijklmnopqrstuvwxyz",
    "only15characte!",
];

static NEEDLES: LazyLock<Arc<Needles>> = LazyLock::new(|| {
    let secrets: Vec<_> = SECRETS.iter().map(|secret| Secret::new((*secret).to_owned())).collect();
    Arc::new(Needles::new(&secrets))
});

static SPELLINGS: LazyLock<Vec<Zeroizing<Vec<u8>>>> = LazyLock::new(|| {
    let long = SECRETS.iter().filter(|secret| secret.len() >= SHORTEST);
    long.flat_map(|secret| spell::spellings(secret)).collect()
});

/// Bytes that stand for a secret in the input are written out, so that the fuzzer need not guess any: 0xF8 to 0xFF, then which
/// spelling, and how much of it. The first byte seeds where the text is cut.
pub(crate) fn scrubber(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let text = written(data);
    let whole = by_hand(&text);

    let scrubbed = pieces(&text, seed);
    assert_eq!(scrubbed.len(), text.len(), "the length stays");
    assert_eq!(scrubbed, whole, "wherever it is cut");
    for spelling in SPELLINGS.iter() {
        assert!(memchr::memmem::find(&scrubbed, spelling).is_none(), "a secret crosses");
    }
    let at_once = NEEDLES.scrub(&text);
    assert_eq!(at_once.as_ref().map_or(&text, |(scrubbed, _)| scrubbed), &whole, "as a header's value");
}

/// What leaves in the end. Each piece is one to 64 bytes long, or the rest.
fn pieces(text: &[u8], seed: u8) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(&NEEDLES));
    let (mut left, mut out, mut state) = (text, Vec::new(), u32::from(seed));
    while !left.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = if seed == 0 { left.len() } else { (state >> 24) as usize % 64 + 1 };
        let (piece, rest) = left.split_at(size.min(left.len()));
        let last = rest.is_empty() && seed.is_multiple_of(2);
        let piece = Bytes::copy_from_slice(piece);
        out.extend_from_slice(&if last { scrubber.finish_with(piece) } else { scrubber.feed(piece) });
        // Nothing waits but what may be the start of a secret, told from its head and its length.
        let held = &text[out.len()..text.len() - rest.len()];
        assert_eq!(held.len(), scrubber.held());
        let start = &held[..held.len().min(HEAD)];
        let may_be = |spelling: &Zeroizing<Vec<u8>>| spelling.len() > held.len() && spelling.starts_with(start);
        assert!(held.is_empty() || SPELLINGS.iter().any(may_be), "held back for nothing");
        left = rest;
    }
    out.extend_from_slice(&scrubber.finish());
    assert_eq!(scrubber.held(), 0);
    out
}

fn written(data: &[u8]) -> Vec<u8> {
    let (mut text, mut left) = (Vec::new(), data);
    while let Some((&byte, rest)) = left.split_first() {
        left = if let (0xF8.., &[which, much, ref more @ ..]) = (byte, rest) {
            let spelling = &SPELLINGS[(usize::from(byte) * 256 + usize::from(which)) % SPELLINGS.len()];
            let length = usize::from(much % 128).min(spelling.len());
            let part = if much < 128 { &spelling[..length] } else { &spelling[spelling.len() - length..] };
            text.extend_from_slice(if much.is_multiple_of(4) { spelling } else { part });
            more
        } else {
            text.push(byte);
            rest
        };
    }
    text
}

/// Leftmost, and the longest there: the slow way.
fn by_hand(text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    let mut at = 0;
    while at < text.len() {
        let here = SPELLINGS.iter().filter(|spelling| text[at..].starts_with(spelling)).map(|spelling| spelling.len());
        let length = here.max();
        if let Some(length) = length {
            redact(&mut out[at..at + length]);
        }
        at += length.unwrap_or(1);
    }
    out
}
