//! Collects faults while a configuration is read, and finds the position of a value.

use std::cell::RefCell;
use std::fmt::Display;

use super::fault::{Fault, Span};
use super::spanned_yaml::{Content, Found, Node};
use crate::oauth::profile::values::InvalidValue;

/// Collects faults, so that one run reports all of them.
#[derive(Default)]
pub(super) struct FaultSink {
    pub(super) faults: RefCell<Vec<Fault>>,
    /// Reports that do not prevent a start.
    pub(super) warnings: RefCell<Vec<Fault>>,
    /// Paths whose fault was reported: their absence is no further fault.
    faulty: RefCell<Vec<Vec<String>>>,
    /// Paths of missing values: what a shipped profile needs from the operator.
    pub(super) missing: RefCell<Vec<String>>,
}

impl FaultSink {
    pub(super) fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Records that the fault of the value at a path was reported.
    pub(super) fn mark_faulty(&self, path: &[String]) {
        self.faulty.borrow_mut().push(path.to_vec());
    }

    /// Whether a fault at, above or below this path was reported.
    pub(super) fn has_fault_near(&self, path: &[String]) -> bool {
        self.faulty.borrow().iter().any(|taken| path.starts_with(taken) || taken.starts_with(path))
    }
}

/// A path in a tree whose values are being read.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    sink: &'a FaultSink,
    root: &'a Node,
    /// The path of `root` in the operator's file.
    base: &'a [String],
    /// The position of a missing value; by default the nearest key that exists.
    anchor: Option<&'a Span>,
    path: Vec<String>,
    point_at_key: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(sink: &'a FaultSink, root: &'a Node) -> Self {
        Self { sink, root, base: &[], anchor: None, path: Vec::new(), point_at_key: false }
    }

    /// A tree at the path `base` of the operator's file that is only partly written there (a profile).
    pub(super) fn within(sink: &'a FaultSink, root: &'a Node, base: &'a [String], anchor: Option<&'a Span>) -> Self {
        Self { sink, root, base, anchor, path: Vec::new(), point_at_key: false }
    }

    pub(super) fn sink(&self) -> &'a FaultSink {
        self.sink
    }

    /// One step down: a key or an index.
    pub(super) fn at(&self, step: impl Display) -> Self {
        let mut below = self.clone();
        below.path.push(step.to_string());
        below
    }

    /// The same path, but faults point at the key instead of its value.
    pub(super) fn at_key(&self) -> Self {
        Self { point_at_key: true, ..self.clone() }
    }

    /// The path as a person writes it: `agent.keys.0.name`.
    pub(super) fn name(&self) -> String {
        self.full_path().join(".")
    }

    /// Reports a fault of the value here. `predicate` continues a sentence whose subject is the key: `is not a duration; …`.
    pub(super) fn wrong(&self, predicate: impl Display) {
        self.report(format!("`{}` {predicate}.", self.name()));
    }

    /// As [`Scope::wrong`], and records the value as faulty.
    pub(super) fn refuse(&self, predicate: impl Display) {
        self.wrong(predicate);
        self.sink.mark_faulty(&self.full_path());
    }

    /// Reports a fault here; the message is a whole sentence.
    pub(super) fn report(&self, sentence: String) {
        let span = match self.root.find(&self.path) {
            Found::Value { key, .. } if self.point_at_key => key,
            Found::Value { value, .. } => value,
            Found::Nearest(span) => span,
        };
        self.sink.push(Fault::at(span, sentence));
    }

    /// Reports that a value is missing here, unless it is absent because it was faulty.
    pub(super) fn missing(&self, because: impl Display) {
        if self.has_fault_near() {
            return;
        }
        let span = match (self.anchor, self.root.find(&self.path)) {
            (Some(anchor), _) => anchor,
            (None, Found::Value { key, .. }) => key,
            (None, Found::Nearest(span)) => span,
        };
        self.sink.missing.borrow_mut().push(self.path.join("."));
        self.sink.push(Fault::at(span, format!("`{}` is missing: {because}.", self.name())));
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

    /// Whether a fault at, above or below was reported.
    pub(super) fn has_fault_near(&self) -> bool {
        self.sink.has_fault_near(&self.full_path())
    }

    /// Parses a text, or reports why it is invalid.
    pub(super) fn read<T>(&self, text: &str, parse: impl FnOnce(&str) -> Result<T, InvalidValue>) -> Option<T> {
        parse(text).map_err(|predicate| self.wrong(predicate)).ok()
    }

    fn full_path(&self) -> Vec<String> {
        self.base.iter().chain(&self.path).cloned().collect()
    }
}
