//! Path patterns of a profile's allow-list: `/v1/models/*`.

use schemars::JsonSchema;

/// A path pattern, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline)]
pub struct PathPattern(Vec<Segment>);

/// One segment of a [`PathPattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Exactly this text.
    Literal(String),
    /// Any text of at least one character before this suffix (`*`, `*:generateContent`).
    AnyWithSuffix(String),
}

impl PathPattern {
    /// Parses `/v1/models/*`. `None` when it does not start with `/`, has an empty or dot segment, or a `*` that is not the
    /// start of a segment.
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(Segment::parse).collect::<Option<Vec<_>>>()?;
        Some(Self(segments))
    }

    /// Whether `path` matches. It must start with `/`, have no query and no encoded separators.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        let all_match = self.0.iter().all(|segment| {
            let Some(below) = rest.strip_prefix('/') else { return false };
            let end = below.bytes().position(|byte| byte == b'/').unwrap_or(below.len());
            rest = &below[end..];
            segment.matches(&below[..end])
        });
        all_match && rest.is_empty()
    }

    /// The pattern as it is written in a profile.
    pub fn as_text(&self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::new(), |mut text, segment| {
            let (star, literal) = match segment {
                Segment::Literal(literal) => ("", literal),
                Segment::AnyWithSuffix(suffix) => ("*", suffix),
            };
            let _ = write!(text, "/{star}{literal}"); // writing to a String cannot fail
            text
        })
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Self> {
        let plain = |literal: &str| !literal.contains('*') && literal.bytes().all(|byte| byte.is_ascii_graphic());
        match text.strip_prefix('*') {
            Some(suffix) if plain(suffix) => Some(Self::AnyWithSuffix(suffix.to_owned())),
            None if !matches!(text, "" | "." | "..") && plain(text) => Some(Self::Literal(text.to_owned())),
            _ => None,
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::AnyWithSuffix(suffix) => text.len() > suffix.len() && text.ends_with(suffix.as_str()),
        }
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
        let generate = PathPattern::parse("/v1beta/models/*:generateContent").unwrap();
        assert!(generate.matches("/v1beta/models/gemini-pro:generateContent"));
        assert!(!generate.matches("/v1beta/models/:generateContent"));
        assert!(!generate.matches("/v1beta/models/gemini-pro:delete"));
        assert_eq!(generate.as_text(), "/v1beta/models/*:generateContent");
        for wrong in ["", "v1", "/", "//", "/a/", "/a/../b", "/a*", "/**"] {
            assert_eq!(PathPattern::parse(wrong), None, "{wrong}");
        }
    }
}
