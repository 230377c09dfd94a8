//! Buffers log lines, so that several requests share one write: a line per request would be one of its five system calls.
//!
//! The serving thread buffers its lines and flushes them before it parks (`flush` is the runtime's `on_thread_park`), so no line
//! waits for an event. A thread that does not park flushes every [`FLUSH_BYTES`]. A process that is killed in between loses
//! them. Other threads do not buffer; a warning flushes everything before it.

use std::cell::RefCell;
use std::io::{self, Write as _};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

thread_local! {
    /// `None` on a thread that does not buffer.
    static LINES: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Flush the buffer at this size.
const FLUSH_BYTES: usize = 8 * 1024;

/// Writes to standard error, through the buffer of a thread that has one.
pub(super) struct BufferedStderr;

/// The writer of one event.
pub(super) struct Writer {
    unbuffered: bool,
}

/// Buffers the lines of this thread from now on. The caller must arrange for [`flush`] to be called.
pub(super) fn buffer_this_thread() {
    LINES.with_borrow_mut(|lines| {
        lines.get_or_insert_with(Vec::new);
    });
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        flush();
        before(panic);
    }));
}

/// Writes the buffered lines of this thread.
pub(super) fn flush() {
    // It is borrowed only when a line panics while it is written.
    LINES.with(|lines| {
        if let Ok(mut lines) = lines.try_borrow_mut()
            && let Some(lines) = lines.as_mut()
            && !lines.is_empty()
        {
            // There is no other place to report an error to.
            let _ = io::stderr().write_all(lines);
            lines.clear();
        }
    });
}

impl<'a> MakeWriter<'a> for BufferedStderr {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        Writer { unbuffered: true }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Writer {
        Writer { unbuffered: *event.level() <= Level::WARN }
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
            Some(length) if self.unbuffered || length >= FLUSH_BYTES => flush(),
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

    fn log(level: Level, line: &[u8]) {
        let mut writer = Writer { unbuffered: level <= Level::WARN };
        writer.write_all(line).unwrap();
    }

    fn buffered() -> Option<usize> {
        LINES.with_borrow(|lines| lines.as_ref().map(Vec::len))
    }

    #[test]
    fn lines_are_buffered_until_flush_a_warning_or_the_limit() {
        log(Level::INFO, b"");
        assert_eq!(buffered(), None, "this thread does not buffer");
        buffer_this_thread();
        log(Level::INFO, b"\n\n");
        assert_eq!(buffered(), Some(2));
        flush();
        assert_eq!(buffered(), Some(0));
        log(Level::INFO, b"\n");
        log(Level::WARN, b"\n");
        assert_eq!(buffered(), Some(0));
        log(Level::INFO, &[b'\n'; FLUSH_BYTES - 1]);
        assert_eq!(buffered(), Some(FLUSH_BYTES - 1));
        log(Level::INFO, b"\n");
        assert_eq!(buffered(), Some(0));
        std::thread::spawn(|| assert_eq!(buffered(), None)).join().unwrap();
    }
}
