//! The steps of a request's way, for `crate::benching`: as Claude Code asks.

use std::hint::black_box;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::{BodyExt as _, Empty};

use super::agent::Agents;
use super::{attach, route, strip};
use crate::account::{Account, Bearer};
use crate::clock::Clock;
use crate::upstream::Body;

type Step = Box<dyn FnMut()>;

/// `route`, `strip` (with a copy of the headers, which it consumes) and `attach`.
pub(crate) fn steps(account: &'static Arc<Account>, bearer: &'static Arc<Bearer>) -> Vec<(&'static str, Step)> {
    let uri = Uri::from_static("/a/v1/messages?beta=true");
    let find =
        move || route::find(account, false, &Method::POST, &uri).unwrap_or_else(|_| panic!("the list allows it"));
    let (routed, other) = (find(), find.clone());
    let given = given();
    let strip = move || {
        black_box(strip::strip(given.clone(), &routed));
    };
    let routed = other();
    let stripped = strip::strip(self::given(), &routed);
    let grant = Agents::new(Vec::new(), Clock::default())
        .authorize(&stripped, account.name())
        .unwrap_or_else(|_| panic!("no keys, no questions"));
    let attach = move || {
        let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        black_box(attach::attach(&grant, &routed, &stripped, bearer, Method::POST, body, None).is_ok());
    };
    let route = move || {
        black_box(find());
    };
    vec![("route", Box::new(route)), ("strip", Box::new(strip)), ("attach", Box::new(attach))]
}

fn given() -> HeaderMap {
    let fields = FIELDS.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    fields.collect()
}

const FIELDS: &[(&str, &str)] = &[
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("anthropic-version", "2023-06-01"),
    ("authorization", "Bearer agent-key-0123456789abcdef"),
    ("connection", "keep-alive"),
    ("content-length", "54321"),
    ("content-type", "application/json"),
    ("host", "127.0.0.1:8700"),
    ("user-agent", "claude-cli/2.1.0 (external, cli)"),
    ("x-app", "cli"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-lang", "js"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-package-version", "0.70.0"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-runtime", "node"),
    ("x-stainless-runtime-version", "v24.3.0"),
    ("x-stainless-timeout", "600"),
];
