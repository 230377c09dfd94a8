//! The shape of a configuration: a tree against the schema of [`super::raw`], all faults in one walk.
//!
//! What is faulty is taken out of the tree, so that the rest can still be read for its meaning and its own faults told in
//! the same run. The subset of JSON Schema is the one that schemars writes for those structures.

use std::fmt::Write as _;

use serde_json::Value;

use super::diagnostics::Sink;
use super::fault::{Fault, Place};
use super::raw;
use super::spanned_yaml::{Content, Entry, Node};

/// Checks a tree. What comes back holds no faulty part.
pub(super) fn check(node: Node, schema: &Value, path: &[String], sink: &Sink) -> Node {
    let walk = Walk { root: schema, sink };
    let place = node.place.clone();
    let mut path = path.to_vec();
    walk.value(node, schema, &mut path).unwrap_or(Node { place, content: Content::Null })
}

struct Walk<'a> {
    root: &'a Value,
    sink: &'a Sink,
}

impl<'a> Walk<'a> {
    /// `None` when the value is faulty as a whole.
    fn value(&self, node: Node, schema: &'a Value, path: &mut Vec<String>) -> Option<Node> {
        let branches = self.branches(schema);
        let fitting: Vec<&Value> = branches.iter().copied().filter(|branch| fits(&node.content, branch)).collect();
        let words: Vec<&str> = branches.iter().flat_map(|branch| words(branch)).collect();
        if let Content::Text(text) = &node.content
            && !words.is_empty()
            && fitting.iter().all(|branch| !self::words(branch).is_empty())
        {
            if words.contains(&text.as_str()) {
                return Some(node);
            }
            let hint = did_you_mean(text, words.iter().copied());
            let said =
                format!("`{}` cannot be `{}`; allowed here: {}.{hint}", name(path), short(text), expected(&branches));
            return self.refuse(&node, path, said);
        }
        let Some(schema) = fitting.into_iter().find(|branch| self::words(branch).is_empty()) else {
            let mut said = format!("`{}` must be {}, but is {}.", name(path), expected(&branches), kind(&node.content));
            let text_branch = branches.iter().find(|branch| has_type(branch, "string"));
            match (&node.content, text_branch) {
                (Content::Number(_), Some(branch))
                    if branch.get("pattern").is_some_and(|pattern| pattern == raw::DURATION) =>
                {
                    said.push_str(" Write it with a unit, like 90s.");
                }
                (Content::Number(_) | Content::Bool(_), Some(_)) => said.push_str(" Put it in quotes."),
                _ => {}
            }
            return self.refuse(&node, path, said);
        };
        match node.content {
            Content::Map(entries) => {
                let content = Content::Map(self.map(entries, schema, path, &node.place));
                Some(Node { content, ..node })
            }
            Content::List(items) => {
                let item_schema = schema.get("items").unwrap_or(&Value::Bool(true));
                let mut kept = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    path.push(index.to_string());
                    kept.extend(self.value(item, item_schema, path));
                    path.pop();
                }
                Some(Node { content: Content::List(kept), ..node })
            }
            Content::Number(ref number) => match out_of_range(number, schema) {
                Some(range) => {
                    let said = format!("`{}` must be {range}.", name(path));
                    self.refuse(&node, path, said)
                }
                None => Some(node),
            },
            _ => Some(node),
        }
    }

    fn map(&self, entries: Vec<Entry>, schema: &'a Value, path: &mut Vec<String>, place: &Place) -> Vec<Entry> {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            path.push(entry.key.clone());
            let property =
                known.and_then(|known| known.get(&entry.key)).or(others.filter(|others| !others.is_boolean()));
            if let Some(first) = kept.iter().find(|first| first.key == entry.key) {
                let said = format!("`{}` is given twice; the first is in line {}.", name(path), first.place.line);
                self.sink.push(Fault::at(&entry.place, name(path), said));
            } else if let Some(property) = property {
                let Entry { key, place, node } = entry;
                kept.extend(self.value(node, property, path).map(|node| Entry { key, place, node }));
            } else {
                let allowed: Vec<&str> =
                    known.into_iter().flat_map(serde_json::Map::keys).map(String::as_str).collect();
                self.unknown_key(&entry, &allowed, path);
            }
            path.pop();
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            path.push(required.to_owned());
            if !kept.iter().any(|entry| entry.key == required) && !self.sink.was_touched(path) {
                self.sink.push(Fault::at(place, name(path), format!("`{}` is missing.", name(path))));
                self.sink.take_out(path);
            }
            path.pop();
        }
        kept
    }

    fn unknown_key(&self, entry: &Entry, allowed: &[&str], path: &mut Vec<String>) {
        let mut said = format!("unknown key `{}`; allowed here: {}.", short(&entry.key), allowed.join(", "));
        if let Some(near) = nearest(&entry.key, allowed.iter().copied()) {
            let _ = write!(said, " Did you mean `{near}`?"); // writing to a String cannot fail
            // What was meant is not also missing.
            let written = path.pop();
            path.push(near.to_owned());
            self.sink.take_out(path);
            path.pop();
            path.extend(written);
        }
        self.sink.push(Fault::at(&entry.place, name(path), said));
    }

    fn refuse(&self, node: &Node, path: &[String], said: String) -> Option<Node> {
        self.sink.push(Fault::at(&node.place, name(path), said));
        self.sink.take_out(path);
        None
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

/// The known word nearest to what was written, if it is near.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are no typing mistakes, and the distance costs their product.
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

/// A value for a message: one short line.
pub(super) fn short(text: &str) -> String {
    let mut out: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// Insertions, removals, replacements and swaps of neighbours that lead from one word to the other.
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

fn fits(content: &Content, branch: &Value) -> bool {
    match content {
        _ if branch.is_boolean() => true,
        Content::Null => has_type(branch, "null"),
        Content::Bool(_) => has_type(branch, "boolean"),
        Content::Number(number) => {
            has_type(branch, "number") || (has_type(branch, "integer") && (number.is_u64() || number.is_i64()))
        }
        Content::Text(_) => has_type(branch, "string"),
        Content::List(_) => has_type(branch, "array"),
        Content::Map(_) => has_type(branch, "object"),
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

/// What may stand here, for a message.
fn expected(branches: &[&Value]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for branch in branches {
        let words = words(branch);
        if !words.is_empty() {
            kinds.extend(words.iter().map(|word| (*word).to_owned()));
            continue;
        }
        for (of_type, said) in
            [("string", "text"), ("boolean", "true or false"), ("integer", "a whole number"), ("array", "a list")]
        {
            if has_type(branch, of_type) {
                kinds.push(said.to_owned());
            }
        }
        if has_type(branch, "object") {
            let keys: Vec<&str> = branch
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(key, _)| key.as_str())
                .collect();
            kinds.push(if keys.is_empty() { "a map".to_owned() } else { format!("a map ({})", keys.join(", ")) });
        }
    }
    match kinds.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Null => "empty",
        Content::Bool(_) => "true or false",
        Content::Number(_) => "a number",
        Content::Text(_) => "text",
        Content::List(_) => "a list",
        Content::Map(_) => "a map",
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
