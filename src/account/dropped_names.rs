//! The names that requests of an account lost last, for `pixy explain ACCOUNT --last`.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::lock::lock;

/// Names that were dropped, each once, the last first. Holds no values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedNames {
    /// Header fields.
    pub fields: VecDeque<String>,
    /// Query keys.
    pub query_keys: VecDeque<String>,
}

/// The names of one account, bounded.
#[derive(Default)]
pub(super) struct DroppedLog(Mutex<DroppedNames>);

/// Names kept of each kind.
const MAX_NAMES: usize = 32;

/// Characters kept of a name, which an agent chose.
const MAX_CHARACTERS: usize = 64;

impl DroppedLog {
    pub(super) fn record<'a>(&self, fields: impl Iterator<Item = &'a str>, query_keys: impl Iterator<Item = &'a str>) {
        let mut names = lock(&self.0);
        fields.for_each(|name| put_first(&mut names.fields, name));
        query_keys.for_each(|name| put_first(&mut names.query_keys, name));
    }

    pub(super) fn names(&self) -> DroppedNames {
        lock(&self.0).clone()
    }
}

fn put_first(names: &mut VecDeque<String>, name: &str) {
    let mut name: String = name.escape_default().take(MAX_CHARACTERS + 1).collect();
    if name.len() > MAX_CHARACTERS {
        name.truncate(MAX_CHARACTERS); // escaped text is ASCII
        name.push_str("...");
    }
    names.retain(|known| *known != name);
    names.push_front(name);
    names.truncate(MAX_NAMES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_bounded_and_escaped() {
        let log = DroppedLog::default();
        for number in 0..100 {
            log.record([format!("x-{number}").as_str()].into_iter(), ["k"].into_iter());
        }
        log.record(["x-70", &"y".repeat(10_000)].into_iter(), ["a\u{1b}[2J\u{202e}"].into_iter());
        let names = log.names();
        assert_eq!(names.fields.len(), MAX_NAMES);
        assert_eq!(names.fields[0], format!("{}...", "y".repeat(MAX_CHARACTERS)));
        assert_eq!(names.fields.iter().take(3).skip(1).collect::<Vec<_>>(), ["x-70", "x-99"]);
        assert_eq!(names.query_keys, ["a\\u{1b}[2J\\u{202e}", "k"]);
    }
}
