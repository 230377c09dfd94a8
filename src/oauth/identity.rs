//! The identity of an account, from a token response and its id_token, and how a provider's text is shown to a person.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::profile::values::PlainHeader;
use super::profile::{Entries, FieldPath, FieldSource};

/// The claims of a JWT.
#[derive(Deserialize)]
pub struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// Reads the claims without verifying the signature. Sufficient for a token that was received from the token endpoint over
    /// TLS (OpenID Connect Core §3.1.3.7, item 6), but never for an authorization decision.
    pub fn read_unverified(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Who the token is about; `None` without `sub`.
    pub fn subject(&self) -> Option<Subject> {
        let text = |name: &str| self.0.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Subject { issuer: text("iss"), subject: text("sub").filter(|subject| !subject.is_empty())? })
    }

    /// A claim in whole seconds; RFC 7519 §2 allows fractions.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let number = self.0.get(name)?;
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and no real claim is beyond an i64")]
        number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64))
    }
}

/// A person at an authorization server (OpenID Connect Core §2: `iss` and `sub` together identify one). The serialized names are
/// part of the sealed record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `iss`.
    pub issuer: Option<String>,
    /// `sub`.
    pub subject: String,
}

/// The longest text of a provider that is shown to a person, in characters.
const LONGEST_SHOWN: usize = 200;

/// The longest value of a header that is copied from a claim, in bytes.
const LONGEST_CLAIM_HEADER: usize = 4096;

/// A provider's text as it is shown to a person, on the page, in the terminal, in the API and in a log: at most
/// 200 characters on one line, in which everything that has no glyph, or that changes how other characters are
/// shown, is written as `\u{202e}`. A text that went through here stays as it is.
pub fn shown(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if is_unshowable(character) {
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(character)); // a String accepts it
        } else {
            escaped.push(character);
        }
    }
    if escaped.chars().count() <= LONGEST_SHOWN {
        return escaped;
    }
    escaped.chars().take(LONGEST_SHOWN - 1).chain(['…']).collect()
}

/// Whether a character is a control or format character (Unicode Cc, Cf: bidi controls and zero width included), a separator
/// other than the space (Zl, Zp, Zs), for private use, unassigned, or ignored by default (Default_Ignorable_Code_Point).
fn is_unshowable(character: char) -> bool {
    // The standard library has the table of the general categories in `escape_debug` alone. After a base character it escapes no
    // combining mark, which scripts need.
    let pair: String = ['a', character].iter().collect();
    let is_escaped = pair.escape_debug().nth(1) == Some('\\') && !matches!(character, '\\' | '"' | '\'');
    is_escaped
        || matches!(
            u32::from(character),
            // Marks and letters that are ignored by default: the grapheme joiner, fillers, vowels without a glyph, variation selectors.
            0x34f | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x3164 | 0xfe00..=0xfe0f | 0xffa0
                | 0xe0000..=0xe0fff
            // BRAILLE PATTERN BLANK has a glyph without ink.
            | 0x2800
        )
}

/// The texts to show a person, in the order of the profile, without duplicates.
pub fn find(paths: &[FieldPath], reply: &Map<String, Value>, claims: Option<&Claims>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in paths.iter().filter_map(|path| look_up(path, reply, claims)) {
        let text = shown(text.trim());
        if !text.is_empty() && !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

/// Headers whose values are claims. Claims that are absent or not valid in a header are left out.
pub fn claim_headers(
    wanted: &Entries<PlainHeader, FieldPath>,
    reply: &Map<String, Value>,
    claims: Option<&Claims>,
) -> Vec<(String, String)> {
    wanted
        .given()
        .filter_map(|(name, path)| Some((name.as_str().to_owned(), look_up(path, reply, claims)?)))
        .filter(|(_, value)| !value.trim().is_empty() && value.len() <= LONGEST_CLAIM_HEADER)
        .filter(|(_, value)| HeaderValue::from_str(value).is_ok())
        .collect()
}

fn look_up(path: &FieldPath, reply: &Map<String, Value>, claims: Option<&Claims>) -> Option<String> {
    let start = match path.source {
        FieldSource::TokenResponse => reply,
        FieldSource::IdToken => &claims?.0,
    };
    let (first, rest) = path.members.split_first()?;
    let value = rest.iter().try_fold(start.get(first)?, |value, member| value.get(member))?;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(source: FieldSource, members: &[&str]) -> FieldPath {
        FieldPath { source, members: members.iter().map(|&member| member.to_owned()).collect() }
    }

    #[test]
    fn identity_comes_from_the_reply_and_the_id_token() {
        let id_token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(json!({"email": "a@b.c", "exp": 5}).to_string()));
        let claims = Claims::read_unverified(&id_token).unwrap();
        let reply = json!({"account": {"email_address": "a@b.c"}, "organization": {"name": "Ac\u{7}me"}, "n": 7});
        let paths = [
            path(FieldSource::TokenResponse, &["account", "email_address"]),
            path(FieldSource::IdToken, &["email"]),
            path(FieldSource::TokenResponse, &["organization", "name"]),
            path(FieldSource::TokenResponse, &["absent", "name"]),
            path(FieldSource::TokenResponse, &["n"]),
        ];
        assert_eq!(find(&paths, reply.as_object().unwrap(), Some(&claims)), ["a@b.c", "Ac\\u{7}me", "7"]);
        assert_eq!(claims.seconds("exp"), Some(5));
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for text in ["", "a", "a.b", "a.!!!.c", "a.W10.c", "sk-ant-oat01-x"] {
            assert!(Claims::read_unverified(text).is_none(), "{text}");
        }
    }

    #[test]
    fn attack_94_format_characters_are_shown_as_escapes() {
        // The general categories Cc, Cf, Zl, Zp, and Zs without the space; bidi controls and zero width are Cf.
        let ranges = [
            0x0..=0x1f,
            0x7f..=0x9f,
            0xa0..=0xa0,
            0xad..=0xad,
            0x600..=0x605,
            0x61c..=0x61c,
            0x6dd..=0x6dd,
            0x70f..=0x70f,
            0x890..=0x891,
            0x8e2..=0x8e2,
            0x1680..=0x1680,
            0x180e..=0x180e,
            0x2000..=0x200f,
            0x2028..=0x202f,
            0x205f..=0x206f,
            0x3000..=0x3000,
            0xfeff..=0xfeff,
            0xfff9..=0xfffb,
            0x110bd..=0x110bd,
            0x110cd..=0x110cd,
            0x13430..=0x1343f,
            0x1bca0..=0x1bca3,
            0x1d173..=0x1d17a,
            0xe0001..=0xe0001,
            0xe0020..=0xe007f,
            // Ignored by default without being Cf; private use; noncharacters.
            0x34f..=0x34f,
            0x115f..=0x1160,
            0x17b4..=0x17b5,
            0x180b..=0x180f,
            0x3164..=0x3164,
            0xfe00..=0xfe0f,
            0xffa0..=0xffa0,
            0xe0100..=0xe01ef,
            0x2800..=0x2800,
            0xe000..=0xe0ff,
            0xfffe..=0xffff,
            0x0010_ffff..=0x0010_ffff,
        ];
        for code in ranges.into_iter().flatten() {
            let character = char::from_u32(code).unwrap();
            assert_eq!(shown(&format!("a{character}b")), format!("a\\u{{{code:x}}}b"));
        }
        let evil = "admin@corp.example\u{202e}moc.live@eve\n\u{1b}[2J\u{200b}";
        let escaped = r"admin@corp.example\u{202e}moc.live@eve\u{a}\u{1b}[2J\u{200b}";
        assert_eq!(shown(evil), escaped);
        assert_eq!(shown(escaped), escaped, "twice is as once");
    }

    #[test]
    fn names_of_people_stay_as_they_are() {
        for name in [
            "Zoë O'Brien \"Zo\" <zoe@example.com>",
            r"CORP\zoe",
            "Zoe\u{308}", // a combining mark
            "अनुष्का",
            "محمد",
            "שָׁלוֹם",
            "李小龍 👩",
            "ไทย",
            "Nguyễn",
        ] {
            assert_eq!(shown(name), name);
        }
    }

    #[test]
    fn attack_94_an_identity_is_bounded() {
        let long = shown(&"é".repeat(100_000));
        assert_eq!((long.chars().count(), long.chars().last()), (200, Some('…')));
        assert_eq!(shown(&long), long);
        assert_eq!(shown(&"\u{202e}".repeat(100_000)).chars().count(), 200);
        assert_eq!(shown(&"x".repeat(200)), "x".repeat(200));
    }

    #[test]
    fn a_claim_becomes_a_header_as_it_is_or_not_at_all() {
        let reply = json!({ "good": "a b", "bad": "a\nb", "empty": " ", "long": "x".repeat(5000) });
        let wanted = r"{ x-good: [token, good], x-bad: [token, bad], x-empty: [token, empty], x-long: [token, long] }";
        let wanted: Entries<PlainHeader, FieldPath> = serde_yaml::from_str(wanted).unwrap();
        let found = claim_headers(&wanted, reply.as_object().unwrap(), None);
        assert_eq!(found, [("x-good".to_owned(), "a b".to_owned())]);
    }
}
