//! The encodings of a secret in JSON, URLs, HTML, base64 and hex.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// An encoded secret.
pub type Encoded = Zeroizing<Vec<u8>>;

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
    let mut all = vec![Zeroizing::new(secret.to_vec())];
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
/// a character that shares its six bits with another byte is left out.
fn inside_base64(engine: &impl base64::Engine, secret: &[u8], ahead: usize) -> Encoded {
    let text = Zeroizing::new([&vec![0; ahead], secret].concat());
    let encoded = Zeroizing::new(engine.encode(&text));
    let (from, to) = ((8 * ahead).div_ceil(6), 8 * text.len() / 6);
    Zeroizing::new(encoded.as_bytes()[from..to].to_vec())
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
    text
}

fn json_escape(byte: u8) -> Option<String> {
    matches!(byte, b'"' | b'\\').then(|| format!("\\{}", char::from(byte)))
}
