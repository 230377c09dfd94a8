//! Replaces an account's secrets in what an upstream sends: [`SecretPatterns`] are the encoded forms of the secrets, and a
//! [`Scrubber`] filters one response as it streams, however the network splits it.
//!
//! **The length stays.** A match is replaced by `[pixy:redacted]` and stars of the same total length, because `Content-Length`,
//! chunk sizes and the lengths of WebSocket frames are sent before the text.
//!
//! **What is held back.** A piece may end within a secret, so its end is held back until the next piece: the last run of characters
//! that tokens consist of, as far back as the longest pattern reaches. Which characters these are depends on the shape of the secrets
//! alone: their length, and what is no letter or digit in them. An agent learns from the sizes of chunks what was held back, and
//! often chooses the text (a model repeats its input): if any character of the secret were compared, a chunk would confirm or
//! refute a guess, and the token could be guessed character by character. So two secrets of one shape make the same chunks. For the
//! same reason a part of a secret is never replaced, except that in base64 the characters at the ends of a match, which hold some of its
//! bits and some of the text beside it, are replaced too. JSON events end in `}` or a line end, so they are never held back; of plain text
//! that is sent word by word, the last word waits for the next one.
//!
//! **What it costs.** Measured over 1 MiB of server-sent events and four secrets (24 patterns), on one core of an x86-64 server
//! with AVX2, whole and in pieces of 170 bytes, in MB/s: one `memmem` for each pattern 2080 and 670; Aho-Corasick over whole
//! patterns 190 to 13,600 and 370 to 5000, with an automaton of 1.8 MB for opaque tokens of 108 bytes and 18 MB for JWTs of 2 KB;
//! Aho-Corasick over the prefixes alone, which searches by SIMD (Teddy), 13,900 to 14,100 and 5100 to 5400, with 5 to 18 KB.
//! Hence the last. A piece without a match passes without a copy.
//!
//! **What stays in memory.** Patterns are zeroed when the last request that uses them ends. The automaton is not, but it holds
//! only the first four bytes of each pattern.
//!
//! **What is not found**: secrets shorter than [`MIN_SECRET`]; a part of a secret; transformations other than those of
//! `encodings` (two combined, base64 broken into lines, another charset; compressed responses are refused instead); a secret
//! that a model describes in words.

pub(crate) mod encodings;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use bytes::{Bytes, BytesMut};
use http::HeaderName;
use zeroize::{Zeroize as _, Zeroizing};

use crate::secret::Secret;
use encodings::{Encoded, encodings};

/// In bytes. Shorter secrets are not searched for: they would match unrelated text.
pub const MIN_SECRET: usize = 16;

/// The bytes of a pattern that the automaton searches for; the rest is compared at each match. Few enough to reveal nothing (they
/// are the same in all tokens of a provider, or 24 bits of a random one), enough to be rare in other text.
const PREFIX: usize = 4;

/// Replaces a secret. None of its characters is special in a JSON string, an event stream or a header.
const MARKER: &[u8] = b"[pixy:redacted]";

/// What any token may consist of besides letters and digits, percent and JSON escapes included.
const TOKEN_CHARACTERS: &[u8] = b"-._~+/=%\\";

/// An account's secrets in all their encodings; built when they change and shared by all responses.
///
/// It has no `Debug`, and its patterns are zeroed on drop.
pub struct SecretPatterns {
    /// `None`: no secret is long enough.
    matcher: Option<Matcher>,
    /// Of the patterns in lower case, for field names.
    in_names: Option<Matcher>,
}

/// Filters one response; see the module.
pub struct Scrubber {
    patterns: Arc<SecretPatterns>,
    held: Zeroizing<Vec<u8>>,
    /// The next byte may hold bits of a match that ended right before it.
    shares_next: bool,
    found: u64,
}

/// What [`Matcher::scan`] finds in a text.
struct Found {
    /// The matches, in order and without overlaps.
    ranges: Vec<Range<usize>>,
    /// Characters beside a match in base64 that hold some of its bits.
    shared: Vec<usize>,
    /// The offset from which the end must be held back.
    decided: usize,
    /// The character at `decided`, if it is of base64, holds bits of the last match.
    shares_next: bool,
}

struct Matcher {
    prefixes: AhoCorasick,
    groups: Vec<PrefixGroup>,
    /// Bytes that may follow a prefix within a pattern.
    characters: Box<[bool; 256]>,
    shortest: usize,
    longest: usize,
}

/// Patterns with the same prefix, longest first.
struct PrefixGroup {
    prefix: [u8; PREFIX],
    patterns: Vec<Encoded>,
}

impl SecretPatterns {
    /// All encodings of `secrets`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.expose().len() >= MIN_SECRET);
        let patterns: Vec<_> = long.flat_map(|secret| encodings(secret.expose())).collect();
        let lower = patterns.iter().map(Encoded::lower).collect();
        Self { matcher: Matcher::new(patterns), in_names: Matcher::new(lower) }
    }

    /// Scrubs a complete text, such as a header value; returns it with the number of matches, or `None` without any.
    pub fn scrub(&self, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        let found = find_all(self.matcher.as_ref(), text)?;
        let mut scrubbed = text.to_vec();
        found.redact(&mut scrubbed);
        Some((scrubbed, found.ranges.len() as u64))
    }

    /// The number of matches in the name of a field. Names are compared without case (RFC 9110 §5.1), and `http` makes them lower
    /// case.
    pub fn count_in_name(&self, name: &HeaderName) -> u64 {
        find_all(self.in_names.as_ref(), name.as_str().as_bytes()).map_or(0, |found| found.ranges.len() as u64)
    }
}

/// The matches in a complete text; `None` without any. Most names and values are shorter than every pattern.
fn find_all(matcher: Option<&Matcher>, text: &[u8]) -> Option<Found> {
    let found = matcher.filter(|matcher| text.len() >= matcher.shortest)?.scan(text, true);
    (!found.ranges.is_empty()).then_some(found)
}

impl Scrubber {
    /// A scrubber for one response.
    pub fn new(patterns: Arc<SecretPatterns>) -> Self {
        Self { patterns, held: Zeroizing::default(), shares_next: false, found: 0 }
    }

    /// Takes the next piece and returns what may be sent of it and of what was held back, possibly nothing. Without a match the
    /// piece is returned uncopied.
    pub fn feed(&mut self, piece: Bytes) -> Bytes {
        self.step(piece, false)
    }

    /// As [`Scrubber::feed`], for the last piece: nothing is held back.
    pub fn finish_with(&mut self, piece: Bytes) -> Bytes {
        self.step(piece, true)
    }

    /// Ends the response and returns what was held back.
    pub fn finish(&mut self) -> Bytes {
        self.step(Bytes::new(), true)
    }

    /// The number of bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The number of matches replaced so far.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn step(&mut self, piece: Bytes, last: bool) -> Bytes {
        let Some(matcher) = &self.patterns.matcher else { return piece };
        let text = if self.held.is_empty() { piece } else { Bytes::from([&self.held, &*piece].concat()) };
        let mut found = matcher.scan(&text, last);
        self.held.zeroize(); // also empties it
        self.held.extend_from_slice(&text[found.decided..]);
        let passing = text.slice(..found.decided);
        if !passing.is_empty() {
            if self.shares_next && is_base64(passing[0]) {
                found.shared.push(0);
            }
            self.shares_next = found.shares_next;
        }
        if found.ranges.is_empty() && found.shared.is_empty() {
            return passing;
        }
        self.found += found.ranges.len() as u64;
        let mut scrubbed = BytesMut::from(passing);
        found.redact(&mut scrubbed);
        scrubbed.freeze()
    }
}

impl Found {
    fn redact(&self, text: &mut [u8]) {
        for &at in &self.shared {
            text[at] = b'*';
        }
        for range in &self.ranges {
            redact(&mut text[range.clone()]);
        }
    }
}

impl Matcher {
    fn new(mut patterns: Vec<Encoded>) -> Option<Self> {
        patterns.sort_unstable_by(|one, other| one.cmp(other));
        patterns.dedup_by(|one, other| **one == **other);
        let lengths = || patterns.iter().map(|pattern| pattern.len());
        let (shortest, longest) = (lengths().min()?, lengths().max()?);
        let mut characters = Box::new([false; 256]);
        let alphanumeric = (0..=u8::MAX).filter(u8::is_ascii_alphanumeric);
        let ours = patterns.iter().flat_map(|pattern| pattern.iter().copied());
        for byte in alphanumeric.chain(TOKEN_CHARACTERS.iter().copied()).chain(ours) {
            characters[usize::from(byte)] = true;
        }
        let mut groups: Vec<PrefixGroup> = Vec::new();
        for pattern in patterns {
            let prefix = *pattern.first_chunk::<PREFIX>()?;
            match groups.iter_mut().find(|group| group.prefix == prefix) {
                Some(group) => group.patterns.push(pattern),
                None => groups.push(PrefixGroup { prefix, patterns: vec![pattern] }),
            }
        }
        for group in &mut groups {
            group.patterns.sort_unstable_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        }
        let prefixes = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(groups.iter().map(|group| group.prefix))
            .expect("a few prefixes of four bytes are far below the limits of an automaton");
        Some(Self { prefixes, groups, characters, shortest, longest })
    }

    /// Finds the patterns in `text`; with `last`, nothing is held back.
    fn scan(&self, text: &[u8], last: bool) -> Found {
        let (held_from, decided_before) = if last { (text.len(), text.len()) } else { self.last_word(text) };
        let searched = text.len().min(decided_before + PREFIX - 1);
        let (mut ranges, mut shared) = (Vec::new(), Vec::new());
        let (mut at, mut end, mut shares_end) = (0, 0, false);
        while at < decided_before
            && let Some(prefix) = self.prefixes.find(Input::new(text).range(at..searched))
        {
            let start = prefix.start();
            at = start + 1;
            if let Some(pattern) = self.groups[prefix.pattern()].longest_at(&text[start..]) {
                if pattern.shares_first && start > end && is_base64(text[start - 1]) {
                    shared.push(start - 1);
                }
                (at, end, shares_end) = (start + pattern.len(), start + pattern.len(), pattern.shares_last);
                if shares_end && end < held_from && is_base64(text[end]) {
                    shared.push(end);
                }
                ranges.push(start..end);
            }
        }
        let decided = held_from.max(end);
        Found { ranges, shared, decided, shares_next: shares_end && decided == end }
    }

    /// The offset from which the end is held back, and the one before which a pattern must begin to be decided: it is complete, as
    /// is every longer one there. Both are the start of the last run of bytes that a pattern may contain, unless that run is as long
    /// as the longest pattern: then the character before the next pattern is held back too, which may hold some of its bits.
    fn last_word(&self, text: &[u8]) -> (usize, usize) {
        let within = text.iter().rev().take(self.longest);
        let run = within.take_while(|byte| self.characters[usize::from(**byte)]).count();
        let held_from = text.len() - run;
        (held_from, held_from + usize::from(run == self.longest))
    }
}

impl PrefixGroup {
    /// The longest pattern that `text` starts with.
    fn longest_at(&self, text: &[u8]) -> Option<&Encoded> {
        self.patterns.iter().find(|pattern| text.starts_with(pattern))
    }
}

/// Whether a byte is a digit of base64 or base64url (RFC 4648 §4, §5).
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

fn redact(secret: &mut [u8]) {
    let marker = MARKER.iter().chain(std::iter::repeat(&b'*'));
    secret.iter_mut().zip(marker).for_each(|(byte, shown)| *byte = *shown);
}

#[cfg(test)]
mod tests;
