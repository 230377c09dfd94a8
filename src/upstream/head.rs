//! Whether an answer says without doubt where it ends.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, Version};

/// What an unclear answer is called.
pub(super) const UNCLEAR: &str = "the upstream's answer does not say clearly where it ends";

/// Whether there is one way to read the framing (RFC 9112 §6.3). hyper lets Transfer-Encoding win over Content-Length, takes
/// a length that is said twice, and reads an unknown coding until the connection ends; who stands between us and the
/// upstream may see it otherwise, and then an answer can be split in two.
pub(super) fn is_clear<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let (lengths, codings) = (count(headers, &CONTENT_LENGTH), count(headers, &TRANSFER_ENCODING));
    if response.version() == Version::HTTP_2 {
        // No codings there (RFC 9113 §8.2.2), but a length that goes on to the agent.
        return codings == 0 && lengths <= 1;
    }
    let chunked =
        headers.get(TRANSFER_ENCODING).is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    match (lengths, codings) {
        (0, 0) => true,
        (1, 0) => headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes().iter().all(u8::is_ascii_digit)),
        (0, 1) => chunked,
        _ => false,
    }
}

fn count(headers: &HeaderMap, name: &http::HeaderName) -> usize {
    headers.get_all(name).iter().count()
}
