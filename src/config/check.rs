//! Checks the shape of a configuration: a tree against the schema of [`super::raw`], all faults in one walk.
//!
//! What is faulty is marked in the tree, so that the rest can still be read and its own faults reported in the same run. The
//! subset of JSON Schema is the one that schemars generates for those structures.

use std::fmt::Write as _;

use serde_json::Value;

use super::diagnostics::FaultSink;
use super::fault::{Fault, Span};
use super::spanned_yaml::{Content, Entry, Node};
use crate::oauth::profile::values::DURATION_PATTERN;

/// Reports what does not fit the schema and marks it as faulty.
pub(super) fn check(node: &mut Node, schema: &Value, sink: &FaultSink) {
    Walk { root: schema, sink }.value(node, schema, &mut Vec::new());
}

/// Keys of earlier releases, with the reason: for one release they are ignored with a warning.
const REMOVED: [(&str, &str); 1] = [("limits.streams", "agents connect by HTTP/1.1 only")];

/// Keys reserved for a later version, with what to write instead: they are refused.
const RESERVED: [(&str, &str); 1] =
    [("vault.postgres", "this version stores logins in files only; set vault.dir to a directory")];

fn keyed<'t>(table: &'t [(&str, &str)], path: &[String]) -> Option<&'t (&'t str, &'t str)> {
    let path = path.join(".");
    table.iter().find(|(key, _)| *key == path)
}

struct Walk<'a> {
    root: &'a Value,
    sink: &'a FaultSink,
}

impl<'a> Walk<'a> {
    fn value(&self, node: &mut Node, schema: &'a Value, path: &mut Vec<String>) {
        let branches = self.branches(schema);
        let fitting: Vec<&Value> = branches.iter().copied().filter(|branch| fits(&node.content, branch)).collect();
        let words: Vec<&str> = branches.iter().flat_map(|branch| words(branch)).collect();
        if let Content::Text(text) = &node.content
            && !words.is_empty()
            && fitting.iter().all(|branch| !self::words(branch).is_empty())
        {
            if !words.contains(&text.as_str()) {
                let hint = did_you_mean(text, words.iter().copied());
                let (name, allowed) = (name(path), expected(&branches));
                let message = format!("`{name}` cannot be `{}`; allowed here: {allowed}.{hint}", short(text));
                self.refuse(node, path, message);
            }
            return;
        }
        let Some(schema) = fitting.into_iter().find(|branch| self::words(branch).is_empty()) else {
            let message = wrong_type(&node.content, &branches, path);
            return self.refuse(node, path, message);
        };
        match &mut node.content {
            Content::Map(entries) => self.map(entries, schema, path, &node.span),
            Content::List(items) => {
                let item_schema = schema.get("items").unwrap_or(&Value::Bool(true));
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    self.value(item, item_schema, path);
                    path.pop();
                }
            }
            Content::Number(number) => {
                if let Some(range) = out_of_range(number, schema) {
                    self.refuse(node, path, format!("`{}` must be {range}.", name(path)));
                }
            }
            _ => {}
        }
    }

    fn map(&self, entries: &mut [Entry], schema: &'a Value, path: &mut Vec<String>, span: &Span) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| !others.is_boolean());
        for index in 0..entries.len() {
            let (before, from) = entries.split_at_mut(index);
            let Some(entry) = from.first_mut() else { break };
            path.push(entry.key.clone());
            if let Some(first) = before.iter().find(|first| first.key == entry.key) {
                let message = format!("`{}` is given twice; the first is in line {}.", name(path), first.span.line);
                self.sink.push(Fault::at(&entry.span, message));
                entry.node.content = Content::Faulty;
            } else if let Some(property) = known.and_then(|known| known.get(&entry.key)).or(others) {
                self.value(&mut entry.node, property, path);
            } else if let Some((_, reason)) = keyed(&REMOVED, path) {
                let message = format!("`{}` was removed and is ignored: {reason}. Delete the key.", name(path));
                self.sink.warnings.borrow_mut().push(Fault::at(&entry.span, message));
                entry.node.content = Content::Faulty;
            } else if let Some((_, reason)) = keyed(&RESERVED, path) {
                let message = format!("`{}` is reserved for a later version: {reason}.", name(path));
                self.sink.push(Fault::at(&entry.span, message));
                entry.node.content = Content::Faulty;
            } else {
                self.unknown_key(entry, &keys(schema), path);
                entry.node.content = Content::Faulty;
            }
            path.pop();
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            path.push(required.to_owned());
            if !entries.iter().any(|entry| entry.key == required) && !self.sink.has_fault_near(path) {
                self.sink.push(Fault::at(span, format!("`{}` is missing.", name(path))));
                self.sink.mark_faulty(path);
            }
            path.pop();
        }
    }

    fn unknown_key(&self, entry: &Entry, allowed: &[&str], path: &[String]) {
        let mut message = format!("unknown key `{}`; allowed here: {}.", short(&entry.key), allowed.join(", "));
        if let Some(near) = nearest(&entry.key, allowed.iter().copied()) {
            let _ = write!(message, " Did you mean `{near}`?"); // writing to a String cannot fail
            // The key that was meant is not also missing.
            let parent = path.split_last().map_or(path, |(_, parent)| parent);
            self.sink.mark_faulty(&[parent, &[near.to_owned()]].concat());
        }
        self.sink.push(Fault::at(&entry.span, message));
    }

    fn refuse(&self, node: &mut Node, path: &[String], message: String) {
        self.sink.push(Fault::at(&node.span, message));
        self.sink.mark_faulty(path);
        node.content = Content::Faulty;
    }

    /// The alternatives of a schema, references resolved.
    fn branches(&self, schema: &'a Value) -> Vec<&'a Value> {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return reference
                .strip_prefix('#')
                .and_then(|pointer| self.root.pointer(pointer))
                .map_or_else(Vec::new, |target| self.branches(target));
        }
        match schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
            Some(several) => several.iter().flat_map(|one| self.branches(one)).collect(),
            None => vec![schema],
        }
    }
}

/// The known word with the smallest edit distance, if it is at most 2 (for short words 1).
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are not typing mistakes, and the cost is the product of both lengths.
    if written.len() > 40 {
        return None;
    }
    let most = if written.len() < 4 { 1 } else { 2 };
    known.map(|word| (distance(written, word), word)).filter(|(far, _)| *far <= most).min().map(|(_, word)| word)
}

/// ` Did you mean …?`, or nothing.
pub(super) fn did_you_mean<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(written, known).map_or_else(String::new, |word| format!(" Did you mean `{word}`?"))
}

/// A value for a message, cut to one short line.
pub(super) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// The Damerau-Levenshtein distance (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let mut least =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn wrong_type(content: &Content, branches: &[&Value], path: &[String]) -> String {
    let mut message = format!("`{}` must be {}, but is {}.", name(path), expected(branches), kind(content).1);
    let text = branches.iter().find(|branch| has_type(branch, "string"));
    let is_duration = text.and_then(|text| text.get("pattern")).is_some_and(|pattern| pattern == DURATION_PATTERN);
    match content {
        Content::Number(_) if is_duration => message.push_str(" Write it with a unit, like 90s."),
        Content::Number(_) | Content::Bool(_) if text.is_some() => message.push_str(" Put it in quotes."),
        _ => {}
    }
    message
}

fn fits(content: &Content, branch: &Value) -> bool {
    match content {
        Content::Faulty => true,
        _ if branch.is_boolean() => true,
        Content::Number(number) if number.is_u64() || number.is_i64() => {
            has_type(branch, "integer") || has_type(branch, "number")
        }
        _ => has_type(branch, kind(content).0),
    }
}

fn has_type(branch: &Value, wanted: &str) -> bool {
    match branch.get("type") {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
        _ => branch.get("const").is_some_and(Value::is_string) && wanted == "string",
    }
}

/// The words of an enumeration.
fn words(branch: &Value) -> Vec<&str> {
    let one = branch.get("const").and_then(Value::as_str);
    let several = branch.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(several).collect()
}

fn out_of_range(number: &serde_json::Number, schema: &Value) -> Option<String> {
    let least = schema.get("minimum").and_then(Value::as_u64).unwrap_or(0);
    let of_format = match schema.get("format").and_then(Value::as_str) {
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        _ => u64::MAX,
    };
    let most = schema.get("maximum").and_then(Value::as_u64).unwrap_or(of_format);
    match number.as_u64() {
        Some(number) if (least..=most).contains(&number) => None,
        _ if most == u64::MAX => Some(format!("{least} or more")),
        _ => Some(format!("from {least} to {most}")),
    }
}

/// The keys of a map that are known.
fn keys(schema: &Value) -> Vec<&str> {
    let known = schema.get("properties").and_then(Value::as_object);
    known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect()
}

/// The allowed values, for a message.
fn expected(branches: &[&Value]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for branch in branches {
        let words = words(branch);
        if !words.is_empty() {
            kinds.extend(words.iter().map(|word| (*word).to_owned()));
            continue;
        }
        for (of_type, shown) in
            [("string", "text"), ("boolean", "true or false"), ("integer", "a whole number"), ("array", "a list")]
        {
            if has_type(branch, of_type) {
                kinds.push(shown.to_owned());
            }
        }
        if has_type(branch, "object") {
            let keys = keys(branch);
            kinds.push(if keys.is_empty() { "a map".to_owned() } else { format!("a map ({})", keys.join(", ")) });
        }
    }
    match kinds.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}

/// The JSON type of a value, and its name in a message.
fn kind(content: &Content) -> (&'static str, &'static str) {
    match content {
        Content::Null | Content::Faulty => ("null", "empty"),
        Content::Bool(_) => ("boolean", "true or false"),
        Content::Number(_) => ("number", "a number"),
        Content::Text(_) => ("string", "text"),
        Content::List(_) => ("array", "a list"),
        Content::Map(_) => ("object", "a map"),
    }
}

fn name(path: &[String]) -> String {
    if path.is_empty() { "the file".to_owned() } else { path.join(".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near() {
        let known = ["listen", "keys", "key_file"];
        assert_eq!(nearest("lissten", known.into_iter()), Some("listen"));
        assert_eq!(nearest("lsiten", known.into_iter()), Some("listen"));
        assert_eq!(nearest("port", known.into_iter()), None);
        assert_eq!(nearest(&"l".repeat(100_000), known.into_iter()), None);
    }
}
