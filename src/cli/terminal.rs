//! Standard input and output: what a terminal supports, where it runs, and lines of text or JSON.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::config::variable;

/// What standard output supports: nothing beyond plain text where it is not a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputStyle {
    colours: bool,
    /// Columns and rows, where they are known.
    size: Option<(usize, usize)>,
}

/// An emphasis. The text never depends on its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emphasis {
    Good,
    Warning,
    Bad,
    Strong,
    Faint,
}

/// Where the terminal runs, relative to the person's browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TerminalLocation {
    /// Presumably the same machine.
    SameMachine,
    Ssh,
    Container,
    /// A machine without a desktop: the browser is on another one.
    NoDisplay,
}

impl OutputStyle {
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self { colours: false, size: None };
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok();
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let plain = variable("NO_COLOR").is_some() || variable("TERM").is_none_or(|terminal| terminal == "dumb");
        Self { colours: !plain, size: size.filter(|&(columns, rows)| columns > 0 && rows > 0) }
    }

    #[cfg(test)]
    pub(super) fn new(colours: bool, size: Option<(usize, usize)>) -> Self {
        Self { colours, size }
    }

    pub(super) fn has_colours(self) -> bool {
        self.colours
    }

    pub(super) fn size(self) -> Option<(usize, usize)> {
        self.size
    }

    pub(super) fn emphasize(self, emphasis: Emphasis, text: &str) -> String {
        let code = match emphasis {
            Emphasis::Good => "32",
            Emphasis::Warning => "33",
            Emphasis::Bad => "31",
            Emphasis::Strong => "1",
            Emphasis::Faint => "2",
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl TerminalLocation {
    pub(super) fn detect() -> Self {
        let exists = |file: &str| Path::new(file).exists();
        let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| variable(name).is_some());
        if variable("SSH_CONNECTION").is_some() {
            Self::Ssh
        } else if exists("/.dockerenv") || exists("/run/.containerenv") {
            Self::Container
        } else if cfg!(target_os = "linux") && !has_display {
            Self::NoDisplay
        } else {
            Self::SameMachine
        }
    }
}

/// The width of each column of a table, in characters.
pub(super) fn column_widths<'a, const N: usize>(rows: impl IntoIterator<Item = &'a [String; N]>) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Whether standard input is a terminal.
pub(super) fn is_interactive() -> bool {
    std::io::stdin().is_terminal()
}

/// Writes a line to standard output. A closed pipe is ignored.
pub(super) fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a line to standard error. A closed terminal is ignored.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a question to standard error; the answer is typed behind it.
pub(super) fn prompt(question: &str) {
    let _ = write!(std::io::stderr(), "{question}");
}

/// Writes a document as one line of JSON.
pub(super) fn print_json(document: &impl Serialize) {
    print_line(&serde_json::to_string(document).unwrap_or_default()); // no map with keys that are not strings
}

/// Writes a document as indented JSON.
pub(super) fn print_json_pretty(document: &impl Serialize) {
    print_line(&serde_json::to_string_pretty(document).unwrap_or_default()); // no map with keys that are not strings
}

/// Turns off the terminal's echo while it lives.
pub(super) struct EchoOff(Option<rustix::termios::Termios>);

impl EchoOff {
    pub(super) fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) }; // a pipe has no echo
        let mut without_echo = before.clone();
        without_echo.local_modes.remove(LocalModes::ECHO);
        let changed = tcsetattr(&stdin, OptionalActions::Now, &without_echo).is_ok();
        Self(changed.then_some(before))
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before); // the terminal is gone
        }
    }
}
