//! A request's own name: in every log line about it and in the agent's answer, so that what an agent shows a person leads to
//! what Pixy wrote of it.
//!
//! It is made here, whatever the agent calls its request: a log must not hold what an agent made up, of any length, and two
//! requests that are called the same would be told for one.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

/// Names one request among all of this process, and in all likelihood among those of others. It opens nothing, so it may be
/// guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// The field of an answer that tells it. What a provider calls the request has other names (`request-id`, `x-request-id`), and
/// crosses.
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

/// Another number for each number, far from those of its neighbours (the last step of SplitMix64): names that count upwards
/// look alike to a person who compares two.
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
    fn no_two_are_the_same_and_all_are_sixteen_digits() {
        let ids: Vec<RequestId> = (0..10_000).map(|_| RequestId::next()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for id in ids {
            let (text, value) = (id.to_string(), id.to_value());
            assert_eq!(value.as_bytes(), text.as_bytes());
            assert!(text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        }
    }
}
