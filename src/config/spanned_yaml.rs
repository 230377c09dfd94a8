//! A YAML document as a tree in which every key and value has its position.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::{Location, Spanned};

use super::fault::{Fault, SourceText, Span};

/// A value and its position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) content: Content,
}

/// The value of a [`Node`].
#[derive(Debug, Clone)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Replaces a value whose fault was reported; read as absent.
    Faulty,
}

/// One key of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) span: Span,
    pub(super) node: Node,
}

impl Node {
    /// Parses one document.
    ///
    /// # Errors
    /// One fault, when the text is not YAML or exceeds the limits on depth, nodes and aliases.
    pub(super) fn parse(source: &Arc<SourceText>) -> Result<Self, Box<Fault>> {
        let options = serde_yaml::options! {
            // `off`, `yes` and `no` are words, not booleans.
            strict_booleans: true,
            null_as_string: true,
            // `check` reports duplicates, with all other faults.
            duplicate_keys: serde_yaml::DuplicateKeyPolicy::PassThrough,
            merge_keys: serde_yaml::MergeKeyPolicy::Error,
            with_snippet: false,
            emit_comments: false,
            budget: serde_yaml::budget! { max_depth: 32, max_documents: 1, max_nodes: 20_000, max_aliases: 100, max_anchors: 100 },
            alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 10_000, max_replay_stack_depth: 8 },
        };
        match serde_yaml::from_str_with_options::<Option<Spanned<Shape>>>(&source.text, options) {
            Ok(Some(shape)) => Ok(Self::from_shape(shape, source)),
            Ok(None) => Ok(Self { span: start(source), content: Content::Null }),
            Err(error) => Err(Box::new(not_yaml(&error, source))),
        }
    }

    /// The entry of a key, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        let Content::Map(entries) = &self.content else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    /// The node one step down, and the position of its key or item. List items are numbered from 0.
    fn child(&self, step: &str) -> Option<(&Span, &Self)> {
        match &self.content {
            Content::Map(_) => self.get(step).map(|entry| (&entry.span, &entry.node)),
            Content::List(items) => items.get(step.parse::<usize>().ok()?).map(|item| (&item.span, item)),
            _ => None,
        }
    }

    /// The node at a path, if there is one.
    pub(super) fn get_path(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| Some(node.child(step)?.1))
    }

    /// As [`Node::get_path`].
    pub(super) fn find_mut(&mut self, path: &[String]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, step| match &mut node.content {
            Content::Map(entries) => entries.iter_mut().find(|entry| entry.key == *step).map(|entry| &mut entry.node),
            Content::List(items) => items.get_mut(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The positions of the node at a path, or of the deepest key on the path that exists.
    pub(super) fn find(&self, path: &[String]) -> Found<'_> {
        let (mut node, mut deepest) = (self, &self.span);
        for step in path {
            let Some((key, child)) = node.child(step) else { return Found::Nearest(deepest) };
            (node, deepest) = (child, key);
        }
        Found::Value { value: &node.span, key: deepest }
    }

    /// Merges `over` into this tree: maps merge key by key, every other value (null too) replaces. Positions are kept.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.content, over) {
            (Content::Map(below), Self { content: Content::Map(above), .. }) => {
                for entry in above.into_iter().filter(|entry| !matches!(entry.node.content, Content::Faulty)) {
                    match below.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => {
                            known.span = entry.span;
                            known.node.merge(entry.node);
                        }
                        None => below.push(entry),
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    fn from_shape(spanned: Spanned<Shape>, source: &Arc<SourceText>) -> Self {
        let span = span(spanned.referenced, source);
        let content = match spanned.value {
            Shape::Null => Content::Null,
            Shape::Bool(yes) => Content::Bool(yes),
            Shape::Number(number) => Content::Number(number),
            Shape::Text(text) => Content::Text(text),
            Shape::List(items) => Content::List(items.into_iter().map(|item| Self::from_shape(item, source)).collect()),
            Shape::Map(pairs) => {
                let entry = |(key, value): (Spanned<String>, _)| Entry {
                    span: self::span(key.referenced, source),
                    key: key.value,
                    node: Self::from_shape(value, source),
                };
                Content::Map(pairs.into_iter().map(entry).collect())
            }
        };
        Self { span, content }
    }
}

/// See [`Node::find`].
pub(super) enum Found<'a> {
    /// The position of the value, and of its key (or item).
    Value { value: &'a Span, key: &'a Span },
    /// The position of the last key that exists.
    Nearest(&'a Span),
}

/// The first character of a text.
pub(super) fn start(source: &Arc<SourceText>) -> Span {
    Span { source: Arc::clone(source), line: 1, column: 1, length: 1 }
}

fn span(location: Location, source: &Arc<SourceText>) -> Span {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Span {
        source: Arc::clone(source),
        line: count(location.line()),
        column: count(location.column()),
        length: count(location.span().len()),
    }
}

fn not_yaml(error: &serde_yaml::Error, source: &Arc<SourceText>) -> Fault {
    let place = error.location().map_or_else(|| start(source), |location| span(location, source));
    let reason = error.without_snippet().to_string();
    let reason = reason.lines().next().unwrap_or_default();
    // The fault prints the position itself.
    let reason = reason.split(" at line ").next().unwrap_or_default().trim_end_matches(['.', ',', ' ']);
    let message = if reason.starts_with("budget breached") || reason.contains("limit") {
        format!("a configuration is one YAML document of modest size; this exceeds it: {reason}.")
    } else {
        format!("this is not YAML that Pixy can read: {reason}.")
    };
    Fault::at(&Span { length: 1, ..place }, message)
}

/// A document as the YAML parser returns it; [`Node`] adds its source.
enum Shape {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Spanned<Shape>>),
    Map(Vec<(Spanned<String>, Spanned<Shape>)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        Shape::deserialize(deserializer)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Shape, E> {
        Ok(Shape::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Shape, E> {
        Ok(Shape::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Shape, E> {
        Ok(Number::from_f64(number).map_or_else(|| Shape::Text(number.to_string()), Shape::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Shape::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        Node::parse(&Arc::new(SourceText { name: "t.yaml".into(), text: text.into() })).unwrap()
    }

    fn json(node: &Node) -> serde_json::Value {
        serde::Deserialize::deserialize(node).unwrap()
    }

    fn value_place(node: &Node, path: &str) -> (usize, usize, usize) {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let Found::Value { value, .. } = node.find(&path) else { panic!("{path:?} is not there") };
        (value.line, value.column, value.length)
    }

    #[test]
    fn every_value_knows_its_place() {
        let tree = node("link: off\nagent:\n  listen: 127.0.0.1:8700\n  keys: [ {name: coder}, 7 ]\n");
        assert_eq!(json(&tree)["link"], "off");
        assert_eq!(value_place(&tree, "link"), (1, 7, 3));
        assert_eq!(value_place(&tree, "agent.listen"), (3, 11, 14));
        assert_eq!(value_place(&tree, "agent.keys.0.name"), (4, 18, 5));
        assert_eq!(value_place(&tree, "agent.keys.1"), (4, 26, 1));
        let entry = tree.get("agent").unwrap().node.get("listen").unwrap();
        assert_eq!((entry.span.line, entry.span.column, entry.span.length), (3, 3, 6));
    }

    #[test]
    fn maps_merge_and_everything_else_replaces() {
        let mut below = node("a: {b: 1, c: [1, 2], d: {e: 1}}\nf: 1\n");
        below.merge(node("a: {c: [3], d: null, g: x}\n"));
        assert_eq!(json(&below).to_string(), r#"{"a":{"b":1,"c":[3],"d":null,"g":"x"},"f":1}"#);
    }

    #[test]
    fn what_is_not_yaml_is_one_fault_with_its_place() {
        for (text, place) in [
            ("a: [1, 2\nb: 3", (2, 2)),
            ("a: b: c", (1, 5)),
            ("a: 1\n---\nb: 2\n", (2, 1)),
            ("a: &a [1]\n? [b]\n: 2", (2, 3)),
        ] {
            let fault = Node::parse(&Arc::new(SourceText { name: "t.yaml".into(), text: text.into() })).unwrap_err();
            assert_eq!(fault.place(), Some(place), "{fault}");
        }
    }

    #[test]
    fn an_empty_text_is_null() {
        for text in ["", "# nothing\n", "---\n"] {
            assert_eq!(json(&node(text)), serde_json::Value::Null);
        }
    }
}
