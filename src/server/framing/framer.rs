//! Tracks where each request of an HTTP/1 connection begins and ends. Does no input or output.

use super::head::Head;
use crate::framing::chunked::{ChunkedBody, ChunkedProgress};
use crate::framing::fields::{BodyFraming, FieldLimits};
use crate::framing::lines::HeadLines;
use crate::server::limits::ServerLimits;
use crate::server::rejection::Rejection;

/// The state machine of one connection's requests.
#[derive(Debug)]
pub(in crate::server) struct Framer {
    limits: ServerLimits,
    state: FramerState,
    /// The head that is being read.
    head: Head,
    lines: HeadLines,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum FramerState {
    /// A head.
    Head,
    /// A body of which so many bytes are left.
    Length(u64),
    /// A chunked body.
    Chunked(ChunkedBody),
    /// Unknown until the request for an upgrade has its response.
    Upgrading,
    /// Another protocol: nothing is checked.
    Upgraded,
}

/// Why no further byte passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum FramingError {
    /// The next head is rejected.
    Head(Rejection),
    /// The body is malformed.
    Body(&'static str),
}

/// How much longer than its target a request line may be: the method and the version.
const REQUEST_LINE_OVERHEAD: usize = 64;

impl Framer {
    pub(in crate::server) fn new(limits: ServerLimits) -> Self {
        Self { limits, state: FramerState::Head, head: Head::default(), lines: HeadLines::default() }
    }

    pub(in crate::server) fn state(&self) -> FramerState {
        self.state
    }

    /// The request for an upgrade has its response.
    pub(in crate::server) fn finish_upgrade(&mut self, upgraded: bool) {
        self.state = if upgraded { FramerState::Upgraded } else { FramerState::Head };
    }

    /// How many of these bytes pass, and the error after them. Bytes that do not pass must be passed in again, with more after them;
    /// a head passes whole or not at all.
    pub(in crate::server) fn check(&mut self, bytes: &[u8]) -> (usize, Option<FramingError>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.state {
                FramerState::Head => match self.check_head(rest) {
                    Ok(Some(length)) => passed += length,
                    Ok(None) => break,
                    Err(rejection) => return (passed, Some(FramingError::Head(rejection))),
                },
                FramerState::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    passed += here;
                    if *left == 0 {
                        self.end_request();
                    }
                }
                FramerState::Chunked(body) => match body.check(rest, field_limits(&self.limits)) {
                    ChunkedProgress::Continues => passed = bytes.len(),
                    ChunkedProgress::Ends(length) => {
                        passed += length;
                        self.end_request();
                    }
                    ChunkedProgress::Malformed(length, reason) => {
                        return (passed + length, Some(FramingError::Body(reason)));
                    }
                },
                FramerState::Upgrading => break,
                FramerState::Upgraded => passed = bytes.len(),
            }
        }
        (passed, None)
    }

    /// The length of the head at the start of these bytes, if it is complete.
    fn check_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Rejection> {
        while let Some(line) = self.lines.next(bytes) {
            let line = line.map_err(Rejection::BadRequest)?;
            if self.lines.length() > self.limits.header_bytes {
                return Err(Rejection::HeadTooLarge);
            }
            if line.is_empty() {
                self.state = match self.head.finish()? {
                    BodyFraming::Length(left) => FramerState::Length(left),
                    BodyFraming::Chunked => FramerState::Chunked(ChunkedBody::default()),
                };
                let length = self.lines.length();
                if self.state == FramerState::Length(0) {
                    self.end_request();
                }
                return Ok(Some(length));
            }
            self.head.line(line, &self.limits)?;
        }
        if self.head.is_empty() && bytes.len() > self.limits.uri_bytes + REQUEST_LINE_OVERHEAD {
            return Err(Rejection::TargetTooLong);
        }
        if bytes.len() > self.limits.header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        Ok(None)
    }

    fn end_request(&mut self) {
        self.state = if self.head.asks_for_upgrade() { FramerState::Upgrading } else { FramerState::Head };
        self.head = Head::default();
        self.lines = HeadLines::default();
    }
}

fn field_limits(limits: &ServerLimits) -> FieldLimits {
    FieldLimits { bytes: limits.header_bytes, fields: limits.header_fields }
}
