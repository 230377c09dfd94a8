//! The encodings of a secret in JSON, URLs, HTML, base64 and hex.

use std::ops::Deref;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// An encoded secret, without characters that depend on what surrounds it.
pub struct Encoded {
    text: Zeroizing<Vec<u8>>,
    /// In base64, a character before it holds some of its bits.
    pub shares_first: bool,
    /// In base64, a character behind it holds some of its bits.
    pub shares_last: bool,
}

impl Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text
    }
}

impl Encoded {
    fn whole(text: Zeroizing<Vec<u8>>) -> Self {
        Self { text, shares_first: false, shares_last: false }
    }

    /// In lower case.
    #[must_use]
    pub fn lower(&self) -> Self {
        Self { text: Zeroizing::new(self.text.to_ascii_lowercase()), ..*self }
    }
}

/// What percent-encoders keep besides letters and digits.
const UNESCAPED: [&[u8]; 5] = [
    b"-._~",       // RFC 3986 §2.3: unreserved
    b"-._*",       // the URL standard's form encoding
    b"-._~!*'()",  // JavaScript's encodeURIComponent
    b"-._~/",      // Python's quote
    b"-._~$&+=:@", // Go's PathEscape
];

/// What JSON writers escape with `\u` without need.
const UNICODE_ESCAPED: [&[u8]; 5] = [
    b"+/",
    b"+/=",
    b"<>&",      // Go
    b"=<>&'",    // Gson
    b"+<>&'`\"", // System.Text.Json
];

/// What every HTML writer replaces by character references, and by which.
const HTML_ESCAPED: [(u8, &str); 3] = [(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;")];

/// In what HTML writers differ.
const HTML_DIALECTS: [&[(u8, &str)]; 4] = [
    &[(b'"', "&quot;"), (b'\'', "&#39;")],
    &[(b'"', "&quot;"), (b'\'', "&#39;"), (b'/', "&#x2F;"), (b'=', "&#x3D;")],
    &[(b'"', "&#34;"), (b'\'', "&#39;"), (b'+', "&#43;")],
    &[(b'"', "&quot;"), (b'\'', "&#x27;"), (b'+', "&#x2B;")],
];

/// The secret itself and in every encoding that is searched for; with duplicates, because most tokens need no escapes.
pub fn encodings(secret: &str) -> Vec<Encoded> {
    let secret = secret.as_bytes();
    let mut all = vec![Encoded::whole(Zeroizing::new(secret.to_vec()))];
    for ahead in 0..3 {
        all.push(inside_base64(&STANDARD_NO_PAD, secret, ahead));
        all.push(inside_base64(&URL_SAFE_NO_PAD, secret, ahead));
    }
    let hex: [fn(u8) -> String; 2] = [|byte| format!("{byte:02x}"), |byte| format!("{byte:02X}")];
    for hex in hex {
        all.push(escaped(secret, |byte| Some(hex(byte))));
        for unescaped in UNESCAPED {
            let kept = |byte: u8| byte.is_ascii_alphanumeric() || unescaped.contains(&byte);
            all.push(escaped(secret, |byte| (!kept(byte)).then(|| format!("%{}", hex(byte)))));
        }
        for escapes in UNICODE_ESCAPED {
            all.push(escaped(secret, |byte| match byte {
                _ if escapes.contains(&byte) => Some(format!("\\u00{}", hex(byte))),
                _ => json_escape(byte),
            }));
        }
    }
    all.push(escaped(secret, json_escape));
    all.push(escaped(secret, |byte| if byte == b'/' { Some("\\/".to_owned()) } else { json_escape(byte) })); // PHP
    for dialect in HTML_DIALECTS {
        let reference = |byte| HTML_ESCAPED.iter().chain(dialect).find(|(other, _)| *other == byte);
        all.push(escaped(secret, |byte| reference(byte).map(|(_, reference)| (*reference).to_owned())));
    }
    all
}

/// The part of a base64 text (RFC 4648 §4, §5) that depends on the secret alone, when `ahead` bytes, modulo three, precede it:
/// a character that shares its six bits with another byte is left out, and redacted where a match is found.
fn inside_base64(engine: &impl base64::Engine, secret: &[u8], ahead: usize) -> Encoded {
    let text = Zeroizing::new([&vec![0; ahead], secret].concat());
    let encoded = Zeroizing::new(engine.encode(&text));
    let (from, to) = ((8 * ahead).div_ceil(6), 8 * text.len() / 6);
    let (shares_first, shares_last) = (!(8 * ahead).is_multiple_of(6), !(8 * text.len()).is_multiple_of(6));
    Encoded { text: Zeroizing::new(encoded.as_bytes()[from..to].to_vec()), shares_first, shares_last }
}

fn escaped(secret: &[u8], escape: impl Fn(u8) -> Option<String>) -> Encoded {
    // Capacity for the longest escape: a reallocation would leave a copy that is not zeroed.
    let mut text = Zeroizing::new(Vec::with_capacity(6 * secret.len()));
    for byte in secret {
        match escape(*byte).map(Zeroizing::new) {
            Some(escape) => text.extend_from_slice(escape.as_bytes()),
            None => text.push(*byte),
        }
    }
    Encoded::whole(text)
}

fn json_escape(byte: u8) -> Option<String> {
    matches!(byte, b'"' | b'\\').then(|| format!("\\{}", char::from(byte)))
}
