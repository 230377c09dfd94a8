//! The lines of a head that arrives in pieces.

/// Finds the lines of one head.
#[derive(Debug, Default)]
pub struct HeadLines {
    /// Where the unfinished line starts, and where the search continues.
    start: usize,
    scanned: usize,
}

impl HeadLines {
    /// The next complete line, without its CRLF. `bytes` begin with the head, and hold at least what they held before.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<Result<&'a [u8], &'static str>> {
        let Some(found) = memchr::memchr(b'\n', &bytes[self.scanned..]) else {
            self.scanned = bytes.len();
            return None;
        };
        let line = &bytes[self.start..self.scanned + found];
        self.scanned += found + 1;
        self.start = self.scanned;
        // RFC 9112 §2.2 lets a recipient accept a bare LF as a line's end; where one does and another does not, a message hides.
        Some(line.strip_suffix(b"\r").ok_or("every line of a head ends with CR LF"))
    }

    /// The length of the lines so far.
    pub fn length(&self) -> usize {
        self.start
    }
}
