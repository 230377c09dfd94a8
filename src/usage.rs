//! Counts the model's tokens in passing, where an agent has a limit of them: reads the numbers that providers put into their
//! answers, and holds nothing back.

use memchr::memmem;

/// Members that hold a count of what went in, of every dialect.
const INPUT: [&str; 3] = ["\"input_tokens\"", "\"prompt_tokens\"", "\"promptTokenCount\""];

/// Members that hold a count of what came out.
const OUTPUT: [&str; 3] = ["\"output_tokens\"", "\"completion_tokens\"", "\"candidatesTokenCount\""];

/// Longer than any member's name with its number, so that one that is split over two chunks is found.
const CARRY: usize = 64;

/// The counts of one answer. Streams repeat them as they grow, so the largest counts.
#[derive(Debug, Default)]
pub struct TokenCounter {
    carry: Vec<u8>,
    input: u64,
    output: u64,
}

impl TokenCounter {
    /// Looks at the next piece of the answer.
    pub fn feed(&mut self, piece: &[u8]) {
        self.carry.extend_from_slice(piece);
        self.input = largest(&self.carry, &INPUT).unwrap_or(0).max(self.input);
        self.output = largest(&self.carry, &OUTPUT).unwrap_or(0).max(self.output);
        let done = self.carry.len().saturating_sub(CARRY);
        self.carry.drain(..done);
    }

    /// In and out together.
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

fn largest(text: &[u8], names: &[&str]) -> Option<u64> {
    let after = names.iter().flat_map(|name| memmem::find_iter(text, name.as_bytes()).map(|at| at + name.len()));
    after.filter_map(|at| number(&text[at..])).max()
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
}
