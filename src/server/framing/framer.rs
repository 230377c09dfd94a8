//! Follows the requests of an HTTP/1 connection, one behind the other, without doing any input or output.

use super::chunked::{Chunked, Reach};
use super::head::{Framing, Head};
use crate::server::Limits;
use crate::server::reject::Rejection;

/// Knows where in which request the next byte stands.
#[derive(Debug)]
pub(in crate::server) struct Framer {
    limits: Limits,
    place: Position,
    /// The head under way; how much of it was looked at, and where its last line starts.
    head: Head,
    seen: usize,
    line: usize,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Position {
    /// In a head, or before one.
    Head,
    /// In a body that has so many bytes left.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// After a request for another protocol that was not answered yet.
    Upgrading,
    /// In another protocol: nothing is looked at.
    Raw,
}

/// Why nothing that follows is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Stop {
    /// The next head.
    Rejection(Rejection),
    /// The body under way.
    Broken(&'static str),
}

/// A request line may be longer than its target by so much: the longest method that anybody sends, and the version.
const BESIDE_TARGET: usize = 64;

impl Framer {
    pub(in crate::server) fn new(limits: Limits) -> Self {
        Self { limits, place: Position::Head, head: Head::default(), seen: 0, line: 0 }
    }

    pub(in crate::server) fn place(&self) -> Position {
        self.place
    }

    /// The other protocol begins, or was not agreed on.
    pub(in crate::server) fn settle(&mut self, switched: bool) {
        self.place = if switched { Position::Raw } else { Position::Head };
    }

    /// How many of these bytes may be passed, and what stands after them. Must be given the same bytes again, and more, until
    /// they pass; a head passes whole or not at all.
    pub(in crate::server) fn pass(&mut self, bytes: &[u8]) -> (usize, Option<Stop>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.place {
                Position::Head => match self.head(rest) {
                    Ok(Some(length)) => passed += length,
                    Ok(None) => break,
                    Err(refused) => return (passed, Some(Stop::Rejection(refused))),
                },
                Position::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    passed += here;
                    if *left == 0 {
                        self.end();
                    }
                }
                Position::Chunked(chunked) => match chunked.follow(rest, &self.limits) {
                    Reach::On => passed = bytes.len(),
                    Reach::End(length) => {
                        passed += length;
                        self.end();
                    }
                    Reach::Broken(length, why) => return (passed + length, Some(Stop::Broken(why))),
                },
                Position::Upgrading => break,
                Position::Raw => passed = bytes.len(),
            }
        }
        (passed, None)
    }

    /// The length of the head that these bytes start with, if it is whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let end = self.seen + found;
            // RFC 9112 §2.2 lets a server take a bare LF for a line's end; where one does and one does not, a request hides.
            let line = bytes[self.line..end].strip_suffix(b"\r");
            let line = line.ok_or(Rejection::BadRequest("every line of a head ends with CR LF"))?;
            self.seen = end + 1;
            self.line = end + 1;
            if self.seen > self.limits.header_bytes {
                return Err(Rejection::HeadTooLarge);
            }
            if line.is_empty() {
                self.place = match self.head.finish()? {
                    Framing::Length(left) => Position::Length(left),
                    Framing::Chunked => Position::Chunked(Chunked::new()),
                };
                if self.place == Position::Length(0) {
                    self.end();
                }
                return Ok(Some(end + 1));
            }
            self.head.line(line, &self.limits)?;
        }
        self.seen = bytes.len();
        if self.head.is_empty() && bytes.len() > self.limits.uri_bytes + BESIDE_TARGET {
            return Err(Rejection::TargetTooLong);
        }
        if bytes.len() > self.limits.header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        Ok(None)
    }

    /// The request has ended.
    fn end(&mut self) {
        self.place = if self.head.upgrades() { Position::Upgrading } else { Position::Head };
        self.head = Head::default();
        (self.seen, self.line) = (0, 0);
    }
}
