//! Checks keys and types of a tree against the JSON Schema of `raw`, and reports everything that is wrong at once.

use serde_json::Value;

use super::fault::Fault;
use super::node::{Content, Entry, Node};

/// Takes what is wrong out of the tree, so that the rest can be read on, and tells about each.
pub(super) fn check(tree: &mut Node, schema: &Value) -> Checked {
    let mut checked = Checked::default();
    let mut path = Vec::new();
    Walk { root: schema, found: &mut checked }.node(tree, schema, &mut path);
    checked
}

/// What a check found.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) faults: Vec<Fault>,
    /// Where nodes were taken out.
    pub(super) removed: Vec<Vec<String>>,
}

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Checked,
}

impl<'a> Walk<'a> {
    /// Whether the node may stay.
    fn node(&mut self, node: &mut Node, schema: &'a Value, path: &mut Vec<String>) -> bool {
        let schemas = self.alternatives(schema);
        let fitting = schemas.iter().find(|schema| fits(&node.content, schema));
        let Some(schema) = fitting else {
            let wanted =
                schemas.iter().map(|schema| wanted(schema)).filter(|word| *word != "nothing").collect::<Vec<_>>();
            let message = format!("this is {}, but {} belongs here.", kind(&node.content), wanted.join(" or "));
            self.fault(node, path, message);
            return false;
        };
        match &mut node.content {
            Content::Text(text) => {
                let allowed: Vec<&str> =
                    schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                if !allowed.is_empty() && !allowed.contains(&text.as_str()) {
                    let near = did_you_mean(text, &allowed);
                    let message = format!("\"{text}\" is not known here; allowed: {}.{near}", allowed.join(", "));
                    self.fault(node, path, message);
                    return false;
                }
            }
            Content::Number(number) => {
                let (low, high) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
                let value = number.as_f64().unwrap_or_default();
                if low.is_some_and(|low| value < low) || high.is_some_and(|high| value > high) || value.fract() != 0.0 {
                    self.fault(
                        node,
                        path,
                        "this number is out of range; a whole number, 0 or more, belongs here.".to_owned(),
                    );
                    return false;
                }
            }
            Content::List(items) => self.items(items, schema, path),
            Content::Map(entries) => return self.entries(entries, schema, path),
            Content::Null | Content::Bool(_) => {}
        }
        true
    }

    fn items(&mut self, items: &mut Vec<Node>, schema: &'a Value, path: &mut Vec<String>) {
        let mut index = 0;
        items.retain_mut(|item| {
            path.push(index.to_string());
            let stays = self.node(item, &schema["items"], path);
            path.pop();
            index += 1;
            stays
        });
    }

    fn entries(&mut self, entries: &mut Vec<Entry>, schema: &'a Value, path: &mut Vec<String>) -> bool {
        let known = schema["properties"].as_object();
        let mut seen: Vec<String> = Vec::new();
        entries.retain_mut(|entry| {
            path.push(entry.key.clone());
            let stays = self.entry(entry, schema, known, &seen, path);
            seen.push(entry.key.clone());
            path.pop();
            stays
        });
        let mut whole = true;
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !seen.iter().any(|key| key == required) {
                whole = false;
                let at = entries.first().map(|entry| entry.place.clone());
                if let Some(place) = at {
                    let message = format!("`{required}` is missing here.");
                    self.found.faults.push(Fault::at(&place, path.join("."), message));
                }
            }
        }
        if !whole {
            self.found.removed.push(path.clone());
        }
        whole
    }

    fn entry(
        &mut self,
        entry: &mut Entry,
        schema: &'a Value,
        known: Option<&'a serde_json::Map<String, Value>>,
        seen: &[String],
        path: &mut Vec<String>,
    ) -> bool {
        if seen.contains(&entry.key) {
            self.found.faults.push(Fault::at(
                &entry.place,
                path.join("."),
                format!("`{}` stands here twice.", entry.key),
            ));
            return false;
        }
        let below = known.and_then(|known| known.get(&entry.key));
        // A key with nothing behind it is a key that is not there; in free maps null has a meaning and stays.
        let free = &schema["additionalProperties"];
        match below {
            Some(_) if matches!(entry.node.content, Content::Null) => true,
            Some(below) => self.node(&mut entry.node, below, path),
            None if free.is_object() => self.node(&mut entry.node, free, path),
            None => {
                let allowed: Vec<&str> = known.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                let near = did_you_mean(&entry.key, &allowed);
                let shown: String = entry.key.chars().filter(|c| !c.is_control()).take(60).collect();
                let message = format!("unknown key `{shown}`; allowed here: {}.{near}", allowed.join(", "));
                self.found.faults.push(Fault::at(&entry.place, path.join("."), message));
                self.found.removed.push(path.clone());
                false
            }
        }
    }

    fn fault(&mut self, node: &Node, path: &[String], message: String) {
        self.found.faults.push(Fault::at(&node.place, path.join("."), message));
        self.found.removed.push(path.to_vec());
    }

    /// A schema with references followed and alternatives laid side by side.
    fn alternatives(&self, schema: &'a Value) -> Vec<&'a Value> {
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
            return self.alternatives(&self.root["$defs"][name]);
        }
        match schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            Some(several) => several.iter().flat_map(|one| self.alternatives(one)).collect(),
            None => vec![schema],
        }
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => vec!["object"],
    }
}

fn fits(content: &Content, schema: &Value) -> bool {
    let name = match content {
        Content::Null => "null",
        Content::Bool(_) => "boolean",
        Content::Number(_) => "integer",
        Content::Text(_) => "string",
        Content::List(_) => "array",
        Content::Map(_) => "object",
    };
    types(schema).contains(&name)
}

fn wanted(schema: &Value) -> &'static str {
    match types(schema).into_iter().find(|name| *name != "null") {
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some("string") => "text",
        Some("array") => "a list",
        Some("object") => "a map of keys",
        _ => "nothing",
    }
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Null => "empty",
        Content::Bool(_) => "true or false",
        Content::Number(_) => "a number",
        Content::Text(_) => "text",
        Content::List(_) => "a list",
        Content::Map(_) => "a map of keys",
    }
}

/// The nearest of what is allowed, if it is near.
pub(super) fn did_you_mean(text: &str, allowed: &[&str]) -> String {
    let nearest = allowed.iter().map(|word| (distance(text, word), *word)).min();
    match nearest {
        Some((distance, word)) if distance <= 2.max(text.len() / 4) && distance < word.len() => {
            format!(" Did you mean `{word}`?")
        }
        _ => String::new(),
    }
}

/// Levenshtein's: letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(80).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
