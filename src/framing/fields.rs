//! The field lines of a head, and how its body is framed.

/// How the body after a head is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// By its length in bytes.
    Length(u64),
    /// In chunks (RFC 9112 §7.1).
    Chunked,
}

/// How large the fields of a head, or of trailers, may be.
#[derive(Debug, Clone, Copy)]
pub struct FieldLimits {
    /// In bytes.
    pub bytes: usize,
    /// Their number.
    pub fields: usize,
}

/// The fields of a head that frame its body.
#[derive(Debug, Default, Clone, Copy)]
pub struct FramingFields {
    length: Option<u64>,
    chunked: bool,
}

impl FramingFields {
    /// Notes a field, whatever it is. Fails on one that has two readings.
    pub fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // By length first: this runs for each field, and most are none of these.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err("a message may carry one Content-Length");
                }
                self.length = Some(length(value).ok_or("Content-Length must be one number")?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // A second field, equal or not, would make the value a list.
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("the only Transfer-Encoding is chunked");
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// What they say of the body, at the end of the head; `None` if nothing.
    pub fn framing(self, is_http_10: bool) -> Result<Option<BodyFraming>, &'static str> {
        match (self.chunked, self.length) {
            // RFC 9112 §6.1: this "ought to be handled as an error", and §11.2 is why.
            (true, Some(_)) => Err("Content-Length and Transfer-Encoding exclude each other"),
            (true, None) if is_http_10 => Err("HTTP/1.0 has no Transfer-Encoding"), // RFC 9112 §6.1
            (true, None) => Ok(Some(BodyFraming::Chunked)),
            (false, length) => Ok(length.map(BodyFraming::Length)),
        }
    }
}

/// The name and the trimmed value of a field line (RFC 9110 §5.1, §5.5).
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
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

fn length(value: &[u8]) -> Option<u64> {
    // `parse` alone would accept a sign.
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// RFC 9110 §5.6.2.
pub fn is_token(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// RFC 9110 §5.5: visible characters, blanks, and bytes above ASCII.
pub fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// RFC 9110 §5.6.3.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
