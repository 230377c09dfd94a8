//! Which file of `src` imports which, read off the source.
//!
//! A file imports another when its code outside tests names an item of it: in a `use`, or in a path that begins with `crate`,
//! `super`, `self` or a submodule. A name that a module re-exports belongs to the file that defines it, so that a detour by the
//! parent is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A module as segments: `["link", "page"]`.
type Module = Vec<String>;

struct File {
    path: PathBuf,
    code: String,
    /// What `use` brings into the module: the name, and the path as written.
    names: BTreeMap<String, Vec<String>>,
}

pub struct Imports {
    files: BTreeMap<Module, File>,
}

impl Imports {
    /// Of these files: each with its path below `src` and its text.
    pub fn of(sources: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut files = BTreeMap::new();
        let mut of_tests = BTreeSet::new();
        for (path, text) in sources {
            let mut module: Module =
                path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module == ["lib"] {
                module.clear();
            }
            let (code, tests) = without_tests(&super::code(&text));
            of_tests.extend(tests.into_iter().map(|name| [module.clone(), vec![name]].concat()));
            let names = uses(&code).into_iter().filter_map(|(name, path)| Some((name?, path))).collect();
            files.insert(module, File { path, code, names });
        }
        // A file that `#[path]` names ends in `_tests.rs`.
        let named_tests = |module: &Module| module.last().is_some_and(|name| name.ends_with("_tests"));
        files.retain(|module, _| !named_tests(module) && !of_tests.iter().any(|tests| module.starts_with(tests)));
        Self { files }
    }

    /// Pairs of files that import each other, by their paths, the lesser first. A module and its ancestors are no pair: a
    /// parent declares its submodules and calls them, and they may use the types that it holds.
    pub fn circles(&self) -> Vec<(String, String)> {
        let edges: BTreeSet<_> = self.files.keys().flat_map(|from| self.edges(from)).collect();
        let related = |one: &Module, other: &Module| one.starts_with(other) || other.starts_with(one);
        let both = edges.iter().filter(|(from, to)| from < to && edges.contains(&(to.clone(), from.clone())));
        let apart = both.filter(|(from, to)| !related(from, to));
        let path = |module: &Module| self.files[module].path.display().to_string();
        apart.map(|(from, to)| (path(from), path(to))).collect()
    }

    /// How many imports there are.
    pub fn count(&self) -> usize {
        self.files.keys().map(|from| self.edges(from).len()).sum()
    }

    fn edges(&self, from: &Module) -> BTreeSet<(Module, Module)> {
        let file = &self.files[from];
        let named = uses(&file.code).into_iter().map(|(_, path)| path).chain(paths(&file.code));
        let targets = named.filter_map(|path| self.resolve(from, &path, 0));
        targets.filter(|to| to != from).map(|to| (from.clone(), to)).collect()
    }

    /// The file that defines what `path` names in the module `from`; `None`: another crate's.
    fn resolve(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = (from.clone(), path);
        match path.first()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()?),
            child if self.files.contains_key(&[from.as_slice(), &[child.to_owned()]].concat()) => {
                at.push(child.to_owned());
            }
            _ => return None,
        }
        rest = &rest[1..];
        while let Some(next) = rest.first() {
            let below = [at.as_slice(), std::slice::from_ref(next)].concat();
            if next == "super" {
                at.pop()?;
            } else if self.files.contains_key(&below) {
                at = below;
            } else {
                let reexported = self.files.get(&at)?.names.get(next).filter(|_| depth < 8);
                return match reexported.map(|path| self.resolve(&at, path, depth + 1)) {
                    Some(target) => target, // another crate's name that is used by way of the parent is no import
                    None => Some(at),
                };
            }
            rest = &rest[1..];
        }
        Some(at)
    }
}

/// The code without its test modules, and the names of those that are files.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut rest, mut files) = (String::new(), code, Vec::new());
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let end = after.find(['{', ';']).unwrap_or(after.len());
        let item = &after[..end];
        if after[end..].starts_with(';') {
            files.extend(item.rsplit_once("mod ").map(|(_, name)| name.trim().to_owned()));
            rest = &after[end + 1..];
        } else {
            rest = &after[end + block(&after[end..])..];
        }
    }
    kept.push_str(rest);
    (kept, files)
}

/// The length of the block that begins with `text`, braces included. rustfmt aligns the closing brace with the item.
fn block(text: &str) -> usize {
    let mut depth = 0_i32;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// Every path of every `use`, with the name that it brings in (`None`: a glob).
fn uses(code: &str) -> Vec<(Option<String>, Vec<String>)> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].trim_end();
        if before.is_empty() || before.ends_with(['}', '{', ']', ')']) || before.ends_with("pub") {
            tree(&statement[at + "use ".len()..], &[], &mut found);
        }
    }
    found
}

fn tree(text: &str, prefix: &[String], found: &mut Vec<(Option<String>, Vec<String>)>) {
    let text = text.trim();
    if let Some((path, group)) = text.split_once('{') {
        let prefix = [prefix, &segments(path)].concat();
        let (mut depth, mut start) = (0_i32, 0);
        let inner = group.trim_end().trim_end_matches('}').to_owned() + &"}".repeat(group.matches('{').count());
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if c == ',' && depth == 0 {
                tree(&inner[start..at], &prefix, found);
                start = at + 1;
            }
        }
    } else if !text.is_empty() {
        let (path, name) =
            text.split_once(" as ").map_or((text, None), |(path, name)| (path, Some(name.trim().to_owned())));
        let mut path = [prefix, &segments(path)].concat();
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let glob = path.last().is_some_and(|last| last == "*");
        let name = if glob { None } else { name.or_else(|| path.last().cloned()) };
        found.push((name, path));
    }
}

/// Paths within expressions and types: `super::state::Login`, `paste::read`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    code.split(|c| !is_path(c))
        .filter(|word| word.contains("::"))
        .map(segments)
        .filter(|path| !path.is_empty())
        .collect()
}

fn segments(path: &str) -> Vec<String> {
    path.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
