//! `traceparent` (W3C Trace Context §3.2): which trace an agent's request belongs to.

use http::HeaderMap;

/// A valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    /// The trace.
    pub trace: u128,
    /// The agent's span.
    pub parent: u64,
    /// The agent may have recorded its part.
    pub sampled: bool,
}

impl Context {
    /// Of the one `traceparent` of a request; anything but a valid one is as none (§4.3).
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let text = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
        Self::parse(text)
    }

    fn parse(text: &str) -> Option<Self> {
        let (version, rest) = (hex(text.get(..2)?)?, text.get(55..)?);
        // Of a later version the beginning is read, and what follows is its own (§3.2.4); version 255 is none.
        let fits = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        let dashes = [2, 35, 52].iter().all(|&at| text.as_bytes()[at] == b'-');
        if version == 255 || !fits || !dashes {
            return None;
        }
        let (trace, parent) = (hex(text.get(3..35)?)?, hex(text.get(36..52)?)?);
        let flags = hex(text.get(53..55)?)?;
        let parent = u64::try_from(parent).ok()?;
        (trace != 0 && parent != 0).then_some(Self { trace, parent, sampled: flags & 1 == 1 })
    }
}

/// Digits in lower case alone are valid.
fn hex(text: &str) -> Option<u128> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_lower { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn what_the_recommendation_allows_is_read() {
        for (text, sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds", true),
        ] {
            assert_eq!(Context::parse(text), Some(Context { trace: TRACE, parent: PARENT, sampled }), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(text), None, "{text}");
        }
        let mut headers = HeaderMap::new();
        let valid = http::HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        headers.append("traceparent", valid.clone());
        assert!(Context::read(&headers).is_some());
        headers.append("traceparent", valid);
        assert_eq!(Context::read(&headers), None, "two are none");
    }
}
