//! Reads token counts from a response while it passes; delays and copies none of it but its last [`CARRY`] bytes.

use std::sync::LazyLock;

use memchr::memmem;

use super::TokenCounts;

/// Counts the tokens that one response reports. Agents' limits and the usage that a person is shown come from the same counter.
///
/// Streams repeat their counts as they grow, so the largest count is the result. Each byte costs one substring search.
#[derive(Debug, Default)]
pub struct TokenCounter {
    /// The end of what was fed: a count may be split between two pieces.
    carry: Vec<u8>,
    tokens: TokenCounts,
}

/// A substring of the name of every member that holds a count, in every dialect: one search finds them all.
static COMMON: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new("oken"));

/// In bytes. Longer than what precedes [`COMMON`] in any of the names, and than what follows it.
const NAME: usize = 20;

/// In bytes. Longer than any member's name with its number.
const CARRY: usize = 64;

impl TokenCounter {
    /// Reads the next piece of the response.
    pub fn feed(&mut self, piece: &[u8]) {
        if !self.carry.is_empty() {
            self.carry.extend_from_slice(&piece[..piece.len().min(CARRY)]);
            self.tokens = self.tokens.max(largest_counts(&self.carry));
        }
        self.tokens = self.tokens.max(largest_counts(piece));
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

    /// The counts so far.
    pub fn tokens(&self) -> TokenCounts {
        self.tokens
    }

    /// Returns the counts and resets, for the next response of the same connection.
    pub fn take(&mut self) -> TokenCounts {
        self.carry.clear();
        std::mem::take(&mut self.tokens)
    }
}

/// The largest counts in `text`.
fn largest_counts(text: &[u8]) -> TokenCounts {
    let mut largest = TokenCounts::default();
    for at in COMMON.find_iter(text) {
        let Some((name, rest)) = member(text, at) else { continue };
        let count = match name {
            b"input_tokens" | b"prompt_tokens" | b"promptTokenCount" => &mut largest.input,
            b"output_tokens" | b"completion_tokens" | b"candidatesTokenCount" => &mut largest.output,
            _ => continue,
        };
        *count = number(rest).unwrap_or(0).max(*count);
    }
    largest
}

/// The quoted word around position `at`, and what follows it.
fn member(text: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at(at);
    let before = &before[before.len().saturating_sub(NAME)..];
    let start = at - before.len() + memchr::memrchr(b'"', before)? + 1;
    let end = at + memchr::memchr(b'"', &after[..after.len().min(NAME)])?;
    Some((&text[start..end], &text[end + 1..]))
}

/// The number after a member's name. One that the end of a piece cuts is read again with the next piece.
fn number(text: &[u8]) -> Option<u64> {
    let rest = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: &str =
        "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":1200,\"output_tokens\":1}}}\n\n";
    const END: &str = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\" : 345}}\n\ndata: {\"type\":\"message_stop\"}\n\n";

    fn counts_in(text: &str) -> TokenCounts {
        let mut counter = TokenCounter::default();
        counter.feed(text.as_bytes());
        counter.tokens()
    }

    #[test]
    fn counts_do_not_depend_on_where_the_response_is_cut() {
        let short = format!("{START}{END}");
        let long = format!("{START}{}{END}", "data: {\"delta\":\"words\"}\n\n".repeat(5_000));
        for (stream, sizes) in [(&short, 1..short.len()), (&long, 1990..2010)] {
            for size in sizes {
                let mut counter = TokenCounter::default();
                stream.as_bytes().chunks(size).for_each(|piece| counter.feed(piece));
                assert_eq!(counter.tokens(), TokenCounts { input: 1200, output: 345 }, "in pieces of {size}");
                assert!(counter.carry.len() <= CARRY);
            }
        }
    }

    #[test]
    fn every_dialect_is_read() {
        assert_eq!(counts_in(r#"{"prompt_tokens":2,"completion_tokens":3}"#), TokenCounts { input: 2, output: 3 });
        assert_eq!(
            counts_in(r#"{"promptTokenCount": 4,"candidatesTokenCount" :5}"#),
            TokenCounts { input: 4, output: 5 }
        );
        let openai = r#"{"input_tokens":6,"output_tokens":7,"total_tokens":13}"#;
        assert_eq!(counts_in(openai), TokenCounts { input: 6, output: 7 });
        let cached = r#"{"cache_read_input_tokens":7,"input_tokens":null,"prompt_tokens":2,"completion_tokens":3}"#;
        assert_eq!(counts_in(cached), TokenCounts { input: 2, output: 3 });
    }

    #[test]
    fn other_words_and_the_models_own_text_are_not_counted() {
        for text in
            ["oken", "\"token\"", "\"output_tokens\"", "\"output_tokens\":x", r#"{"text":"\"input_tokens\":9"}"#]
        {
            assert_eq!(counts_in(text), TokenCounts::default(), "{text}");
        }
    }

    #[test]
    fn a_taken_counter_begins_anew() {
        let mut counter = TokenCounter::default();
        counter.feed(b"{\"input_tokens\":1200, \"output_to");
        assert_eq!(counter.take(), TokenCounts { input: 1200, output: 0 });
        counter.feed(b"kens\":5}"); // the beginning of this name belonged to the response before
        counter.feed(b"{\"output_tokens\":2}");
        assert_eq!(counter.take(), TokenCounts { input: 0, output: 2 });
    }

    proptest! {
        /// Release builds abort at a panic.
        #[test]
        fn attack_95_no_response_panics_the_counter(
            text in "(\"|:| |,|tokens|_tokens|TokenCount|input|output|prompt|[0-9]{0,25}){0,60}",
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let mut counter = TokenCounter::default();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                counter.feed(piece);
                rest = after;
            }
            counter.feed(rest);
        }
    }
}
