//! The id of a request: in every log line about it and in the response, so that an error that an agent shows leads to the log.
//!
//! Pixy generates it and ignores an id of the agent: the log must not contain text that an agent chose, and an id must
//! identify one request.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

/// Unique within the process, and very likely across processes. It grants nothing, so it may be predictable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// The response field that carries it. A provider's own id has other names (`request-id`, `x-request-id`) and is forwarded.
pub const FIELD: HeaderName = HeaderName::from_static("x-pixy-request-id");

impl RequestId {
    /// The next one.
    pub fn next() -> Self {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(rand::random()));
        Self(spread(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// As the value of [`FIELD`].
    pub fn to_value(self) -> HeaderValue {
        // Hexadecimal digits are visible ASCII (RFC 9110 §5.5).
        HeaderValue::try_from(self.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Sixteen hexadecimal digits.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A bijection (the finalizer of SplitMix64) that makes consecutive ids visibly different.
fn spread(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_sixteen_digits_long() {
        let ids: Vec<RequestId> = (0..10_000).map(|_| RequestId::next()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for id in ids {
            let (text, value) = (id.to_string(), id.to_value());
            assert_eq!(value.as_bytes(), text.as_bytes());
            assert!(text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        }
    }
}
