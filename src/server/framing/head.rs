//! Checks the head of an HTTP/1 request line by line before hyper parses it. A head that two programs could read in two ways is
//! rejected, also where the RFC would let a server repair it: request smuggling needs exactly such heads.

use super::request_target;
use crate::server::limits::ServerLimits;
use crate::server::rejection::Rejection;

/// How the body after the head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum BodyFraming {
    /// By its length in bytes.
    Length(u64),
    /// In chunks (RFC 9112 §7.1).
    Chunked,
}

/// What is known of a head so far.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is an independent fact about a head")]
pub(in crate::server) struct Head {
    lines: usize,
    is_http_10: bool,
    has_host: bool,
    length: Option<u64>,
    chunked: bool,
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
        match (self.chunked, self.length) {
            // RFC 9112 §6.1: this "ought to be handled as an error", and §11.2 is why.
            (true, Some(_)) => Err(Rejection::BadRequest("Content-Length and Transfer-Encoding exclude each other")),
            (true, None) if self.is_http_10 => {
                Err(Rejection::BadRequest("HTTP/1.0 has no Transfer-Encoding")) // RFC 9112 §6.1
            }
            (true, None) => Ok(BodyFraming::Chunked),
            (false, length) => Ok(BodyFraming::Length(length.unwrap_or(0))),
        }
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
            14 if is("content-length") => {
                if self.length.is_some() {
                    return Err(Rejection::BadRequest("a request may carry one Content-Length"));
                }
                self.length = Some(length(value)?);
            }
            17 if is("transfer-encoding") => {
                // A second field, equal or not, would make the value a list.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Rejection::BadRequest("the only Transfer-Encoding is chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The name and the trimmed value of a field line (RFC 9110 §5.1, §5.5).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if line.first().is_some_and(|&byte| is_blank(byte)) {
        return Err("a field must not continue in the next line"); // obs-fold, RFC 9112 §5.2
    }
    let end = line.iter().position(|&byte| !is_token(byte)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let Some(value) = rest.strip_prefix(b":").filter(|_| !name.is_empty()) else {
        return Err(if line.contains(&b':') {
            "a field name contains an invalid character" // white space before the colon too, RFC 9112 §5.1
        } else {
            "a field must be a name, a colon and a value"
        });
    };
    // Without stopping at the first wrong byte: the compiler vectorises this loop.
    if value.iter().fold(false, |wrong, &byte| wrong | !is_text(byte)) {
        return Err("a field value contains a control character");
    }
    Ok((name, value.trim_ascii()))
}

fn length(value: &[u8]) -> Result<u64, Rejection> {
    const WRONG: Rejection = Rejection::BadRequest("Content-Length must be one number");
    // `parse` alone would accept a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(WRONG)
}

/// RFC 9110 §5.6.2.
pub(in crate::server) fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// RFC 9110 §5.5: visible characters, blanks, and bytes above ASCII.
pub(in crate::server) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 §5.6.3.
pub(in crate::server) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
