//! A token response becomes tokens that can be sent, or a failure that keeps nothing of the body but a known code.
#![no_main]

mod linked_account;

use http::header::{CONTENT_ENCODING, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use linked_account::LINKED;
use pixy::clock::Timestamp;
use pixy::oauth::token_response::{self, LONGEST_LIFETIME, LONGEST_RETRY_AFTER, TokenErrorKind};
use pixy::upstream::FetchedResponse;
use zeroize::Zeroizing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token_reply(data));

/// Two bytes choose the status and headers of the response, the rest is its body.
fn token_reply(data: &[u8]) {
    let [status, field, body @ ..] = data else { return };
    let status = [200, 200, 200, 400, 401, 429, 503, 302, 204][usize::from(*status) % 9];
    let mut headers = HeaderMap::new();
    // A header repeats the start of the body: the server controls both.
    let text = HeaderValue::from_bytes(&body[..body.len().min(40)]);
    if let (Ok(text), 1..) = (text, field % 4) {
        headers.insert([RETRY_AFTER, CONTENT_ENCODING, DATE][usize::from(field % 4) - 1].clone(), text.clone());
        if field % 8 > 4 {
            headers.insert(DATE, HeaderValue::from_static("Thu, 26 Nov 2026 05:00:00 GMT"));
            headers.insert(RETRY_AFTER, text);
        }
    }
    let status = StatusCode::from_u16(status).expect("a valid status");
    let fetched = FetchedResponse { status, headers, body: Zeroizing::new(body.to_vec()) };
    let profile = &LINKED.profiles[usize::from(*field) % LINKED.profiles.len()];
    match token_response::classify(profile, &fetched, Timestamp::from_seconds(1_795_000_000)) {
        Ok(tokens) => {
            assert_eq!(status, StatusCode::OK);
            for token in [Some(&tokens.access_token), tokens.refresh_token.as_ref()].into_iter().flatten() {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                assert!(!token.is_empty() && value.is_ok(), "a token can be sent");
            }
            assert!(tokens.lifetime.is_none_or(|lifetime| lifetime <= LONGEST_LIFETIME));
        }
        Err(failure) => {
            assert!(failure.retry_after.is_none_or(|wait| wait <= LONGEST_RETRY_AFTER));
            assert!(!failure.certainly_unspent, "a response never proves that nothing was spent");
            assert!(failure.kind != TokenErrorKind::NoResponse, "a response was received");
            // Nothing of the body is kept but a known code (SECURITY.md, row 55).
            let code = failure.code.unwrap_or_default();
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && code.len() < 32, "{code}");
            assert!(failure.what.is_ascii() && failure.what.len() < 140, "{}", failure.what);
        }
    }
}
