//! Names in the configuration: of accounts and agents.
//!
//! One grammar, `[a-z0-9][a-z0-9-]{0,31}`, so that a name is safe in a path, a file name, a metric label and a log line
//! without escaping.

use std::fmt;

/// The grammar of a name, for messages.
pub const GRAMMAR: &str = "1 to 32 of a-z, 0-9 and '-', not starting with '-'";

/// The name of an account, also the first segment of the agent's path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Box<str>);

/// The name of an agent that holds a key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentName(Box<str>);

/// The text is not a name; see [`GRAMMAR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAName;

macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// Parses a name; the whole text must match the grammar.
            pub fn parse(text: &str) -> Result<Self, NotAName> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NotAName) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(AccountName);
name!(AgentName);

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a name: {GRAMMAR}")
    }
}

impl std::error::Error for NotAName {}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_escaping() {
        for good in ["a", "claude", "0", "work-2", &"a".repeat(32)] {
            assert!(AccountName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a b", "a/b", "..", "ä", "a\n", &"a".repeat(33)] {
            assert!(AccountName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
