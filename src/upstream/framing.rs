//! Whether a response has one unambiguous end.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, Version};

/// The error for a response with ambiguous framing.
pub(super) const AMBIGUOUS: &str = "the upstream's response has ambiguous framing";

/// Whether there is one way to read the framing (RFC 9112 §6.3). hyper lets Transfer-Encoding override Content-Length, accepts a
/// repeated length, and reads an unknown coding to the end of the connection; a program between Pixy and the upstream may read it
/// differently, which allows response splitting.
pub(super) fn is_unambiguous<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let (lengths, codings) = (count(headers, &CONTENT_LENGTH), count(headers, &TRANSFER_ENCODING));
    if response.version() == Version::HTTP_2 {
        // No codings (RFC 9113 §8.2.2), but a length that is forwarded to the agent.
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
