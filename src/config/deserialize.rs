//! From a tree to a value: every fault is reported with its position.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::diagnostics::Scope;
use super::spanned_yaml::{Content, Entry, Node};

/// Deserializes a tree. A fault is reported, its node marked as faulty, and the rest read again without it, so that one run
/// reports all faults. `None` when a value that must be given is absent or faulty; the caller reports those that are absent.
pub(super) fn deserialize<T: for<'de> Deserialize<'de>>(node: &Node, here: &Scope) -> Option<T> {
    let mut reduced: Option<Node> = None;
    for _ in 0..MOST_FAULTS {
        let mut error = match T::deserialize(reduced.as_ref().unwrap_or(node)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        error.path.reverse();
        if !error.is_absence {
            error.path.iter().fold(here.clone(), |here, step| here.at(step)).refuse(&error.predicate);
        }
        if error.path.is_empty() {
            return None;
        }
        reduced.get_or_insert_with(|| node.clone()).find_mut(&error.path)?.content = Content::Faulty;
    }
    None
}

/// Each fault costs a pass over the tree.
const MOST_FAULTS: usize = 200;

/// The first fault of a pass.
#[derive(Debug)]
pub(super) struct Error {
    /// The keys and indices that lead to the value, innermost first.
    path: Vec<String>,
    predicate: String,
    /// A value that must be given is absent.
    is_absence: bool,
}

impl Error {
    fn below(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }
}

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(predicate: T) -> Self {
        Self { path: Vec::new(), predicate: predicate.to_string(), is_absence: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { is_absence: true, ..Self::custom(format!("needs {field}")) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.predicate)
    }
}

impl std::error::Error for Error {}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.content {
            Content::Null | Content::Faulty => visitor.visit_unit(),
            Content::Bool(yes) => visitor.visit_bool(*yes),
            Content::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Content::Text(text) => visitor.visit_borrowed_str(text),
            Content::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Content::Map(entries) => visitor.visit_map(Entries::new(entries, false)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.content {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.content {
            // Of a key with a fixed name, null means its default.
            Content::Map(entries) => visitor.visit_map(Entries::new(entries, true)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.content {
            Content::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let item = self.0.find(|(_, item)| !matches!(item.content, Content::Faulty));
        item.map(|(index, item)| seed.deserialize(item).map_err(|error| error.below(index.to_string()))).transpose()
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    skips_null: bool,
    value: Option<&'de Entry>,
}

impl<'de> Entries<'de> {
    fn new(entries: &'de [Entry], skips_null: bool) -> Self {
        Self { rest: entries.iter(), skips_null, value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let skips_null = self.skips_null;
        self.value = self.rest.find(|entry| match entry.node.content {
            Content::Faulty => false,
            Content::Null => !skips_null,
            _ => true,
        });
        let key = self.value.map(|entry| {
            seed.deserialize(StrDeserializer::new(&entry.key)).map_err(|error: Error| error.below(entry.key.clone()))
        });
        key.transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let entry = self.value.take().ok_or_else(|| de::Error::custom("has no value"))?;
        seed.deserialize(&entry.node).map_err(|error| error.below(entry.key.clone()))
    }
}
