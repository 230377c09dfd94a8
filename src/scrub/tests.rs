use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use proptest::prelude::*;

use super::*;

/// Contains every character that some encoding changes.
const TOKEN: &str = "sk-ant/oat01+QmFy~c3Vt.Zm9vYmFyYmF6_cXV4+Lw==";

fn patterns(secrets: &[&str]) -> Arc<SecretPatterns> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new((*secret).to_owned())).collect();
    Arc::new(SecretPatterns::new(&secrets))
}

/// The output for text that arrives in these pieces.
fn scrubbed<'a>(patterns: &Arc<SecretPatterns>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut scrubber = Scrubber::new(Arc::clone(patterns));
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&scrubber.feed(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&scrubber.finish());
    assert_eq!(scrubber.held(), 0);
    out
}

/// How upstreams write a token into a text, independent of `encodings`.
#[allow(clippy::format_collect, reason = "easier to read")]
fn encoded_forms(token: &str) -> BTreeMap<String, String> {
    let percent = |kept: &str, upper: bool| -> String {
        let escape = |c: char| match (c.is_ascii_alphanumeric() || kept.contains(c), upper) {
            (true, _) => c.to_string(),
            (false, true) => format!("%{:02X}", c as u8),
            (false, false) => format!("%{:02x}", c as u8),
        };
        token.chars().map(escape).collect()
    };
    let mut all = BTreeMap::new();
    let mut add = |name: &str, text: String| all.insert(name.to_owned(), text);
    add("plain", token.to_owned());
    add("a JSON string", serde_json::to_string(token).unwrap());
    add("JSON by PHP", token.replace('/', "\\/"));
    add("JSON by .NET", token.replace('+', "\\u002B"));
    add("JSON by Gson", token.replace('=', "\\u003d"));
    add("JSON, all escaped", token.replace('/', "\\u002f").replace('+', "\\u002b").replace('=', "\\u003d"));
    add("percent, unreserved", percent("-._~", true));
    add("percent, lower", percent("-._~", false));
    add("encodeURIComponent", percent("-._~!*'()", true));
    add("form", percent("-._*", true));
    add("quote", percent("-._~/", true));
    add("html by Go", token.replace('+', "&#43;"));
    add("html by mustache", token.replace('/', "&#x2F;").replace('=', "&#x3D;"));
    add("hex", token.bytes().map(|byte| format!("{byte:02x}")).collect());
    add("HEX", token.bytes().map(|byte| format!("{byte:02X}")).collect());
    all
}

#[test]
fn attack_45_and_46_every_encoding_is_replaced_however_split() {
    let patterns = patterns(&[TOKEN]);
    for (name, secret) in encoded_forms(TOKEN) {
        let text = format!("data: {{\"auth\":\"Bearer {secret}\"}}\n\n");
        let whole = scrubbed(&patterns, [text.as_bytes()]);
        let shown = String::from_utf8(whole.clone()).unwrap();
        assert!(shown.starts_with("data: {\"auth\":\"Bearer ") && shown.ends_with("\"}\n\n"), "{name}: {shown}");
        let secret = secret.trim_matches('"');
        assert!(!shown.contains(secret), "{name}");
        let replaced = format!("[pixy:redacted]{}", "*".repeat(secret.len() - 15));
        assert_eq!(shown, text.replace(secret, &replaced), "{name}");
        for cut in 0..=text.len() {
            let (one, other) = text.as_bytes().split_at(cut);
            assert_eq!(scrubbed(&patterns, [one, other]), whole, "{name} cut at {cut}");
        }
        for size in 1..40 {
            assert_eq!(scrubbed(&patterns, text.as_bytes().chunks(size)), whole, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn attack_46_base64_is_found_in_any_surrounding_text() {
    let patterns = patterns(&[TOKEN]);
    for (engine, name) in [(&STANDARD, "base64"), (&URL_SAFE, "base64url")] {
        for (before, after) in [
            ("", ""),
            ("Bearer ", ""),
            ("x", "x"),
            ("{\"access_token\":\"", "\",\"x\":1}"),
            ("user:", "\n"),
            ("ab", "a"),
        ] {
            let text = format!("v={}.", engine.encode(format!("{before}{TOKEN}{after}")));
            let whole = scrubbed(&patterns, [text.as_bytes()]);
            assert_eq!(whole.len(), text.len());
            let kept = whole.iter().zip(text.bytes()).filter(|(new, old)| **new == *old).count();
            // The surrounding text, at most two characters of the secret on either side, and chance.
            let most = 4 + (before.len() + after.len()) * 4 / 3 + 4 + 4;
            assert!(kept <= most, "{name} after {before:?}: {}", String::from_utf8_lossy(&whole));
            for cut in 0..=text.len() {
                let (one, other) = text.as_bytes().split_at(cut);
                assert_eq!(scrubbed(&patterns, [one, other]), whole, "{name} after {before:?} cut at {cut}");
            }
        }
    }
}

#[test]
fn attack_45_held_back_bytes_do_not_reveal_the_secret() {
    // The agent lets a model repeat its guess, and learns from the size of chunks what was held back.
    let patterns = patterns(&[TOKEN]);
    for known in 5..TOKEN.len() - 1 {
        let right = &TOKEN[..known];
        let wrong = format!("{}{}", &TOKEN[..known - 1], if right.ends_with('x') { 'y' } else { 'x' });
        let passing = |guess: &str| {
            let mut scrubber = Scrubber::new(Arc::clone(&patterns));
            let mut sizes = vec![scrubber.feed(Bytes::from(format!("it is {guess}"))).len()];
            sizes.push(scrubber.feed(Bytes::from_static(b"\nnext")).len());
            assert_eq!(scrubber.found(), 0, "a part is never replaced");
            sizes
        };
        assert_eq!(passing(right), passing(&wrong), "{known} characters");
    }
}

#[test]
fn only_the_last_word_is_held_back() {
    let patterns = patterns(&[TOKEN]);
    let held = |text: &str| {
        let mut scrubber = Scrubber::new(Arc::clone(&patterns));
        let passed = scrubber.feed(Bytes::from(text.to_owned())).len();
        assert_eq!(passed + scrubber.held(), text.len());
        scrubber.held()
    };
    assert_eq!(held(""), 0);
    assert_eq!(held("data: {\"text\":\"sk-ant\"}\n\n"), 0, "the event ends");
    assert_eq!(held("a word"), 4);
    assert_eq!(held("a word "), 0);
    assert_eq!(held("desk-another"), 12);
    assert_eq!(held("it is \u{e9}t"), 1, "no token has other characters");
    let longest = encodings(TOKEN).iter().map(|pattern| pattern.len()).max().unwrap();
    assert_eq!(held(&"x".repeat(10_000)), longest);
    assert_eq!(held(&format!("{TOKEN}{}", "x".repeat(longest))), longest, "complete, and replaced");
}

#[test]
fn a_piece_without_secrets_is_not_copied() {
    let mut scrubber = Scrubber::new(patterns(&[TOKEN]));
    let piece = Bytes::from("data: nothing\n\n".repeat(100));
    let passing = scrubber.feed(piece.clone());
    assert_eq!((passing.as_ptr(), passing.len()), (piece.as_ptr(), piece.len()));
    let piece = Bytes::from_static(b"and a tail: sk-an");
    let passing = scrubber.feed(piece.clone());
    assert_eq!((passing.as_ptr(), passing.len()), (piece.as_ptr(), piece.len() - 5));
    assert_eq!(scrubber.finish(), "sk-an");
}

#[test]
fn a_prefix_of_a_longer_secret_is_held_back() {
    let (short, long) = ("abcdefghijklmnopqrst", "abcdefghijklmnopqrstuvwxyz");
    let patterns = patterns(&[short, long]);
    let mut scrubber = Scrubber::new(Arc::clone(&patterns));
    assert_eq!(scrubber.feed(Bytes::from(short)), "");
    assert_eq!(scrubber.feed(Bytes::from_static(b"uvwxyz!")), "[pixy:redacted]***********!");
    assert_eq!(scrubber.feed(Bytes::from(short)), "");
    assert_eq!(scrubber.feed(Bytes::from_static(b"uvw!")), "[pixy:redacted]*****uvw!");
    assert_eq!(scrubber.feed(Bytes::from(short)), "");
    assert_eq!(scrubber.finish(), "[pixy:redacted]*****");
    assert_eq!(scrubber.found(), 3);
}

#[test]
fn short_secrets_are_not_searched_for() {
    for secrets in [&[][..], &[""], &["only15characte", "hi"]] {
        let text = b"only15characte hi \"\" ";
        assert_eq!(scrubbed(&patterns(secrets), [&text[..]]), text);
        assert!(patterns(secrets).scrub(text).is_none());
    }
}

#[test]
fn a_header_value_is_scrubbed() {
    let patterns = patterns(&[TOKEN, "sk-other-0123456789abcdef"]);
    assert!(patterns.scrub(b"Bearer sk-ant").is_none());
    let (text, count) = patterns.scrub(format!("{TOKEN},sk-other-0123456789abcdef").as_bytes()).unwrap();
    assert_eq!(count, 2);
    assert_eq!(text, format!("[pixy:redacted]{},[pixy:redacted]**********", "*".repeat(TOKEN.len() - 15)).as_bytes());
}

#[test]
fn a_value_equal_to_the_shortest_secret_is_scrubbed() {
    let secret = "0123456789abcdef";
    assert_eq!(secret.len(), MIN_SECRET);
    let scrubbed = patterns(&[TOKEN, secret]).scrub(secret.as_bytes());
    assert_eq!(scrubbed, Some((b"[pixy:redacted]*".to_vec(), 1)));
}

#[test]
fn attack_97_a_secret_is_found_in_a_field_name() {
    let patterns = patterns(&["Sk-Other_0123456789+ABCDEF"]);
    let count = |name: &[u8]| patterns.count_in_name(&HeaderName::from_bytes(name).unwrap());
    assert_eq!(count(b"X-Sk-Other_0123456789%2BABCDEF-Sk-Other_0123456789%2bABCDEF"), 2);
    assert_eq!(count(STANDARD_NO_PAD.encode("Sk-Other_0123456789+ABCDEF").replace('/', "").as_bytes()), 1);
    assert_eq!(count(b"x-sk-other_0123456789-abcdef"), 0);
    assert_eq!(count(b"x-ratelimit-remaining-requests"), 0);
}

/// Leftmost-longest replacement by comparison at every offset.
fn scrub_slowly(text: &[u8], patterns: &[Encoded]) -> Vec<u8> {
    let mut out = text.to_vec();
    let (mut at, mut last_end) = (0, 0);
    while at < text.len() {
        let here =
            patterns.iter().filter(|pattern| text[at..].starts_with(pattern)).max_by_key(|pattern| pattern.len());
        let Some(pattern) = here else {
            at += 1;
            continue;
        };
        let end = at + pattern.len();
        if pattern.shares_first && at > last_end && is_base64(text[at - 1]) {
            out[at - 1] = b'*';
        }
        if pattern.shares_last && text.get(end).is_some_and(|byte| is_base64(*byte)) {
            out[end] = b'*';
        }
        redact(&mut out[at..end]);
        (at, last_end) = (end, end);
    }
    out
}

/// A random secret, or one of few different characters, so that it overlaps with itself.
fn a_secret() -> impl Strategy<Value = String> {
    let any = prop_oneof!["[A-Za-z0-9._~+/=-]{16,60}", "[ab]{16,30}", "eyJhbGci[A-Za-z0-9_-]{16,90}", "[!-~]{16,24}"];
    any.prop_filter("a part of it beside the marker looks complete", |secret| !overlaps_the_marker(secret.as_bytes()))
}

/// It ends with the start of the marker, or starts with the end of a marker and its stars: a part of it, which passes, may then look
/// complete beside a marker. No token has such characters.
fn overlaps_the_marker(secret: &[u8]) -> bool {
    let ends_so = (1..=MARKER.len()).any(|length| secret.ends_with(&MARKER[..length]));
    let begins_so = (0..=MARKER.len()).any(|from| secret.starts_with(&[&MARKER[from..], b"*"].concat()));
    ends_so || begins_so
}

/// Text of encoded secrets, parts of them and other characters.
fn a_text(secrets: &[String]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let encodings: Vec<Vec<u8>> =
        secrets.iter().flat_map(|secret| encodings(secret)).map(|encoded| encoded.to_vec()).collect();
    let part = (0..encodings.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4).prop_map(
        move |(which, from, to, how)| {
            let encoded = &encodings[which];
            let (from, to) = (from.index(encoded.len()), to.index(encoded.len()));
            match how {
                0 => encoded[..to].to_vec(),
                1 => encoded[from..].to_vec(),
                _ => encoded.clone(),
            }
        },
    );
    let other = prop_oneof!["[ab]{0,20}", "[ -~\n]{0,40}"].prop_map(String::into_bytes);
    prop::collection::vec(prop_oneof![2 => part, 1 => other, 1 => prop::collection::vec(any::<u8>(), 0..9)], 0..12)
        .prop_map(|parts| parts.concat())
}

fn secrets_and_text() -> impl Strategy<Value = (Vec<String>, Vec<u8>, Vec<usize>)> {
    prop::collection::vec(a_secret(), 1..4).prop_flat_map(|secrets| {
        let text = a_text(&secrets);
        (Just(secrets), text, prop::collection::vec(1..70_usize, 1..30))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn attack_45_and_46_no_pattern_passes_in_any_text((secrets, text, sizes) in secrets_and_text()) {
        let all: Vec<_> = secrets.iter().flat_map(|secret| encodings(secret)).collect();
        let patterns = patterns(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let expected = scrub_slowly(&text, &all);
        let mut scrubber = Scrubber::new(Arc::clone(&patterns));
        let (mut left, mut out) = (&text[..], Vec::new());
        for size in sizes.iter().cycle() {
            if left.is_empty() { break }
            let (piece, rest) = left.split_at((*size).min(left.len()));
            out.extend_from_slice(&scrubber.feed(Bytes::copy_from_slice(piece)));
            // Only the last word is held back, as far as the longest pattern reaches.
            let held = &text[out.len()..text.len() - rest.len()];
            prop_assert_eq!(held.len(), scrubber.held());
            prop_assert!(held.len() <= all.iter().map(|pattern| pattern.len()).max().unwrap_or(0));
            let may_be = |byte: u8| byte.is_ascii_alphanumeric() || TOKEN_CHARACTERS.contains(&byte);
            prop_assert!(held.iter().all(|byte| may_be(*byte) || all.iter().any(|pattern| pattern.contains(byte))));
            left = rest;
        }
        out.extend_from_slice(&scrubber.finish());
        prop_assert_eq!(&out, &expected);
        prop_assert!(all.iter().all(|pattern| memchr::memmem::find(&out, pattern).is_none()));
    }
}
