//! Lines of the log that are written together: a request's line is one of its five system calls, and waits for none of them.
//!
//! The thread that serves keeps its lines until it has nothing else to do (`write_out` as the runtime's `on_thread_park`), which
//! is before it waits for anything: who looks at the log sees every line as soon as before. Where it does not come to rest, they
//! leave [`ENOUGH`] at a time. Only a process that is killed in between takes them along. What other threads say is written at
//! once, and so is a warning, with what came before it.

use std::cell::RefCell;
use std::io::{self, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

thread_local! {
    /// Nothing on a thread that keeps none.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// So many bytes are worth a write of their own.
const ENOUGH: usize = 8 * 1024;

/// Writes to standard error, later where this thread keeps its lines.
pub(super) struct Turn;

/// What one event is written with.
pub(super) struct Writer {
    at_once: bool,
}

/// This thread keeps its lines from now on: whoever says so sees to it that they are written out.
pub(super) fn keep_lines() {
    LINES.with_borrow_mut(|lines| {
        lines.get_or_insert_with(Vec::new);
    });
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        write_out();
        before(panic);
    }));
}

/// Writes out what this thread has kept.
pub(super) fn write_out() {
    // Borrowed only by a panic within a line.
    LINES.with(|lines| {
        if let Ok(mut lines) = lines.try_borrow_mut()
            && let Some(lines) = lines.as_mut()
            && !lines.is_empty()
        {
            // Nobody could be told.
            let _ = io::stderr().write_all(lines);
            lines.clear();
        }
    });
}

impl<'a> MakeWriter<'a> for Turn {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        Writer { at_once: true }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Writer {
        Writer { at_once: *event.level() <= Level::WARN }
    }
}

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = LINES.with_borrow_mut(|lines| {
            let lines = lines.as_mut()?;
            lines.extend_from_slice(line);
            Some(lines.len())
        });
        match length {
            None => return io::stderr().write(line),
            Some(length) if self.at_once || length >= ENOUGH => write_out(),
            Some(_) => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // standard error has no buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(level: Level, line: &[u8]) {
        let mut writer = Writer { at_once: level <= Level::WARN };
        writer.write_all(line).unwrap();
    }

    fn kept() -> Option<usize> {
        LINES.with_borrow(|lines| lines.as_ref().map(Vec::len))
    }

    #[test]
    fn lines_are_kept_by_the_thread_that_serves_until_it_rests_or_a_warning_comes_or_there_are_enough() {
        say(Level::INFO, b"");
        assert_eq!(kept(), None, "this thread does not serve");
        keep_lines();
        say(Level::INFO, b"\n\n");
        assert_eq!(kept(), Some(2));
        write_out();
        assert_eq!(kept(), Some(0));
        say(Level::INFO, b"\n");
        say(Level::WARN, b"\n");
        assert_eq!(kept(), Some(0));
        say(Level::INFO, &[b'\n'; ENOUGH - 1]);
        assert_eq!(kept(), Some(ENOUGH - 1));
        say(Level::INFO, b"\n");
        assert_eq!(kept(), Some(0));
        std::thread::spawn(|| assert_eq!(kept(), None)).join().unwrap();
    }
}
