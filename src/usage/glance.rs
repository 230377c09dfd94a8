//! A glance at an answer: what its first and its last bytes tell of tokens.

use std::collections::VecDeque;

use super::Tokens;

/// The first event of a stream tells what went in (Anthropic's `message_start` does).
const FIRST: usize = 1024;

/// The last events, or the end of an answer that is one JSON text, tell what came out, in every dialect.
const LAST: usize = 2048;

/// Keeps the two ends of an answer while it passes, and reads them once it is over: a piece costs no more than copying
/// its last 2 KiB.
#[derive(Debug, Default)]
pub struct Glance {
    first: Vec<u8>,
    last: VecDeque<u8>,
}

impl Glance {
    /// The next piece of the answer.
    pub fn feed(&mut self, piece: &[u8]) {
        let first = piece.len().min(FIRST - self.first.len());
        self.first.extend_from_slice(&piece[..first]);
        let last = &piece[piece.len().saturating_sub(LAST)..];
        let too_many = (self.last.len() + last.len()).saturating_sub(LAST);
        self.last.drain(..too_many);
        self.last.extend(last);
    }

    /// What the answer has told of tokens by now.
    pub fn tokens(&mut self) -> Tokens {
        let last = Tokens::told_in(self.last.make_contiguous());
        // A short answer is whole in its end.
        if self.first.len() < FIRST { last } else { last.larger(Tokens::told_in(&self.first)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str =
        "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":1200,\"output_tokens\":1}}}\n\n";
    const END: &str =
        "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":345}}\n\ndata: {\"type\":\"message_stop\"}\n\n";

    #[test]
    fn both_ends_of_a_long_stream_are_read_however_it_is_cut() {
        let stream = format!("{START}{}{END}", "data: {\"delta\":\"words\"}\n\n".repeat(5_000));
        for size in [1, 7, 1000, 2048, 5000, stream.len()] {
            let mut glance = Glance::default();
            stream.as_bytes().chunks(size).for_each(|piece| glance.feed(piece));
            assert_eq!(glance.tokens(), Tokens { input: 1200, output: 345 }, "in pieces of {size}");
            assert!(glance.first.len() <= FIRST && glance.last.len() <= LAST);
        }
    }

    #[test]
    fn an_answer_that_tells_nothing_counts_nothing() {
        let mut glance = Glance::default();
        assert_eq!(glance.tokens(), Tokens::default());
        glance.feed(b"{\"text\":\"\\\"input_tokens\\\": 7\"}");
        assert_eq!(glance.tokens(), Tokens::default(), "the model's own words are no count");
    }
}
