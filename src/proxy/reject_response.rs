//! Renders a [`Refusal`] as a response, in the error shape that the provider's SDKs parse.

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::request_id::RequestId;
use super::response_body::ResponseBody;
use crate::name::AccountName;
use crate::oauth::profile::ErrorShape;

/// Heeded by the SDKs of Anthropic and OpenAI: with `false` they do not retry.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The response for a refusal. `account` is the requested account, if it is known.
pub fn reject_response(
    refusal: &Refusal,
    shape: ErrorShape,
    account: Option<&AccountName>,
    id: RequestId,
) -> Response<ResponseBody> {
    let status = refusal.status();
    let message = refusal.message(account);
    let body = match shape {
        ErrorShape::Anthropic | ErrorShape::OpenAi => anthropic_and_openai(status, refusal.code(), &message, id),
        ErrorShape::Google => google(status, &message),
    };
    let mut response = Response::new(ResponseBody::fixed(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-pixy-error", HeaderValue::from_static(refusal.code()));
    match refusal.retry_after() {
        Some(retry_after) => headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1))),
        None => headers.insert(SHOULD_RETRY, HeaderValue::from_static("false")),
    };
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    if let Some(Ok(allow)) = refusal.allow().map(HeaderValue::from_str) {
        headers.insert(ALLOW, allow);
    }
    response
}

/// Marks an upstream's 401 as final: a retry cannot succeed, and some clients would retry for minutes.
pub fn without_retry<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().entry(SHOULD_RETRY).or_insert(HeaderValue::from_static("false"));
    response
}

/// One object that both SDKs parse.
fn anthropic_and_openai(status: StatusCode, code: &str, message: &str, id: RequestId) -> Value {
    // SDKs treat this `code` as final: they show the message instead of retrying.
    let code = if status == StatusCode::UNAUTHORIZED { "invalid_api_key" } else { code };
    json!({
        "type": "error",
        "error": { "type": error_type(status), "message": message, "code": code, "param": null },
        "request_id": id.to_string(), // agents show it
    })
}

/// The error type of Anthropic's API (<https://docs.anthropic.com/en/api/errors>), which OpenAI's SDK shows as it is.
fn error_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The JSON form of `google.rpc.Status` (<https://google.aip.dev/193>). The request id is in the header only.
fn google(status: StatusCode, message: &str) -> Value {
    json!({ "error": { "code": status.as_u16(), "message": message, "status": google_code(status) } })
}

/// The name in `google.rpc.Code` for an HTTP status
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).
fn google_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 => "UNIMPLEMENTED",
        426 => "FAILED_PRECONDITION",
        429 => "RESOURCE_EXHAUSTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::account::Unusable;

    async fn rendered(refusal: Refusal, shape: ErrorShape) -> Value {
        let account = AccountName::parse("gem").unwrap();
        let response = reject_response(&refusal, shape, Some(&account), RequestId::next());
        assert_eq!(response.status(), refusal.status());
        let body = response.into_body().collect().await.map_err(|_| ()).unwrap();
        serde_json::from_slice(&body.to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn googles_shape_has_code_message_and_status_alone() {
        let unavailable = Refusal::Token(Unusable::Unavailable { retry_after: Duration::ZERO });
        let refusals = [
            (Refusal::Token(Unusable::NotLinked), 401, "UNAUTHENTICATED"),
            (Refusal::PathNotAllowed, 403, "PERMISSION_DENIED"),
            (Refusal::BadRequest("x"), 400, "INVALID_ARGUMENT"),
            (Refusal::RequestTooLarge { limit: 1 }, 413, "INVALID_ARGUMENT"),
            (Refusal::LimitReached { what: "x", retry_after: Duration::ZERO }, 429, "RESOURCE_EXHAUSTED"),
            (unavailable, 503, "UNAVAILABLE"),
            (Refusal::UpstreamTimeout, 504, "DEADLINE_EXCEEDED"),
        ];
        for (refusal, code, status) in refusals {
            let message = refusal.message(Some(&AccountName::parse("gem").unwrap()));
            let expected = json!({ "error": { "code": code, "message": message, "status": status } });
            assert_eq!(rendered(refusal, ErrorShape::Google).await, expected);
        }
    }

    #[tokio::test]
    async fn the_shared_shape_names_the_errors_type() {
        for shape in [ErrorShape::Anthropic, ErrorShape::OpenAi] {
            for (refusal, kind, code) in [
                (Refusal::Token(Unusable::NotLinked), "authentication_error", "invalid_api_key"),
                (Refusal::NoWebSocket, "invalid_request_error", "no_websocket"),
                (Refusal::RequestTooLarge { limit: 1 }, "request_too_large", "request_too_large"),
                (Refusal::UpstreamRedirected, "api_error", "upstream_redirected"),
            ] {
                let body = rendered(refusal, shape).await;
                assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
                assert_eq!((&body["error"]["code"], &body["error"]["param"]), (&json!(code), &Value::Null));
            }
        }
    }
}
