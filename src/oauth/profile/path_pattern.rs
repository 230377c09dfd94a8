//! Path patterns of a profile's allow-list: `/v1/models/*`.

use schemars::JsonSchema;

/// A path pattern. A `*` at the start of a segment stands for any text of at least one character before the rest of the segment
/// (`*`, `*:generateContent`).
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline)]
pub struct PathPattern {
    text: String,
    /// Where the first `*` stands: everything before it is compared at once.
    star: Option<usize>,
}

impl PathPattern {
    /// Parses `/v1/models/*`. `None` when it does not start with `/`, has an empty or dot segment, or a `*` that is not the
    /// start of a segment.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = |segment: &str| {
            let literal = segment.strip_prefix('*').unwrap_or(segment);
            let is_plain = !literal.contains('*') && literal.bytes().all(|byte| byte.is_ascii_graphic());
            is_plain && !matches!(segment, "" | "." | "..")
        };
        text.strip_prefix('/')?.split('/').all(is_valid).then(|| Self { text: text.to_owned(), star: text.find('*') })
    }

    /// Whether `path` matches. It must start with `/`, have no query and no encoded separators.
    pub fn matches(&self, path: &str) -> bool {
        let Some(star) = self.star else { return self.text == path };
        // Most patterns of a profile differ from a path before their star: no segment is looked at then.
        let (prefix, pattern) = self.text.split_at(star);
        let Some(rest) = path.strip_prefix(prefix) else { return false };
        let mut segments = rest.split('/');
        let matches_next = |pattern: &str| {
            segments.next().is_some_and(|segment| match pattern.strip_prefix('*') {
                Some(suffix) => segment.len() > suffix.len() && segment.ends_with(suffix),
                None => segment == pattern,
            })
        };
        pattern.split('/').all(matches_next) && segments.next().is_none()
    }

    /// The pattern as it is written in a profile.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment() {
        let models = PathPattern::parse("/v1/models/*").unwrap();
        assert!(models.matches("/v1/models/claude-opus"));
        for other in ["/v1/models", "/v1/models/", "/v1/models/a/b", "/v1/modelsx/a", "v1/models/a"] {
            assert!(!models.matches(other), "{other}");
        }
        let inner = PathPattern::parse("/v1/*/batches/*/cancel").unwrap();
        assert!(inner.matches("/v1/a/batches/b/cancel"));
        assert!(!inner.matches("/v1/a/batches/b/cancels") && !inner.matches("/v1/a/batches/b/cancel/"));
        let generate = PathPattern::parse("/v1beta/models/*:generateContent").unwrap();
        assert!(generate.matches("/v1beta/models/gemini-pro:generateContent"));
        assert!(!generate.matches("/v1beta/models/:generateContent"));
        assert!(!generate.matches("/v1beta/models/gemini-pro:delete"));
        assert_eq!(generate.as_str(), "/v1beta/models/*:generateContent");
        for wrong in ["", "v1", "/", "//", "/a/", "/a/../b", "/a*", "/**"] {
            assert_eq!(PathPattern::parse(wrong), None, "{wrong}");
        }
    }
}
