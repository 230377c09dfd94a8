//! Names and comma lists of header fields.

use http::{HeaderMap, HeaderName};

/// The members of a comma list (RFC 9110 §5.6.1) over all values of a field, in lower case. A member that is not UTF-8 does not
/// hide the others.
pub fn list_members(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    let values = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    values.map(|member| String::from_utf8_lossy(member.trim_ascii()).to_ascii_lowercase())
}

/// As `starts_with`, with a length that is known at compile time.
pub fn has_prefix<const LENGTH: usize>(name: &str, prefix: &[u8; LENGTH]) -> bool {
    name.as_bytes().first_chunk() == Some(prefix)
}
