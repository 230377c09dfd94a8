//! The layers and bans of `src/lib.rs`, checked on the source, so that a wrong `use` fails.

mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::source::{root, rust_files};
use imports::Imports;

/// Every source file with its top-level module, unit tests included.
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = root().join("src");
    let with_module = rust_files(&root).into_iter().map(|path| {
        let relative = path.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        (first.trim_end_matches(".rs").to_owned(), path.clone(), fs::read_to_string(&path).unwrap())
    });
    with_module.collect()
}

/// The modules in the order of `lib.rs`, uppermost first.
fn layers() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

/// The code of a file without its comments, which may name any module.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every top-level module that a text names by `crate::…`, also in `use crate::{a, b::c}`.
fn named_modules(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut named = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => named.push(word(std::mem::take(&mut item).trim_start())),
                    c if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            named.push(word(item.trim_start()));
        } else {
            named.push(word(rest));
        }
    }
    named
}

#[test]
fn a_module_uses_only_what_is_declared_below_it() {
    let layers = layers();
    assert!(layers.len() > 10, "lib.rs declares the layers");
    let rank = |module: &str| layers.iter().position(|layer| layer == module);
    let mut checked = 0;
    for (module, path, text) in sources() {
        let Some(own) = rank(&module) else { continue }; // main.rs and lib.rs may use everything
        for used in named_modules(&code(&text)) {
            let Some(other) = rank(&used) else { continue };
            assert!(other >= own, "{}: {module} is below {used} in lib.rs and must not use it", path.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "the test finds the imports");
}

#[test]
fn the_bans_of_lib_rs_hold() {
    for (module, path, text) in sources() {
        let code = code(&text);
        let place = path.display();
        let uses = |other: &str| named_modules(&code).iter().any(|used| used == other);
        if module == "link" {
            assert!(!uses("proxy"), "{place}: link and proxy never import each other");
        }
        if module == "proxy" {
            assert!(!uses("link"), "{place}: link and proxy never import each other");
        }
        if !["config", "app", "cli", "internals", "lib", "main"].contains(&module.as_str()) {
            assert!(!uses("config"), "{place}: nothing below app imports config");
        }
        if !["account", "vault", "app", "config", "cli", "internals", "lib"].contains(&module.as_str()) {
            assert!(!uses("vault"), "{place}: only account writes to the vault");
        }
        if module != "config" {
            for reading in ["env::var", "env::vars", "env::home_dir"] {
                assert!(!code.contains(reading), "{place}: only config reads the environment ({reading})");
            }
        }
        assert!(!code.contains("danger_accept"), "{place}: no TLS check is switched off");
    }
}

#[test]
fn no_two_files_import_each_other() {
    let root = root().join("src");
    let below_src = |path: &Path| path.strip_prefix(&root).unwrap().to_owned();
    let imports = Imports::of(sources().into_iter().map(|(_, path, text)| (below_src(&path), text)));
    assert!(imports.count() > 300, "the test finds the imports: {}", imports.count());
    let circles = imports.circles();
    assert!(circles.is_empty(), "these import each other: {circles:#?}");
}

#[test]
fn a_circle_by_way_of_the_parent_is_found() {
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    let sources = |one: &str| {
        let parent = file("a.rs", "mod one;\nmod two;\npub use two::{self, Two};\nstruct Own;");
        Imports::of([parent, file("a/one.rs", one), file("a/two.rs", "use super::{Own, one::One as Other};")])
    };
    let pair = [("a/one.rs".to_owned(), "a/two.rs".to_owned())];
    assert_eq!(sources("use super::Two;").circles(), pair);
    assert_eq!(sources("fn f() { crate::a::two::f() }").circles(), pair);
    assert_eq!(sources("use super::Own;\n#[cfg(test)]\nmod tests { use super::super::Two; }").circles(), []);
}

#[test]
fn no_file_is_longer_than_400_lines() {
    for (_, path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    for (_, path, text) in sources() {
        assert!(!code(&text).contains("#[ignore]"), "{}: an ignored test needs a reason", path.display());
    }
}
