//! Usage of an account: the model's tokens as responses report them ([`TokenCounter`]), requests by the hour ([`HourlyUsage`]) and
//! the quota that remains ([`Quota`]).

mod hourly;
mod quota;
mod token_counter;

pub use hourly::{Hour, HourlyUsage};
pub use quota::Quota;
pub use token_counter::TokenCounter;

/// Tokens of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the completion.
    pub output: u64,
}

impl TokenCounts {
    /// Input and output together; saturates.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    fn max(self, other: Self) -> Self {
        Self { input: self.input.max(other.input), output: self.output.max(other.output) }
    }
}
