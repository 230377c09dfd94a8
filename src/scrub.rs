//! Keeps an account's secrets out of what an upstream sends back: [`Needles`] are what must not cross, a [`Scrubber`] watches
//! one answer as it passes, cut into pieces wherever the network likes.
//!
//! **The length stays.** What is found is replaced by `[pixy:redacted]` and stars, as many bytes as it had: `Content-Length`,
//! chunk sizes and the lengths in WebSocket frames were said before the text came, and stay true.
//!
//! **What is held back.** A piece may end within a secret, so its end waits for the next piece where it looks like the start of
//! one: it begins with the first four bytes of a needle (`HEAD`) and goes on with nothing but characters that tokens are made
//! of, for less than the needle's length. Whether those further characters are the secret's own makes no difference. An
//! agent sees by the sizes of chunks what was held, and often chooses the text (a model repeats what it is told): held back by
//! comparison with the whole secret, each chunk would answer "is this how it begins?", and the token could be guessed one
//! character after the other. For the same reason nothing that is only a part of a secret is ever replaced. Answers of JSON
//! events end in `}` or a line end, so they are not held back at all.
//!
//! **What it costs.** Measured over 1 MiB of server-sent events and four secrets (24 needles), on one core of an x86-64 server
//! with AVX2, whole and in pieces of 170 bytes, in MB/s: one `memmem` for each needle 2080 and 670; Aho-Corasick over whole
//! needles 190 to 13 600 and 370 to 5000, with an automaton of 1.8 MB for opaque tokens of 108 bytes and 18 MB for JWTs of 2 KB;
//! Aho-Corasick over the heads alone, which searches by SIMD (Teddy), 13 900 to 14 100 and 5100 to 5400, with 5 to 18 KB.
//! Hence the last. A piece in which nothing is found passes without a copy.
//!
//! **What stays in memory.** Needles are zeroed when the last request that uses them is over. The automaton is not, but holds
//! the first four bytes of each needle and nothing more.
//!
//! **What is not caught**: secrets shorter than [`SHORTEST`]; a part of a secret; other transformations than those of
//! `spell` (two of them on top of each other, base64 broken into lines, another charset, compression: answers that are
//! compressed are refused instead); a secret that a model spells out in words.

pub(crate) mod spell;

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use bytes::{Bytes, BytesMut};
use zeroize::{Zeroize as _, Zeroizing};

use crate::secret::Secret;

/// Secrets of fewer bytes are not looked for: they would be found in text that has nothing to do with them.
pub const SHORTEST: usize = 16;

/// So many bytes of a needle are searched for; the rest is compared where they are found. Few enough to tell nothing (they are
/// the same in all tokens of a provider, or 24 bits of a random one), enough to be rare in other text.
const HEAD: usize = 4;

/// Stands where a secret stood. No character of it has a meaning in JSON, in an event stream or in a header.
const MARKER: &[u8] = b"[pixy:redacted]";

/// What a token may be made of, whatever ours are made of, percent and JSON escapes included.
const TOKEN_CHARACTERS: &[u8] = b"-._~+/=%\\";

/// An account's secrets in all their spellings; made when they change and shared by all answers.
///
/// It has no `Debug`, and its needles are zeroed on drop.
pub struct Needles {
    /// `None`: no secret is long enough.
    search: Option<Search>,
}

/// Watches one answer; see the module.
pub struct Scrubber {
    needles: Arc<Needles>,
    held: Zeroizing<Vec<u8>>,
    found: u64,
}

struct Search {
    heads: AhoCorasick,
    families: Vec<Family>,
    /// Bytes that may follow a head within a needle.
    characters: Box<[bool; 256]>,
    shortest: usize,
    longest: usize,
}

/// Needles with the same head, longest first.
struct Family {
    head: [u8; HEAD],
    needles: Vec<Zeroizing<Vec<u8>>>,
}

impl Needles {
    /// All spellings of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.expose().len() >= SHORTEST);
        let mut needles: Vec<_> = long.flat_map(|secret| spell::spellings(secret.expose())).collect();
        needles.sort_unstable_by(|one, other| one.as_slice().cmp(other.as_slice()));
        needles.dedup();
        Self { search: Search::new(needles) }
    }

    /// A short text that is there as a whole, a header's value, without its secrets; and how many there were. `None`: none.
    pub fn scrub(&self, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        // Most names and values are shorter than any needle.
        let (found, _) = self.search.as_ref().filter(|search| text.len() >= search.shortest)?.scan(text, true);
        if found.is_empty() {
            return None;
        }
        let mut scrubbed = text.to_vec();
        for place in &found {
            redact(&mut scrubbed[place.clone()]);
        }
        Some((scrubbed, found.len() as u64))
    }
}

impl Scrubber {
    /// For one answer.
    pub fn new(needles: Arc<Needles>) -> Self {
        Self { needles, held: Zeroizing::default(), found: 0 }
    }

    /// Takes the next piece and gives what may leave of it and of what was held back; the very same bytes, uncopied, when
    /// there is nothing in them. May be empty.
    pub fn feed(&mut self, piece: Bytes) -> Bytes {
        self.step(piece, false)
    }

    /// The same for the last piece: nothing is held back.
    pub fn finish_with(&mut self, piece: Bytes) -> Bytes {
        self.step(piece, true)
    }

    /// Nothing comes any more: gives what was held back.
    pub fn finish(&mut self) -> Bytes {
        self.step(Bytes::new(), true)
    }

    /// So many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// So many secrets were replaced so far.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn step(&mut self, piece: Bytes, last: bool) -> Bytes {
        let Some(search) = &self.needles.search else { return piece };
        let text = if self.held.is_empty() { piece } else { Bytes::from([&self.held, &*piece].concat()) };
        let (found, decided) = search.scan(&text, last);
        self.held.zeroize(); // empties it, too
        self.held.extend_from_slice(&text[decided..]);
        let passing = text.slice(..decided);
        if found.is_empty() {
            return passing;
        }
        self.found += found.len() as u64;
        let mut scrubbed = BytesMut::from(passing);
        for place in found {
            redact(&mut scrubbed[place]);
        }
        scrubbed.freeze()
    }
}

impl Search {
    fn new(needles: Vec<Zeroizing<Vec<u8>>>) -> Option<Self> {
        let lengths = || needles.iter().map(|needle| needle.len());
        let (shortest, longest) = (lengths().min()?, lengths().max()?);
        let mut characters = Box::new([false; 256]);
        let alphanumeric = (0..=u8::MAX).filter(u8::is_ascii_alphanumeric);
        let ours = needles.iter().flat_map(|needle| needle.iter().copied());
        for byte in alphanumeric.chain(TOKEN_CHARACTERS.iter().copied()).chain(ours) {
            characters[usize::from(byte)] = true;
        }
        let mut families: Vec<Family> = Vec::new();
        for needle in needles {
            let head = *needle.first_chunk::<HEAD>()?;
            match families.iter_mut().find(|family| family.head == head) {
                Some(family) => family.needles.push(needle),
                None => families.push(Family { head, needles: vec![needle] }),
            }
        }
        for family in &mut families {
            family.needles.sort_unstable_by_key(|needle| std::cmp::Reverse(needle.len()));
        }
        let heads = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(families.iter().map(|family| family.head))
            .expect("a few heads of four bytes are far below the limits of an automaton");
        Some(Self { heads, families, characters, shortest, longest })
    }

    /// Where needles stand in `text`, in order and apart from each other, and where the end begins that must wait for what
    /// follows; nothing waits when this is the `last` of it.
    fn scan(&self, text: &[u8], last: bool) -> (Vec<Range<usize>>, usize) {
        let open_from = if last { text.len() } else { self.last_word(text) };
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(head) = self.heads.find(Input::new(text).range(at..)) {
            let rest = &text[head.start()..];
            let family = &self.families[head.pattern()];
            if head.start() >= open_from && family.may_grow(rest) {
                return (found, head.start());
            }
            at = head.start() + 1;
            if let Some(length) = family.longest_at(rest) {
                at = head.start() + length;
                found.push(head.start()..at);
            }
        }
        if last {
            return (found, text.len());
        }
        let begins_head = |start: &usize| self.families.iter().any(|family| family.head.starts_with(&text[*start..]));
        let undecided = (at.max(text.len().saturating_sub(HEAD - 1))..text.len()).find(begins_head);
        (found, undecided.unwrap_or(text.len()))
    }

    /// Where the last run of bytes begins that a needle could end in, as far as it matters.
    fn last_word(&self, text: &[u8]) -> usize {
        let within = text.iter().rev().take(self.longest - 1);
        text.len() - within.take_while(|byte| self.characters[usize::from(**byte)]).count()
    }
}

impl Family {
    /// The longest needle that stands at the start of `text`.
    fn longest_at(&self, text: &[u8]) -> Option<usize> {
        self.needles.iter().map(|needle| &needle[..]).find(|needle| text.starts_with(needle)).map(<[u8]>::len)
    }

    /// Whether `text`, which has the head and is all that is there yet, may be the start of a needle: told by its length
    /// alone. Only where it is a whole needle already does its content count.
    fn may_grow(&self, text: &[u8]) -> bool {
        match self.longest_at(text) {
            None => self.needles.first().is_some_and(|longest| text.len() < longest.len()),
            Some(_) => self.needles.iter().any(|needle| needle.len() > text.len() && needle.starts_with(text)),
        }
    }
}

fn redact(secret: &mut [u8]) {
    let marker = MARKER.iter().chain(std::iter::repeat(&b'*'));
    secret.iter_mut().zip(marker).for_each(|(byte, shown)| *byte = *shown);
}

#[cfg(test)]
mod tests;
