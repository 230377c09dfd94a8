//! Faults of a configuration, each with its position, a snippet and what is allowed.

use std::fmt;
use std::sync::Arc;

/// A text with its name in messages.
#[derive(Debug)]
pub(super) struct SourceText {
    pub(super) name: String,
    pub(super) text: String,
}

/// A range in a [`SourceText`]. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) source: Arc<SourceText>,
    pub(super) line: usize,
    pub(super) column: usize,
    /// Characters to underline; at least 1.
    pub(super) length: usize,
}

/// All faults of a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    file: String,
    place: Option<(usize, usize)>,
    message: String,
    snippet: Option<Snippet>,
}

/// The line that contains the fault, with credentials masked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snippet {
    text: String,
    /// Characters before the fault.
    before: usize,
    length: usize,
}

impl Faults {
    /// Sorts faults by their position.
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        // Faults in shipped profiles follow those in the operator's file.
        faults.sort_by(|a, b| {
            let key = |fault: &Fault| (fault.place.is_some(), fault.file.starts_with("config/providers/"));
            key(a).cmp(&key(b)).then_with(|| (&a.file, a.place).cmp(&(&b.file, b.place)))
        });
        faults.dedup();
        Self(faults)
    }

    /// The faults, in the order of the file; never empty.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// All faults and their consequence. `Display` prints the consequence of a failed start: nothing was started.
    pub fn with_consequence(&self, consequence: &str) -> String {
        let mut parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        parts.push(match self.0.len() {
            1 => format!("1 fault; {consequence}"),
            count => format!("{count} faults; {consequence}"),
        });
        parts.join("\n")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_consequence("nothing was started"))
    }
}

impl std::error::Error for Faults {}

impl Fault {
    /// A fault at a position of a file.
    pub(super) fn at(span: &Span, message: String) -> Self {
        Self {
            file: span.source.name.clone(),
            place: Some((span.line, span.column)),
            message,
            snippet: Snippet::cut(span),
        }
    }

    /// A fault of the file as a whole.
    pub(super) fn of_file(file: String, message: String) -> Self {
        Self { file, place: None, message, snippet: None }
    }

    /// The name of the file as it was given; `config/…` for a file that is shipped in the binary.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Line and column, counted from 1; `None` when the file as a whole is at fault.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.place
    }

    /// The fault and what is allowed, as sentences.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)?;
        if let (Some(snippet), Some((line, _))) = (&self.snippet, self.place) {
            let number = line.to_string();
            write!(f, "\n  {number} | {}", snippet.text)?;
            write!(
                f,
                "\n  {:number$} | {:before$}{:^<length$}",
                "",
                "",
                "",
                number = number.len(),
                before = snippet.before,
                length = snippet.length
            )?;
        }
        Ok(())
    }
}

impl Snippet {
    fn cut(span: &Span) -> Option<Self> {
        let line = span.source.text.lines().nth(span.line.checked_sub(1)?)?;
        let line: Vec<char> = mask(line);
        let column = span.column.saturating_sub(1).min(line.len());
        let start = if column > WIDTH { column - MARGIN } else { 0 };
        let text: String = line.iter().skip(start).take(WIDTH + MARGIN).collect();
        let text = text.trim_end().to_owned();
        let room = text.chars().count().saturating_sub(column - start).max(1);
        Some(Self { text, before: column - start, length: span.length.clamp(1, room) })
    }
}

/// Masks values that look like a credential, character by character so that columns stay. A key that is pasted in place of its
/// digest or its file must not appear in a log.
fn mask(line: &str) -> Vec<char> {
    let mut out: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut at = 0;
    while let Some(colon) = (at..out.len()).find(|&i| out[i] == ':') {
        at = colon + 1;
        if out[at..].starts_with(&['/', '/']) {
            // The part before the last `@` of a URL's authority is a name and a password.
            let end = (at + 2..out.len()).find(|&i| matches!(out[i], '/' | '?' | '#' | ' ')).unwrap_or(out.len());
            if let Some(sign) = (at + 2..end).rev().find(|&i| out[i] == '@') {
                out[at + 2..sign].fill('*');
            }
            continue;
        }
        let key: String = out[..colon]
            .iter()
            .rev()
            .skip_while(|c| matches!(c, '"' | '\'' | ' '))
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
            .collect();
        let key: String = key.chars().rev().flat_map(char::to_lowercase).collect();
        let Some(value) = (at..out.len()).find(|&i| out[i] != ' ') else { break };
        if names_a_secret(&key) && !matches!(out[value], '{' | '[' | '#' | '&' | '|' | '>') {
            let end = (value..out.len()).find(|&i| matches!(out[i], ',' | '}' | ']')).unwrap_or(out.len());
            out[value..end].fill('*');
            at = end;
        }
    }
    out
}

fn names_a_secret(key: &str) -> bool {
    const WORDS: [&str; 9] =
        ["secret", "token", "password", "passphrase", "credential", "authorization", "cookie", "api_key", "api-key"];
    const ELSE: [&str; 4] = ["_file", "_url", "_field", "_per_day"];
    (matches!(key, "key" | "sha256" | "apikey") || WORDS.iter().any(|word| key.contains(word)))
        && !ELSE.iter().any(|end| key.ends_with(end))
}

/// Longer lines are cut around the fault.
const WIDTH: usize = 120;
const MARGIN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(line: &str) -> String {
        mask(line).into_iter().collect()
    }

    #[test]
    fn a_pasted_credential_is_not_printed() {
        assert_eq!(masked("  sha256: sk-live-1"), "  sha256: *********");
        assert_eq!(masked("- { name: a, key: sk-1, accounts: [b] }"), "- { name: a, key: ****, accounts: [b] }");
        assert_eq!(masked("url: https://me:pass@host/a"), "url: https://*******@host/a");
        assert_eq!(masked("set: { \"x-api-key\": \"sk\" }"), "set: { \"x-api-key\": *****}");
        for plain in ["key_file: /run/secrets/x", "token: { url: https://a.b/c }", "token:", "scopes: [user:inference]"]
        {
            assert_eq!(masked(plain), plain);
        }
    }

    #[test]
    fn a_fault_shows_its_line() {
        let source = Arc::new(SourceText { name: "pixy.yaml".into(), text: "a: 1\nb:\n  c: 2".into() });
        let span = Span { source, line: 3, column: 3, length: 1 };
        let fault = Fault::at(&span, "no.".into());
        assert_eq!(fault.to_string(), "pixy.yaml:3:3: no.\n  3 |   c: 2\n    |   ^");
        let faults = Faults::new(vec![fault.clone(), fault]);
        assert!(faults.to_string().ends_with("^\n1 fault; nothing was started"));
    }
}
