//! Decides whether a response means that the provider refuses the token, by the profile's `api.token_refused`.
//!
//! Only the beginning of such a response's body is read, within [`LOOK_AHEAD`] and [`LONGEST_LOOK`]; it stays in the body, and is
//! forwarded as every other response.

use std::time::Duration;

use http::Response;
use serde_json::Value;

use super::representation;
use super::response_scrub::ResponseScrub;
use crate::account::TokenRefusal;
use crate::oauth::identity;
use crate::oauth::profile::RefusedAnswer;
use crate::upstream::Incoming;

/// The longest beginning of a body that is read, in bytes.
const LOOK_AHEAD: usize = 16 * 1024;

/// The longest wait for it.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How the provider refused the token; `None` if it did not.
pub async fn refusal(
    rules: &[RefusedAnswer],
    response: &mut Response<Incoming>,
    scrub: &ResponseScrub,
) -> Option<TokenRefusal> {
    let status = response.status().as_u16();
    if !rules.iter().any(|rule| rule.has_status(status)) {
        return None; // nearly every response
    }
    // An encoded body cannot be read; a rule for the status alone applies all the same.
    let body = match representation::check(response.status(), response.headers()) {
        Err(_) => Vec::new(),
        Ok(()) => response.body_mut().look_ahead(LOOK_AHEAD, LONGEST_LOOK).await,
    };
    let document = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let (codes, message) = (codes(&document), message(&document));
    let is_refused = rules.iter().any(|rule| rule.has_status(status) && rule.fits(&codes, message.unwrap_or_default()));
    is_refused.then(|| {
        let says = message.or_else(|| plain_text(&body)).map(|text| identity::shown(scrub.text(text).trim()));
        TokenRefusal { status, says: says.filter(|text| !text.is_empty()) }
    })
}

/// The error's type and codes, in the places of the known APIs.
fn codes(document: &Value) -> Vec<&str> {
    let error = &document["error"];
    let places = [error, &error["type"], &error["code"], &error["status"], &document["code"], &document["type"]];
    places.into_iter().filter_map(Value::as_str).collect()
}

fn message(document: &Value) -> Option<&str> {
    let error = &document["error"];
    let places = [
        &error["message"],
        &document["error_description"],
        &document["message"],
        &document["detail"],
        &document["error_message"],
        error,
    ];
    places.into_iter().find_map(Value::as_str)
}

/// A body that is neither JSON nor markup.
fn plain_text(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok().filter(|text| !text.trim_start().starts_with(['<', '{', '[']))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_of_the_known_apis_are_read() {
        let anthropic = json!({ "type": "error", "error": { "type": "permission_error", "message": "revoked" } });
        assert!(codes(&anthropic).contains(&"permission_error"));
        assert_eq!(message(&anthropic), Some("revoked"));
        let openai =
            json!({ "error": { "message": "bad key", "type": "invalid_request_error", "code": "invalid_api_key" } });
        assert!(codes(&openai).contains(&"invalid_api_key"));
        let google = json!({ "error": { "code": 401, "message": "no", "status": "UNAUTHENTICATED" } });
        assert_eq!((codes(&google), message(&google)), (vec!["UNAUTHENTICATED"], Some("no")));
        let oauth = json!({ "error": "invalid_token", "error_description": "it expired" });
        assert_eq!((codes(&oauth), message(&oauth)), (vec!["invalid_token"], Some("it expired")));
        assert_eq!((codes(&Value::Null), message(&Value::Null)), (vec![], None));
    }

    #[test]
    fn markup_is_no_message() {
        assert_eq!(plain_text(b"invalid token"), Some("invalid token"));
        for body in [&b"<html>"[..], b" <!doctype html>", b"{\"cut", b"\xff"] {
            assert_eq!(plain_text(body), None);
        }
    }
}
