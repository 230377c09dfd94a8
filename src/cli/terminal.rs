//! What standard output can show, and where the person who looks at it is.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::config::variable;

/// Standard output: a terminal or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    colours: bool,
    /// Columns and rows; nothing is drawn where they are not known.
    size: Option<(usize, usize)>,
}

/// What a text is marked as; it never says so by its colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Warning,
    Bad,
    Strong,
    Faint,
}

/// Where the terminal is, seen from the person's browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the same machine, as far as can be told.
    Here,
    Ssh,
    Container,
    /// A machine without a desktop: the browser is on another one.
    NoDisplay,
}

impl Screen {
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
    pub(super) fn made(colours: bool, size: Option<(usize, usize)>) -> Self {
        Self { colours, size }
    }

    pub(super) fn has_colours(self) -> bool {
        self.colours
    }

    pub(super) fn size(self) -> Option<(usize, usize)> {
        self.size
    }

    pub(super) fn mark(self, mark: Mark, text: &str) -> String {
        let code = match mark {
            Mark::Good => "32",
            Mark::Warning => "33",
            Mark::Bad => "31",
            Mark::Strong => "1",
            Mark::Faint => "2",
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Place {
    pub(super) fn find() -> Self {
        let is_there = |file: &str| Path::new(file).exists();
        let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| variable(name).is_some());
        if variable("SSH_CONNECTION").is_some() {
            Self::Ssh
        } else if is_there("/.dockerenv") || is_there("/run/.containerenv") {
            Self::Container
        } else if cfg!(target_os = "linux") && !has_display {
            Self::NoDisplay
        } else {
            Self::Here
        }
    }
}

/// Writes a line. A reader that has gone is no reason to panic.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a line beside what is asked for. A terminal that was closed is no reason to panic.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a question, whose answer is typed behind it.
pub(super) fn ask(question: &str) {
    let _ = write!(std::io::stderr(), "{question}");
}

/// Writes a step for a program: one JSON text a line.
pub(super) fn say_step(step: &str, told: &Value) {
    let mut line = json!({ "step": step });
    if let (Some(line), Some(told)) = (line.as_object_mut(), told.as_object()) {
        line.extend(told.clone());
    }
    say(&line.to_string());
}
