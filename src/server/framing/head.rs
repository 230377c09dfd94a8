//! Checks the head of an HTTP/1 request line by line before hyper parses it. A head that two programs could read in two ways is
//! rejected, also where the RFC would let a server repair it: request smuggling needs exactly such heads.

use super::request_target;
use crate::framing::fields::{BodyFraming, FramingFields, field, is_token};
use crate::server::limits::ServerLimits;
use crate::server::rejection::Rejection;

/// What is known of a head so far.
#[derive(Debug, Default)]
pub(in crate::server) struct Head {
    lines: usize,
    is_http_10: bool,
    has_host: bool,
    body: FramingFields,
    asks_for_upgrade: bool,
}

impl Head {
    /// Checks one line, given without its CRLF. Not for the empty line that ends the head.
    pub(in crate::server) fn line(&mut self, line: &[u8], limits: &ServerLimits) -> Result<(), Rejection> {
        self.lines += 1;
        if self.lines == 1 {
            return self.request_line(line, limits);
        }
        if self.lines - 1 > limits.header_fields {
            return Err(Rejection::HeadTooLarge);
        }
        let (name, value) = field(line).map_err(Rejection::BadRequest)?;
        self.field(name, value)
    }

    /// No line was checked yet.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Whether it has an `Upgrade` field, so that what follows may not be HTTP.
    pub(in crate::server) fn asks_for_upgrade(&self) -> bool {
        self.asks_for_upgrade
    }

    /// Checks the head as a whole, at the empty line that ends it.
    pub(in crate::server) fn finish(&self) -> Result<BodyFraming, Rejection> {
        if self.is_empty() {
            // RFC 9112 §2.2 lets a server skip it; no real client sends it.
            return Err(Rejection::BadRequest("a request must not start with an empty line"));
        }
        if !self.has_host {
            return Err(Rejection::BadRequest("a request must carry exactly one Host"));
        }
        let framing = self.body.framing(self.is_http_10).map_err(Rejection::BadRequest)?;
        Ok(framing.unwrap_or(BodyFraming::Length(0)))
    }

    /// Three parts with exactly one space between them (RFC 9112 §3).
    fn request_line(&mut self, line: &[u8], limits: &ServerLimits) -> Result<(), Rejection> {
        const WRONG: Rejection = Rejection::BadRequest("the request line must be a method, a path and HTTP/1.1");
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(WRONG);
        };
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(WRONG);
        }
        self.is_http_10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Rejection::BadRequest("the version must be HTTP/1.1 or HTTP/1.0")),
        };
        request_target::check_method(method)?;
        request_target::check(target, limits)
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Rejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // By length first: this runs for each field, and most are none of these.
        match name.len() {
            4 if is("host") => {
                if self.has_host {
                    return Err(Rejection::BadRequest("a request must carry exactly one Host"));
                }
                self.has_host = true;
                request_target::check_authority(value)?;
            }
            6 if is("expect") => request_target::check_expectation(value)?,
            7 if is("upgrade") => self.asks_for_upgrade = true,
            _ => self.body.note(name, value).map_err(Rejection::BadRequest)?,
        }
        Ok(())
    }
}
