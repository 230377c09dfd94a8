//! Collects what is wrong with values, each at its place in the tree.

use super::fault::{Fault, Place};
use super::node::{Found, Node};

/// Where faults are told; `prefix` is where the looked-at part stands in the whole file.
pub(super) struct Reporter<'a> {
    tree: &'a Node,
    prefix: Vec<String>,
    /// Where to point when the place is in a shipped file, which no operator can change.
    fallback: Place,
    faults: &'a mut Vec<Fault>,
    /// Already told: what is below is not told again.
    told: &'a [Vec<String>],
}

impl<'a> Reporter<'a> {
    /// Tells of `tree`, which stands at `prefix` in the file.
    pub(super) fn new(
        tree: &'a Node,
        prefix: Vec<String>,
        fallback: Place,
        faults: &'a mut Vec<Fault>,
        told: &'a [Vec<String>],
    ) -> Self {
        Self { tree, prefix, fallback, faults, told }
    }

    /// How many faults there are so far.
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }

    /// A value is wrong.
    pub(super) fn fault(&mut self, path: &[&str], message: &str) {
        let path: Vec<String> = path.iter().map(|&step| step.to_owned()).collect();
        let place = match self.tree.find(&path) {
            Found::Value { value, .. } => value.clone(),
            Found::Nearest(place) => place.clone(),
        };
        self.push(place, &path, message.to_owned());
    }

    /// The key at the path is wrong, not its value.
    pub(super) fn key(&mut self, path: &[&str], message: &str) {
        let path: Vec<String> = path.iter().map(|&step| step.to_owned()).collect();
        let place = match self.tree.find(&path) {
            Found::Value { key, .. } => key.clone(),
            Found::Nearest(place) => place.clone(),
        };
        self.push(place, &path, message.to_owned());
    }

    /// Something is not there that must be.
    pub(super) fn missing(&mut self, path: &[&str], what: &str) {
        let whole: Vec<String> = self.prefix.iter().cloned().chain(path.iter().map(|&step| step.to_owned())).collect();
        // What was taken out because it is wrong is told already, and is not missing.
        if self.told.iter().any(|told| told.starts_with(&whole) || whole.starts_with(told)) {
            return;
        }
        let place = self.fallback.clone();
        self.faults.push(Fault::at(&place, whole.join("."), format!("something is missing: {what}.")));
    }

    /// Parses a value that may be absent.
    pub(super) fn optional<T>(
        &mut self,
        path: &[&str],
        text: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(text?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(path, &message);
                None
            }
        }
    }

    /// Parses every item of a list.
    pub(super) fn each<T, U>(&mut self, path: &[&str], items: &[T], parse: impl Fn(&T) -> Result<U, String>) -> Vec<U> {
        let mut parsed = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match parse(item) {
                Ok(value) => parsed.push(value),
                Err(message) => {
                    let index = index.to_string();
                    let at: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
                    self.fault(&at, &message);
                }
            }
        }
        parsed
    }

    fn push(&mut self, place: Place, path: &[String], message: String) {
        let shipped = place.source.name.starts_with("config/providers/");
        let place = if shipped { self.fallback.clone() } else { place };
        let whole = self.prefix.iter().chain(path).cloned().collect::<Vec<_>>().join(".");
        self.faults.push(Fault::at(&place, whole, message));
    }
}
