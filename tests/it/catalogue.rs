//! Checks the catalogue of SECURITY.md in both directions: each of the 98 attacks has existing tests or a reason why there are
//! none, and every test with an attack's number is listed in its row.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::source::{root, rust_files};

/// A row of the table.
struct Row {
    text: String,
    tests: Vec<(String, String)>,
    last: String,
}

#[test]
fn every_attack_has_existing_tests_or_a_reason() {
    let rows = rows();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=98).collect::<Vec<_>>(), "each number once");
    let mut named = 0;
    for (number, row) in &rows {
        let excused = ["not yet: ", "no test: "].iter().any(|reason| row.last.starts_with(reason));
        assert!(!row.tests.is_empty() || excused, "row {number} has neither a test nor a reason: {}", row.text);
        for (file, name) in &row.tests {
            let text =
                fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("row {number}: {file} is missing"));
            assert!(is_test(file, &text, name), "row {number}: {file} has no test \"{name}\"");
            named += 1;
        }
    }
    assert!(named > 150, "only {named} tests are named");
}

#[test]
fn every_test_of_an_attack_is_listed_in_its_row() {
    let rows = rows();
    let mut missing = Vec::new();
    let mut found = 0;
    for directory in ["src", "tests/it"] {
        for path in rust_files(&root().join(directory)) {
            let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            for name in attacks(&fs::read_to_string(&path).unwrap()) {
                found += 1;
                for number in numbers(&name) {
                    let row = rows.get(&number).unwrap_or_else(|| panic!("{file}: there is no attack {number}"));
                    if !row.tests.contains(&(file.clone(), name.clone())) {
                        missing.push(format!("row {number} lacks `{file}::{name}`"));
                    }
                }
            }
        }
    }
    assert!(found > 110, "only {found} tests are found");
    assert!(missing.is_empty(), "SECURITY.md:\n{}", missing.join("\n"));
}

#[test]
fn the_numbers_in_a_name_are_read() {
    assert_eq!(numbers("attack_6_x"), [6]);
    assert_eq!(numbers("attack_28_and_29_and_31_a_head_of_2"), [28, 29, 31]);
    assert_eq!(numbers("attack_17_to_20_and_22_the_path"), [17, 18, 19, 20, 22]);
    assert_eq!(attacks("    async fn attack_01_example() {\nfn attack_1\n"), ["attack_01_example", "attack_1"]);
    assert!(is_test("a.rs", "#[tokio::test]\nasync fn a() {}", "a") && !is_test("a.rs", "fn a() {}", "a"));
    assert!(is_test("a.mjs", "  test('b c', async", "b c") && !is_test("a.mjs", "// test b c", "b c"));
}

fn rows() -> BTreeMap<u32, Row> {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let (_, catalogue) = security.split_once("\n## The catalogue\n").expect("the heading exists");
    let catalogue = catalogue.split("\n## ").next().unwrap();
    let mut rows = BTreeMap::new();
    for line in catalogue.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(number) = cells[0].parse().ok() else { continue };
        assert_eq!(cells.len(), 4, "number, attack, defence, tests: {line}");
        assert!(!cells[1].is_empty() && !cells[2].is_empty(), "{line}");
        let quoted = cells[3].split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"));
        let tests = quoted.map(|(file, name)| (full(file), name.to_owned())).collect();
        let row = Row { text: cells[1].to_owned(), tests, last: cells[3].to_owned() };
        assert!(rows.insert(number, row).is_none(), "{number} is listed twice");
    }
    rows
}

/// `tests/it` may be left out of a path.
fn full(file: &str) -> String {
    let is_whole = file.starts_with("src/") || file.starts_with("tests/");
    if is_whole { file.to_owned() } else { format!("tests/it/{file}") }
}

/// Whether a file has a test of that name or title. `compile_fail` stands for a documentation test that must not compile.
fn is_test(file: &str, text: &str, name: &str) -> bool {
    if Path::new(file).extension().is_none_or(|extension| extension != "rs") {
        return ["'", "`"].iter().any(|quote| text.contains(&format!("test({quote}{name}{quote}")));
    }
    if name == "compile_fail" {
        return text.contains("/// ```compile_fail\n");
    }
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    // Other attributes, such as `#[ignore]`, may follow `#[test]`.
    text[..at].lines().rev().take(6).any(|line| {
        let line = line.trim();
        line.starts_with("#[test]") || line.starts_with("#[tokio::test")
    })
}

/// The functions of a source file that are named after an attack.
fn attacks(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.split_once("fn attack_"));
    let named = named.filter(|(before, _)| before.trim().is_empty() || before.trim() == "async");
    named.map(|(_, name)| format!("attack_{}", name.split('(').next().unwrap())).collect()
}

/// The attacks in a name: `attack_17_to_20_and_22_…` covers 17, 18, 19, 20 and 22.
fn numbers(name: &str) -> Vec<u32> {
    let mut words = name.split('_').skip(1);
    let mut numbers: Vec<u32> = Vec::new();
    let mut joined = "and";
    while let Some(number) = words.next().and_then(|word| word.parse().ok()) {
        let first = numbers.last().filter(|_| joined == "to").map_or(number, |last| last + 1);
        numbers.extend(first..=number);
        joined = words.next().unwrap_or_default();
        if !["and", "to"].contains(&joined) {
            break;
        }
    }
    numbers
}
