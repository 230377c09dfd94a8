//! What agents use of an account: the model's tokens, counted in passing and held back by nothing, requests by the hour
//! (`ledger`), and what the provider says is left (`quota`).
//!
//! Where an agent has a limit of tokens, every byte of an answer is looked at ([`TokenCounter`]). What a person is shown
//! comes from the first and the last of it ([`Glance`]), which costs the same however long the answer is.

mod glance;
mod hourly;
mod quota;

use std::sync::LazyLock;

use memchr::memmem;

pub use glance::Glance;
pub use hourly::{Hour, HourlyUsage};
pub use quota::Quota;

/// Every member that holds a count has this in its name, in every dialect: one search finds them all.
static COMMON: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("oken"));

/// Longer than what stands before [`COMMON`] in any of the names, and than what stands behind it.
const NAME: usize = 20;

/// Longer than any member's name with its number, so that one that is split over two chunks is found.
const CARRY: usize = 64;

/// Tokens of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// What went in.
    pub input: u64,
    /// What came out.
    pub output: u64,
}

/// The counts of one answer. Streams repeat them as they grow, so the largest counts.
#[derive(Debug, Default)]
pub struct TokenCounter {
    carry: Vec<u8>,
    tokens: Tokens,
}

impl TokenCounter {
    /// Looks at the next piece of the answer.
    pub fn feed(&mut self, piece: &[u8]) {
        if !self.carry.is_empty() {
            // What is cut by the border between two pieces.
            self.carry.extend_from_slice(&piece[..piece.len().min(CARRY)]);
            self.tokens = self.tokens.larger(Tokens::told_in(&self.carry));
        }
        self.tokens = self.tokens.larger(Tokens::told_in(piece));
        if piece.len() >= CARRY {
            self.carry.clear();
            self.carry.extend_from_slice(&piece[piece.len() - CARRY..]);
        } else if self.carry.is_empty() {
            self.carry.extend_from_slice(piece);
        } else {
            let done = self.carry.len().saturating_sub(CARRY);
            self.carry.drain(..done);
        }
    }

    /// In and out together.
    pub fn total(&self) -> u64 {
        self.tokens.input.saturating_add(self.tokens.output)
    }
}

impl Tokens {
    /// The largest counts that stand in a text.
    fn told_in(text: &[u8]) -> Self {
        let mut told = Self::default();
        for at in COMMON.find_iter(text) {
            let Some((name, behind)) = member(text, at) else { continue };
            let count = match name {
                b"input_tokens" | b"prompt_tokens" | b"promptTokenCount" => &mut told.input,
                b"output_tokens" | b"completion_tokens" | b"candidatesTokenCount" => &mut told.output,
                _ => continue,
            };
            *count = number(behind).unwrap_or(0).max(*count);
        }
        told
    }

    fn larger(self, other: Self) -> Self {
        Self { input: self.input.max(other.input), output: self.output.max(other.output) }
    }
}

/// The quoted word that holds this place, and what follows it.
fn member(text: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at(at);
    let before = &before[before.len().saturating_sub(NAME)..];
    let start = at - before.len() + memchr::memrchr(b'"', before)? + 1;
    let end = at + memchr::memchr(b'"', &after[..after.len().min(NAME)])?;
    Some((&text[start..end], &text[end + 1..]))
}

/// The number after a member's name; one that is cut off by the end of a piece is seen whole with the next.
fn number(text: &[u8]) -> Option<u64> {
    let rest = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_however_the_answer_is_cut() {
        let stream = "data: {\"usage\":{\"input_tokens\":1200,\"output_tokens\":1}}\n\ndata: {\"usage\":{\"output_tokens\" : 345}}\n\n";
        for size in 1..stream.len() {
            let mut counter = TokenCounter::default();
            stream.as_bytes().chunks(size).for_each(|piece| counter.feed(piece));
            assert_eq!(counter.total(), 1545, "in pieces of {size}");
        }
        let mut counter = TokenCounter::default();
        counter
            .feed(b"{\"cache_read_input_tokens\":7,\"input_tokens\":null,\"prompt_tokens\":2,\"completion_tokens\":3}");
        assert_eq!(counter.total(), 5);
    }

    #[test]
    fn every_dialect_is_understood_and_no_other_word() {
        let told = |text: &str| Tokens::told_in(text.as_bytes());
        assert_eq!(told(r#"{"prompt_tokens":2,"completion_tokens":3}"#), Tokens { input: 2, output: 3 });
        assert_eq!(told(r#"{"promptTokenCount": 4,"candidatesTokenCount" :5}"#), Tokens { input: 4, output: 5 });
        assert_eq!(told(r#"{"input_tokens":6,"output_tokens":7,"total_tokens":13}"#), Tokens { input: 6, output: 7 });
        for text in
            ["oken", "\"token\"", "\"output_tokens\"", "\"output_tokens\":x", r#"{"text":"\"input_tokens\":9"}"#]
        {
            assert_eq!(told(text), Tokens::default(), "{text}");
        }
    }
}
