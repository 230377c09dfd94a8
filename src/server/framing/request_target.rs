//! What both versions of HTTP have in common: the method, the request target, the authority, and what a client expects.

use crate::server::Limits;
use crate::server::reject::Rejection;

/// Methods that mean something to a proxy alone.
pub(in crate::server) fn check_method(method: &[u8]) -> Result<(), Rejection> {
    if matches!(method, b"CONNECT" | b"TRACE") { Err(Rejection::MethodNotAllowed) } else { Ok(()) }
}

/// Origin-form alone (RFC 9112 §3.2.1). A server ought to take absolute-form as well, but it would be a second place that
/// names a host, and no client sends it to a gateway.
pub(in crate::server) fn check(target: &[u8], limits: &Limits) -> Result<(), Rejection> {
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
        Err(Rejection::BadRequest("the request target holds what no path or query may"))
    }
}

/// `host` or `host:port` (RFC 3986 §3.2.2, §3.2.3), without a user name, and without the characters of that grammar which no
/// host has and which make lists: `,` `;` `=` and the like.
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
    // Names of Unix sockets come percent-encoded.
    let escapes = host.split(|&byte| byte == b'%').skip(1);
    let mut whole = escapes.map(|after| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit));
    if host.is_empty() || !host.iter().copied().all(is_host) || !whole.all(|whole| whole) {
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

/// RFC 9110 §10.1.1.
pub(in crate::server) fn check_expectation(value: &[u8]) -> Result<(), Rejection> {
    if value.eq_ignore_ascii_case(b"100-continue") { Ok(()) } else { Err(Rejection::ExpectationFailed) }
}

/// RFC 3986 §3.3: `pchar`, and the slash. Percent signs are looked at where the path is given its meaning.
fn is_path(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\''
        | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// RFC 3986 §3.4, and brackets, braces, bars and carets, which clients do not escape in a query and nobody reads otherwise.
fn is_query(byte: u8) -> bool {
    is_path(byte) || matches!(byte, b'?' | b'[' | b']' | b'{' | b'}' | b'|' | b'^')
}
