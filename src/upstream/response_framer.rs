//! Tracks where each response of an HTTP/1.1 connection begins and ends. Does no input or output.
//!
//! hyper reads a response more leniently than a request: it accepts bare line feeds, spaces in chunk sizes and a Content-Length that
//! Transfer-Encoding overrides. A program between Pixy and the upstream may read such a response differently, which allows response
//! splitting; so it is an error here. What real servers send and has one reading passes: a status line without a reason phrase,
//! bytes above ASCII in values, a body that the end of the connection ends, `Content-Length: 0` with a 204.

use http::Method;

use super::AmbiguousFraming;
use crate::framing::chunked::{ChunkedBody, ChunkedProgress};
use crate::framing::fields::{BodyFraming, FieldLimits, FramingFields, field, is_text};
use crate::framing::lines::HeadLines;

/// The state machine of one connection's responses.
#[derive(Debug)]
pub(super) struct ResponseFramer {
    state: ResponseState,
    /// The request that is about to be sent.
    next: Option<Exchange>,
    current: Exchange,
    /// The head that is being read.
    head: ResponseHead,
    lines: HeadLines,
    /// Interim responses to the current request.
    interim: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseState {
    /// Nothing: no request waits for its response.
    Idle,
    Head,
    /// A body of which so many bytes are left.
    Length(u64),
    Chunked(ChunkedBody),
    /// A body that ends with the connection.
    UntilClosed,
    /// Another protocol, or a response that is accepted although it is ambiguous.
    Unchecked,
}

/// A request, as far as its response depends on it.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    kind: RequestKind,
    ambiguous: AmbiguousFraming,
}

/// What the meaning of a head depends on besides the head (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// HEAD: the response ends with its head.
    Head,
    /// It asks for another protocol.
    Upgrade,
    Other,
}

/// What is known of a head so far.
#[derive(Debug, Default)]
struct ResponseHead {
    lines: usize,
    is_http_10: bool,
    status: u16,
    body: FramingFields,
}

/// hyper's own limits of a response's head; here also of its trailers.
const LIMITS: FieldLimits = FieldLimits { bytes: 64 * 1024, fields: 100 };

/// More than any server sends: a 102 may come every few seconds.
const MAX_INTERIM: usize = 1000;

impl RequestKind {
    /// Of a request that does not ask for another protocol.
    pub(super) fn of(method: &Method) -> Self {
        if method == Method::HEAD { Self::Head } else { Self::Other }
    }
}

impl ResponseFramer {
    pub(super) fn new() -> Self {
        let current = Exchange { kind: RequestKind::Other, ambiguous: AmbiguousFraming::Refuse };
        let (head, lines) = (ResponseHead::default(), HeadLines::default());
        Self { state: ResponseState::Idle, next: None, current, head, lines, interim: 0 }
    }

    /// A request is about to be sent.
    pub(super) fn announce(&mut self, kind: RequestKind, ambiguous: AmbiguousFraming) {
        self.next = Some(Exchange { kind, ambiguous });
    }

    /// Bytes are being sent: from the first byte of a request on there may be a response. What arrives before is none, although hyper
    /// might take it for one.
    pub(super) fn record_write(&mut self) {
        if let Some(next) = self.next.take() {
            (self.state, self.current, self.interim) = (ResponseState::Head, next, 0);
        }
    }

    /// Whether the last response is complete, and no byte followed it.
    pub(super) fn is_idle(&self) -> bool {
        self.state == ResponseState::Idle
    }

    /// How many of these bytes pass, and what is wrong after them. Bytes that do not pass must be passed in again, with more after
    /// them; a head passes whole or not at all.
    pub(super) fn check(&mut self, bytes: &[u8]) -> (usize, Option<&'static str>) {
        let (passed, wrong) = self.check_strictly(bytes);
        if wrong.is_some() && self.current.ambiguous == AmbiguousFraming::Accept && !self.is_idle() {
            self.state = ResponseState::Unchecked;
            return (bytes.len(), None);
        }
        (passed, wrong)
    }

    fn check_strictly(&mut self, bytes: &[u8]) -> (usize, Option<&'static str>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.state {
                ResponseState::Idle => return (passed, Some("bytes that belong to no response")),
                ResponseState::Head => match self.check_head(rest) {
                    Ok(Some(length)) => passed += length,
                    Ok(None) => break,
                    Err(wrong) => return (passed, Some(wrong)),
                },
                ResponseState::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= here as u64;
                    passed += here;
                    if *left == 0 {
                        self.state = ResponseState::Idle;
                    }
                }
                ResponseState::Chunked(body) => match body.check(rest, LIMITS) {
                    ChunkedProgress::Continues => passed = bytes.len(),
                    ChunkedProgress::Ends(length) => {
                        passed += length;
                        self.state = ResponseState::Idle;
                    }
                    ChunkedProgress::Malformed(length, wrong) => return (passed + length, Some(wrong)),
                },
                ResponseState::UntilClosed | ResponseState::Unchecked => passed = bytes.len(),
            }
        }
        (passed, None)
    }

    /// The length of the head at the start of these bytes, if it is complete.
    fn check_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        const TOO_LARGE: &str = "the head is too large";
        while let Some(line) = self.lines.next(bytes) {
            let line = line?;
            let length = self.lines.length();
            if length > LIMITS.bytes {
                return Err(TOO_LARGE);
            }
            if !line.is_empty() {
                self.head.line(line)?;
                continue;
            }
            self.state = self.head.finish(self.current.kind)?;
            if self.state == ResponseState::Head {
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Err("there are too many interim responses");
                }
            }
            (self.head, self.lines) = (ResponseHead::default(), HeadLines::default());
            return Ok(Some(length));
        }
        if bytes.len() > LIMITS.bytes { Err(TOO_LARGE) } else { Ok(None) }
    }
}

impl ResponseHead {
    /// Checks one line, given without its CRLF. Not for the empty line that ends the head.
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.lines += 1;
        if self.lines == 1 {
            return self.status_line(line);
        }
        if self.lines - 1 > LIMITS.fields {
            return Err("there are too many fields");
        }
        let (name, value) = field(line)?;
        self.body.note(name, value)
    }

    /// RFC 9112 §4. Some servers leave out the reason phrase, and some the space before it.
    fn status_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "a response must start with HTTP/1.1, a space and three digits";
        let (version, rest) = line.split_at_checked(8).ok_or(WRONG)?;
        self.is_http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(WRONG),
        };
        let [b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..] = rest else {
            return Err(WRONG);
        };
        let number = |digit: u8| u16::from(digit - b'0');
        self.status = 100 * number(*hundreds) + 10 * number(*tens) + number(*ones);
        let is_text = reason.iter().copied().all(is_text);
        if is_text && (reason.is_empty() || reason.starts_with(b" ")) { Ok(()) } else { Err(WRONG) }
    }

    /// Checks the head as a whole, at the empty line that ends it. What follows it.
    fn finish(&self, kind: RequestKind) -> Result<ResponseState, &'static str> {
        if self.lines == 0 {
            return Err("a response must not start with an empty line");
        }
        let framing = self.body.framing(self.is_http_10)?;
        let has_none = matches!(framing, None | Some(BodyFraming::Length(0)));
        Ok(match self.status {
            // RFC 9110 §8.6, RFC 9112 §6.1; servers do send `Content-Length: 0`.
            100..=199 | 204 if !has_none => return Err("an interim response or a 204 has no body"),
            101 if kind == RequestKind::Upgrade => ResponseState::Unchecked,
            101 => return Err("the request did not ask for another protocol"), // RFC 9110 §15.2.2
            100..=199 => ResponseState::Head,
            204 | 304 => ResponseState::Idle,
            _ if kind == RequestKind::Head => ResponseState::Idle,
            _ => match framing {
                Some(BodyFraming::Length(0)) => ResponseState::Idle,
                Some(BodyFraming::Length(left)) => ResponseState::Length(left),
                Some(BodyFraming::Chunked) => ResponseState::Chunked(ChunkedBody::default()),
                None => ResponseState::UntilClosed,
            },
        })
    }
}

#[cfg(test)]
#[path = "response_framer_tests.rs"]
mod tests;
