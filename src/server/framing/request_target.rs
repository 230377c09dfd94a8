//! Checks of single parts of a head: the method, the request target, `Host` and `Expect`.

use crate::server::limits::ServerLimits;
use crate::server::rejection::Rejection;

/// Rejects CONNECT and TRACE, which only a forward proxy needs.
pub(in crate::server) fn check_method(method: &[u8]) -> Result<(), Rejection> {
    if matches!(method, b"CONNECT" | b"TRACE") { Err(Rejection::MethodNotAllowed) } else { Ok(()) }
}

/// Allows origin-form alone (RFC 9112 §3.2.1). A server ought to accept absolute-form as well, but that would name the host a
/// second time, and no client sends it to a gateway.
pub(in crate::server) fn check(target: &[u8], limits: &ServerLimits) -> Result<(), Rejection> {
    if target.len() > limits.uri_bytes {
        return Err(Rejection::TargetTooLong);
    }
    if target.first() != Some(&b'/') {
        return Err(Rejection::BadRequest("the request target must be a path"));
    }
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    if path.iter().copied().all(is_path) && query.iter().copied().all(is_query) {
        Ok(())
    } else {
        Err(Rejection::BadRequest("the request target contains an invalid character"))
    }
}

/// Allows `host` or `host:port` (RFC 3986 §3.2.2, §3.2.3), without a user name, and without characters of that grammar that no
/// real host has and that separate lists: `,` `;` `=` and similar ones.
pub(in crate::server) fn check_authority(authority: &[u8]) -> Result<(), Rejection> {
    const WRONG: Rejection = Rejection::BadRequest("Host must be a host, with or without a port");
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => {
            let end = memchr::memchr(b']', rest).ok_or(WRONG)?;
            let address = std::str::from_utf8(&rest[..end]).map_err(|_| WRONG)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| WRONG)?;
            (&b"::"[..], &rest[end + 1..])
        }
        None => authority.split_at(memchr::memchr(b':', authority).unwrap_or(authority.len())),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%:".contains(&byte);
    // Clients percent-encode the path of a Unix socket.
    let escapes = host.split(|&byte| byte == b'%').skip(1);
    let mut valid = escapes.map(|after| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit));
    if host.is_empty() || !host.iter().copied().all(is_host) || !valid.all(|valid| valid) {
        return Err(WRONG);
    }
    match port {
        b"" => Ok(()),
        [b':', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u16>().ok());
            number.map(|_| ()).ok_or(WRONG)
        }
        _ => Err(WRONG),
    }
}

/// Allows `100-continue` alone (RFC 9110 §10.1.1).
pub(in crate::server) fn check_expectation(value: &[u8]) -> Result<(), Rejection> {
    if value.eq_ignore_ascii_case(b"100-continue") { Ok(()) } else { Err(Rejection::ExpectationFailed) }
}

/// `pchar` and the slash (RFC 3986 §3.3). Percent-encoding is checked where the path is routed.
fn is_path(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\''
        | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// RFC 3986 §3.4, and brackets, braces, bars and carets, which clients do not escape in a query and which have one meaning.
fn is_query(byte: u8) -> bool {
    is_path(byte) || matches!(byte, b'?' | b'[' | b']' | b'{' | b'}' | b'|' | b'^')
}
