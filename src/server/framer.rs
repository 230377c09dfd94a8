//! Follows the requests of an HTTP/1 connection, one behind the other, without doing any input or output.

use super::Limits;
use super::chunked::{Chunked, Reach};
use super::head::{Framing, Head};
use super::refused::Refused;

/// Knows where in which request the next byte stands.
#[derive(Debug)]
pub(super) struct Framer {
    limits: Limits,
    place: Place,
    /// The head under way; how much of it was looked at, and where its last line starts.
    head: Head,
    seen: usize,
    line: usize,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
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
pub(super) enum Stop {
    /// The next head.
    Refused(Refused),
    /// The body under way.
    Broken(&'static str),
}

/// A request line may be longer than its target by so much: the longest method that anybody sends, and the version.
const BESIDE_TARGET: usize = 64;

impl Framer {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, place: Place::Head, head: Head::default(), seen: 0, line: 0 }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The other protocol begins, or was not agreed on.
    pub(super) fn settle(&mut self, switched: bool) {
        self.place = if switched { Place::Raw } else { Place::Head };
    }

    /// How many of these bytes may be passed, and what stands after them. Must be given the same bytes again, and more, until
    /// they pass; a head passes whole or not at all.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (usize, Option<Stop>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.place {
                Place::Head => match self.head(rest) {
                    Ok(Some(length)) => passed += length,
                    Ok(None) => break,
                    Err(refused) => return (passed, Some(Stop::Refused(refused))),
                },
                Place::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    passed += here;
                    if *left == 0 {
                        self.end();
                    }
                }
                Place::Chunked(chunked) => match chunked.follow(rest, &self.limits) {
                    Reach::On => passed = bytes.len(),
                    Reach::End(length) => {
                        passed += length;
                        self.end();
                    }
                    Reach::Broken(length, why) => return (passed + length, Some(Stop::Broken(why))),
                },
                Place::Upgrading => break,
                Place::Raw => passed = bytes.len(),
            }
        }
        (passed, None)
    }

    /// The length of the head that these bytes start with, if it is whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refused> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let end = self.seen + found;
            // RFC 9112 §2.2 lets a server take a bare LF for a line's end; where one does and one does not, a request hides.
            let line = bytes[self.line..end].strip_suffix(b"\r");
            let line = line.ok_or(Refused::BadRequest("every line of a head ends with CR LF"))?;
            self.seen = end + 1;
            self.line = end + 1;
            if self.seen > self.limits.header_bytes {
                return Err(Refused::HeadTooLarge);
            }
            if line.is_empty() {
                self.place = match self.head.finish()? {
                    Framing::Length(left) => Place::Length(left),
                    Framing::Chunked => Place::Chunked(Chunked::new()),
                };
                if self.place == Place::Length(0) {
                    self.end();
                }
                return Ok(Some(end + 1));
            }
            self.head.line(line, &self.limits)?;
        }
        self.seen = bytes.len();
        if self.head.is_empty() && bytes.len() > self.limits.uri_bytes + BESIDE_TARGET {
            return Err(Refused::TargetTooLong);
        }
        if bytes.len() > self.limits.header_bytes {
            return Err(Refused::HeadTooLarge);
        }
        Ok(None)
    }

    /// The request has ended.
    fn end(&mut self) {
        self.place = if self.head.upgrades() { Place::Upgrading } else { Place::Head };
        self.head = Head::default();
        (self.seen, self.line) = (0, 0);
    }
}
