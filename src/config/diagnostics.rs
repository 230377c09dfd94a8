//! Where faults are gathered while a configuration is read, and the way from a value back to its place.

use std::cell::RefCell;
use std::fmt::Display;

use super::fault::{Fault, Place};
use super::spanned_yaml::{Content, Found, Node};
use crate::oauth::profile::values::InvalidValue;

/// Gathers faults, so that one run tells all of them.
#[derive(Default)]
pub(super) struct Sink {
    faults: RefCell<Vec<Fault>>,
    /// What does not stop Pixy from starting.
    warnings: RefCell<Vec<Fault>>,
    /// What was already found faulty and taken out of the tree: its absence is no further fault.
    taken_out: RefCell<Vec<Vec<String>>>,
    /// Paths of what was missing: what a shipped profile needs from the operator.
    missing: RefCell<Vec<String>>,
}

impl Sink {
    pub(super) fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    pub(super) fn warn(&self, warning: Fault) {
        self.warnings.borrow_mut().push(warning);
    }

    pub(super) fn take_warnings(&self) -> Vec<Fault> {
        self.warnings.take()
    }

    /// Notes that the value at a path was faulty and is no longer in the tree.
    pub(super) fn take_out(&self, path: &[String]) {
        self.taken_out.borrow_mut().push(path.to_vec());
    }

    /// Whether something at, above or below this path was taken out.
    pub(super) fn was_touched(&self, path: &[String]) -> bool {
        self.taken_out.borrow().iter().any(|taken| path.starts_with(taken) || taken.starts_with(path))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }

    pub(super) fn into_missing(self) -> Vec<String> {
        self.missing.into_inner()
    }
}

/// A value with its meaning; `None` only after a fault was told.
pub(super) type Read<T> = Option<T>;

/// A place in a tree, as a path, while the tree's values are being given a meaning.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    sink: &'a Sink,
    root: &'a Node,
    /// The path of `root` itself in the operator's file.
    base: &'a [String],
    /// Where to point when something is missing; by default the nearest key that exists.
    anchor: Option<&'a Place>,
    path: Vec<String>,
    point_at_key: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(sink: &'a Sink, root: &'a Node) -> Self {
        Self { sink, root, base: &[], anchor: None, path: Vec::new(), point_at_key: false }
    }

    /// A tree that stands at `base` of the operator's file but is not wholly written there (a profile).
    pub(super) fn within(sink: &'a Sink, root: &'a Node, base: &'a [String], anchor: Option<&'a Place>) -> Self {
        Self { sink, root, base, anchor, path: Vec::new(), point_at_key: false }
    }

    pub(super) fn sink(&self) -> &'a Sink {
        self.sink
    }

    /// One step down: a key, or an item's number.
    pub(super) fn at(&self, step: impl Display) -> Self {
        let mut below = self.clone();
        below.path.push(step.to_string());
        below
    }

    /// The same place, but faults point at the key and not at its value.
    pub(super) fn at_key(&self) -> Self {
        Self { point_at_key: true, ..self.clone() }
    }

    /// The way here as a person writes it.
    pub(super) fn name(&self) -> String {
        self.full_path().join(".")
    }

    /// Something is wrong with the value here. Of the message's sentence the subject is the key: `"is not a duration; …"`.
    pub(super) fn wrong(&self, predicate: impl Display) {
        self.say(format!("`{}` {predicate}.", self.name()));
    }

    /// As [`Scope::wrong`]; and what is absent for it is no further fault.
    pub(super) fn refuse(&self, predicate: impl Display) {
        self.wrong(predicate);
        self.sink.take_out(&self.full_path());
    }

    /// Something is wrong here; the message is a whole sentence.
    pub(super) fn say(&self, sentence: String) {
        let place = match self.root.find(&self.path) {
            Found::Value { key, .. } if self.point_at_key => key,
            Found::Value { value, .. } => value,
            Found::Nearest(place) => place,
        };
        self.sink.push(Fault::at(place, self.name(), sentence));
    }

    /// Nothing is here, and something must be. Silent when it is absent only because it was faulty.
    pub(super) fn missing(&self, because: impl Display) {
        if self.is_touched() {
            return;
        }
        let place = match (self.anchor, self.root.find(&self.path)) {
            (Some(anchor), _) => anchor,
            (None, Found::Value { key, .. }) => key,
            (None, Found::Nearest(place)) => place,
        };
        self.sink.missing.borrow_mut().push(self.path.join("."));
        self.sink.push(Fault::at(place, self.name(), format!("`{}` is missing: {because}.", self.name())));
    }

    /// The node here, unless it is absent, null or faulty.
    pub(super) fn given(&self) -> Option<&'a Content> {
        let content = &self.root.get_path(&self.path)?.content;
        (!matches!(content, Content::Null | Content::Faulty)).then_some(content)
    }

    /// Whether null is written here.
    pub(super) fn is_null(&self) -> bool {
        self.root.get_path(&self.path).is_some_and(|node| matches!(node.content, Content::Null))
    }

    /// Whether something at, above or below was already found faulty.
    pub(super) fn is_touched(&self) -> bool {
        self.sink.was_touched(&self.full_path())
    }

    /// Gives the text a meaning, or says why it has none.
    pub(super) fn read<T>(&self, text: &str, parse: impl FnOnce(&str) -> Result<T, InvalidValue>) -> Option<T> {
        parse(text).map_err(|predicate| self.wrong(predicate)).ok()
    }

    fn full_path(&self) -> Vec<String> {
        self.base.iter().chain(&self.path).cloned().collect()
    }
}
