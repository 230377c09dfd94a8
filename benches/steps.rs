//! Single steps: route, strip, attach, scrub and usage for a request of Claude Code; seal and open for a record of 2 KiB.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::{BodyExt as _, Empty};
use pixy::clock::Clock;
use pixy::internals::{RecordId, RecordKey, StoreId, attach, find_route, open, seal, strip};
use pixy::proxy::agent::Agents;
use pixy::scrub::{Scrubber, SecretPatterns};
use pixy::secret::Secret;
use pixy::server::ConnectionLimit;
use pixy::upstream::Body;
use pixy::usage::TokenCounter;

use crate::Step;
use crate::linked_account::LINKED;

/// `strip` includes a copy of the headers, which it consumes.
pub fn proxy() -> Vec<(&'static str, Step)> {
    let (account, bearer) = (&LINKED.account, &LINKED.bearer);
    let uri = Uri::from_static("/a/v1/messages?beta=true");
    let find = move || find_route(account, false, &Method::POST, &uri).unwrap_or_else(|_| panic!("the list allows it"));
    let (route, find_another) = (find(), find.clone());
    let given = headers();
    let strip_step = move || {
        black_box(strip(given.clone(), &route));
    };
    let route = find_another();
    let stripped = strip(headers(), &route);
    let grant = Agents::new(Vec::new(), Clock::default(), ConnectionLimit::new(1))
        .authorize(&stripped, account.name())
        .unwrap_or_else(|_| panic!("without keys, every agent is authorized"));
    let attach_step = move || {
        let body: Body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        black_box(attach(&grant, &route, &stripped, bearer, Method::POST, body, None).is_ok());
    };
    let route_step = move || {
        black_box(find());
    };
    vec![("route", Box::new(route_step)), ("strip", Box::new(strip_step)), ("attach", Box::new(attach_step))]
}

/// `scrub` and `usage`, of one event.
pub fn stream() -> Vec<(&'static str, Step)> {
    // A fixed secret: the number of partial matches in an event depends on it.
    let secret = Secret::new("sk-ant-oat01-Rm9yIGNvdW50aW5nIG9ubHksIG5vYm9keSdz".to_owned());
    let mut scrubber = Scrubber::new(Arc::new(SecretPatterns::new([&secret])));
    let event = Bytes::from_static(EVENT.as_bytes());
    let scrub = move || {
        black_box(scrubber.feed(event.clone()));
    };
    let mut counter = TokenCounter::default();
    let usage = move || {
        counter.feed(EVENT.as_bytes());
        black_box(counter.tokens());
    };
    vec![("scrub", Box::new(scrub)), ("usage", Box::new(usage))]
}

/// `seal` and `open`.
pub fn vault() -> Vec<(&'static str, Step)> {
    let id = || RecordId { store: StoreId([7; 16]), account: "a", provider: "oauth" };
    let key = || RecordKey::derive(&[1; 32], StoreId([7; 16]));
    let (sealing, opening) = (key(), key());
    let record = seal(&sealing, &id(), 1, &PLAINTEXT);
    let seal = move || {
        black_box(seal(&sealing, &id(), 1, &PLAINTEXT));
    };
    let open = move || {
        black_box(open([&opening], &id(), &record).is_ok());
    };
    vec![("seal", Box::new(seal)), ("open", Box::new(open))]
}

fn headers() -> HeaderMap {
    HEADERS.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

const HEADERS: &[(&str, &str)] = &[
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

/// One event of a typical size.
const EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\"model\":\"m\",\
                     \"choices\":[{\"index\":0,\"delta\":{\"content\":\" and so on\"},\"finish_reason\":null}]}\n\n";

const PLAINTEXT: [u8; 2048] = [b'x'; 2048];
