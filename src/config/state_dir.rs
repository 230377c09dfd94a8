//! Reads single facts of a configuration that has faults, or that was read before.

use std::sync::Arc;

use super::diagnostics::{FaultSink, Scope};
use super::fault::{Fault, Faults, SourceText};
use super::spanned_yaml::{Content, Found, Node};

/// A fault of the value at a path, or of its deepest ancestor that is written.
pub(super) fn fault(name: String, text: String, path: &[String], predicate: &str) -> Faults {
    let source = Arc::new(SourceText { name: name.clone(), text });
    let sink = FaultSink::default();
    if let Ok(node) = Node::parse(&source) {
        let is_there = |path: &[String]| matches!(node.find(path), Found::Value { .. });
        let length = (1..=path.len()).rev().find(|&length| is_there(&path[..length]));
        if let Some(length) = length {
            path[..length].iter().fold(Scope::new(&sink, &node), |scope, step| scope.at(step)).wrong(predicate);
        }
    }
    let mut faults = sink.faults.take();
    if faults.is_empty() {
        faults.push(Fault::of_file(name, format!("`{}` {predicate}.", path.join("."))));
    }
    Faults::new(faults)
}

/// The value of `state_dir`. A text that is not YAML is searched line by line.
pub(super) fn state_dir(text: &str) -> Option<String> {
    let source = Arc::new(SourceText { name: String::new(), text: text.to_owned() });
    match Node::parse(&source) {
        Ok(node) => match &node.get("state_dir")?.node.content {
            Content::Text(written) => Some(written.clone()),
            _ => None,
        },
        Err(_) => text.lines().find_map(state_dir_of_line),
    }
}

fn state_dir_of_line(line: &str) -> Option<String> {
    let line = line.trim_start_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    let rest = line.strip_prefix("state_dir")?.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':')?;
    let rest = rest.split(" #").next()?.trim().trim_end_matches(',');
    let written = rest.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    (!written.is_empty()).then(|| written.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_found_whatever_else_is_wrong() {
        for (text, written) in [
            ("agent: { lissten: x }\nstate_dir: ~/state\n", Some("~/state")),
            ("state_dir: [x]\n", None),
            ("agent: {}\n", None),
            ("", None),
            // No YAML.
            ("agent: {\nstate_dir: /run/pixy # here\n", Some("/run/pixy")),
            ("a: b: c\nstate_dir: '/run/pi xy'\n", Some("/run/pi xy")),
            ("{\n  \"state_dir\": \"/run/pixy\",\n  \"agent\": ,,\n}", Some("/run/pixy")),
            ("a: b: c\n# state_dir: /run/pixy\nno_state_dir: /x\nstate_dir_too: /x\nstate_dir:\n", None),
        ] {
            assert_eq!(state_dir(text).as_deref(), written, "{text}");
        }
    }

    #[test]
    fn a_fault_of_use_points_at_what_is_written() {
        let message = |text: &str| {
            let path = ["agent", "listen", "1", "address"].map(str::to_owned);
            fault("pixy.yaml".to_owned(), text.to_owned(), &path, "is held").to_string()
        };
        let place = |text: &str| message(text).split(" is held").next().unwrap().to_owned();
        assert_eq!(place("agent: { listen: x }"), "pixy.yaml:1:18: `agent.listen`");
        assert_eq!(place("agent:\n  listen: [x, y]"), "pixy.yaml:2:15: `agent.listen.1`");
        assert_eq!(place("agent: { listen: [x, { address: y }] }"), "pixy.yaml:1:33: `agent.listen.1.address`");
        assert_eq!(place("accounts: {}"), "pixy.yaml: `agent.listen.1.address`");
        assert_eq!(place("{"), "pixy.yaml: `agent.listen.1.address`");
    }
}
