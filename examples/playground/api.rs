//! The fake LLM API: accepts an access token, returns a fixed sentence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::dialects;
use crate::grants::Grants;
use crate::web::{self, Answer, Reply};

/// The LLM API.
#[derive(Clone)]
pub(crate) struct Server {
    /// The authorization server's grants.
    pub(crate) grants: Arc<Mutex<Grants>>,
}

impl Answer for Server {
    async fn answer(self, request: Request<Incoming>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let anthropic = path.starts_with("/v1/messages") || request.headers().contains_key("anthropic-version");
        let reply = if self.is_authorized(request.headers()) {
            route(&method, &path, request).await.unwrap_or_else(|(status, text)| fault(anthropic, status, text))
        } else {
            fault(anthropic, StatusCode::UNAUTHORIZED, "exactly one valid access token is needed")
        };
        println!("  api: {method} {path} {}", reply.status().as_u16());
        with_quota(reply)
    }
}

impl Server {
    /// Whether the request carries exactly one credential, a valid access token (RFC 6750 §2.1).
    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let mut credentials = headers.get_all(AUTHORIZATION).iter();
        let (Some(only), None) = (credentials.next(), credentials.next()) else { return false };
        let token = only.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        !headers.contains_key("x-api-key") && token.is_some_and(|token| grants.is_valid(token))
    }
}

type Fault = (StatusCode, &'static str);

async fn route(method: &Method, path: &str, request: Request<Incoming>) -> Result<Reply, Fault> {
    let whole = |value: &Value| Ok(web::json(StatusCode::OK, value));
    if let (&Method::GET, Some(rest)) = (method, path.strip_prefix("/v1/models")) {
        return match rest.strip_prefix('/') {
            Some(id) if id == dialects::MODEL => whole(&dialects::model(id)),
            None if rest.is_empty() => whole(&dialects::models()),
            _ => Err((StatusCode::NOT_FOUND, "there is no such model")),
        };
    }
    if method != Method::POST {
        return Err((StatusCode::NOT_FOUND, "there is nothing at this path"));
    }
    let body = web::body(request).await.ok_or((StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read"))?;
    let asked: Value = serde_json::from_slice(&body).map_err(|_| (StatusCode::BAD_REQUEST, "the body is not JSON"))?;
    let model = asked["model"].as_str().unwrap_or(dialects::MODEL);
    let streams = asked["stream"] == json!(true);
    let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match (path, streams) {
        ("/v1/messages", true) => Ok(web::events(dialects::message_events(&id, model))),
        ("/v1/messages", false) => whole(&dialects::message(&id, model)),
        ("/v1/messages/count_tokens", _) => whole(&dialects::count(body.len())),
        ("/v1/chat/completions", true) => {
            let usage = asked["stream_options"]["include_usage"] == json!(true);
            Ok(web::events(dialects::completion_events(&id, model, now, usage)))
        }
        ("/v1/chat/completions", false) => whole(&dialects::completion(&id, model, now)),
        ("/v1/responses", true) => Ok(web::events(dialects::response_events(&id, model, now))),
        ("/v1/responses", false) => whole(&dialects::response(&id, model, now)),
        _ => Err((StatusCode::NOT_FOUND, "there is nothing at this path")),
    }
}

/// An error in the client's dialect.
fn fault(anthropic: bool, status: StatusCode, text: &str) -> Reply {
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::NOT_FOUND => "not_found_error",
        _ => "invalid_request_error",
    };
    let body = if anthropic {
        json!({ "type": "error", "error": { "type": kind, "message": text } })
    } else {
        json!({ "error": { "message": text, "type": kind, "code": null, "param": null } })
    };
    web::json(status, &body)
}

/// Adds headers of a fake quota, for Pixy to show.
fn with_quota(mut reply: Reply) -> Reply {
    for (name, value) in [
        ("anthropic-ratelimit-unified-status", "allowed"),
        ("anthropic-ratelimit-unified-5h-status", "allowed"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.07"),
    ] {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}
