//! Replaces an account's secrets in what an upstream sends: [`SecretPatterns`] are the encoded forms of the secrets, and a
//! [`Scrubber`] filters one response as it streams, however the network splits it.
//!
//! **The length stays.** A match is replaced by `[pixy:redacted]` and stars of the same total length, because `Content-Length`,
//! chunk sizes and the lengths of WebSocket frames are sent before the text.
//!
//! **What is held back.** A piece may end within a secret, so its end is held back until the next piece when it may be the start
//! of one: it begins with the first four bytes of a pattern (`PREFIX`) and continues with characters that tokens consist of, for
//! less than the pattern's length. Whether those further characters match the secret makes no difference. An agent learns from
//! the sizes of chunks what was held back, and often chooses the text (a model repeats its input): if the whole secret were
//! compared, each chunk would confirm or refute a guess, and the token could be guessed character by character. For the same
//! reason a part of a secret is never replaced. JSON events end in `}` or a line end, so they are never held back.
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
use encodings::encodings;

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
    found: u64,
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
    patterns: Vec<Zeroizing<Vec<u8>>>,
}

impl SecretPatterns {
    /// All encodings of `secrets`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.expose().len() >= MIN_SECRET);
        let patterns: Vec<_> = long.flat_map(|secret| encodings(secret.expose())).collect();
        let lower = patterns.iter().map(|pattern| Zeroizing::new(pattern.to_ascii_lowercase())).collect();
        Self { matcher: Matcher::new(patterns), in_names: Matcher::new(lower) }
    }

    /// Scrubs a complete text, such as a header value; returns it with the number of matches, or `None` without any.
    pub fn scrub(&self, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        let found = find_all(self.matcher.as_ref(), text);
        if found.is_empty() {
            return None;
        }
        let mut scrubbed = text.to_vec();
        for range in &found {
            redact(&mut scrubbed[range.clone()]);
        }
        Some((scrubbed, found.len() as u64))
    }

    /// The number of matches in the name of a field. Names are compared without case (RFC 9110 §5.1), and `http` makes them lower
    /// case.
    pub fn count_in_name(&self, name: &HeaderName) -> u64 {
        find_all(self.in_names.as_ref(), name.as_str().as_bytes()).len() as u64
    }
}

/// The matches in a complete text. Most names and values are shorter than every pattern.
fn find_all(matcher: Option<&Matcher>, text: &[u8]) -> Vec<Range<usize>> {
    matcher.filter(|matcher| text.len() >= matcher.shortest).map_or_else(Vec::new, |matcher| matcher.scan(text, true).0)
}

impl Scrubber {
    /// A scrubber for one response.
    pub fn new(patterns: Arc<SecretPatterns>) -> Self {
        Self { patterns, held: Zeroizing::default(), found: 0 }
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
        let (found, decided) = matcher.scan(&text, last);
        self.held.zeroize(); // also empties it
        self.held.extend_from_slice(&text[decided..]);
        let passing = text.slice(..decided);
        if found.is_empty() {
            return passing;
        }
        self.found += found.len() as u64;
        let mut scrubbed = BytesMut::from(passing);
        for range in found {
            redact(&mut scrubbed[range]);
        }
        scrubbed.freeze()
    }
}

impl Matcher {
    fn new(mut patterns: Vec<Zeroizing<Vec<u8>>>) -> Option<Self> {
        patterns.sort_unstable_by(|one, other| one.as_slice().cmp(other.as_slice()));
        patterns.dedup();
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

    /// Finds the patterns in `text`: their ranges, in order and without overlaps, and the offset from which the end must be held
    /// back; with `last`, nothing is held back.
    fn scan(&self, text: &[u8], last: bool) -> (Vec<Range<usize>>, usize) {
        let open_from = if last { text.len() } else { self.last_word(text) };
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(prefix) = self.prefixes.find(Input::new(text).range(at..)) {
            let rest = &text[prefix.start()..];
            let group = &self.groups[prefix.pattern()];
            if prefix.start() >= open_from && group.may_grow(rest) {
                return (found, prefix.start());
            }
            at = prefix.start() + 1;
            if let Some(length) = group.longest_at(rest) {
                at = prefix.start() + length;
                found.push(prefix.start()..at);
            }
        }
        if last {
            return (found, text.len());
        }
        let begins_prefix = |start: &usize| self.groups.iter().any(|group| group.prefix.starts_with(&text[*start..]));
        let undecided = (at.max(text.len().saturating_sub(PREFIX - 1))..text.len()).find(begins_prefix);
        (found, undecided.unwrap_or(text.len()))
    }

    /// The offset of the last run of bytes that a pattern may contain, at most the longest pattern from the end.
    fn last_word(&self, text: &[u8]) -> usize {
        let within = text.iter().rev().take(self.longest - 1);
        text.len() - within.take_while(|byte| self.characters[usize::from(**byte)]).count()
    }
}

impl PrefixGroup {
    /// The length of the longest pattern that `text` starts with.
    fn longest_at(&self, text: &[u8]) -> Option<usize> {
        self.patterns.iter().map(|pattern| &pattern[..]).find(|pattern| text.starts_with(pattern)).map(<[u8]>::len)
    }

    /// Whether `text`, which has the prefix and ends here for now, may be the start of a pattern, judged by its length alone. Its
    /// content matters only when it is a whole pattern already.
    fn may_grow(&self, text: &[u8]) -> bool {
        match self.longest_at(text) {
            None => self.patterns.first().is_some_and(|longest| text.len() < longest.len()),
            Some(_) => self.patterns.iter().any(|pattern| pattern.len() > text.len() && pattern.starts_with(text)),
        }
    }
}

fn redact(secret: &mut [u8]) {
    let marker = MARKER.iter().chain(std::iter::repeat(&b'*'));
    secret.iter_mut().zip(marker).for_each(|(byte, shown)| *byte = *shown);
}

#[cfg(test)]
mod tests;
