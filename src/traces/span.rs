//! One request as a span: begun when it came, over when the last byte of its answer has left or the agent has hung up.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};

use super::Routed;
use super::context::Context;
use super::export::Outbox;
use crate::name::AccountName;

/// A request under way; dropping it ends the span. A WebSocket's is over with its handshake.
pub struct Span(Option<Box<Open>>);

struct Open {
    record: Record,
    began: Instant,
    outbox: Arc<Outbox>,
}

/// What is told of a request.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub trace: u128,
    pub id: u64,
    /// The agent's span.
    pub parent: Option<u64>,
    /// Nanoseconds since 1970.
    pub start: u128,
    pub end: u128,
    /// One of the known methods, or `_OTHER`.
    pub method: &'static str,
    pub routed: Option<Routed>,
    pub account: Option<String>,
    pub status: u16,
    /// Pixy's own code, or empty.
    pub code: &'static str,
    pub request_id: String,
}

impl Span {
    /// None for an agent that does not record its part.
    pub(super) fn begin(outbox: &Arc<Outbox>, method: &Method, headers: &HeaderMap) -> Self {
        let context = Context::read(headers);
        if context.is_some_and(|context| !context.sampled) {
            return Self::none();
        }
        let record = Record {
            trace: context.map_or_else(|| rand::random::<u128>().max(1), |context| context.trace),
            id: rand::random::<u64>().max(1),
            parent: context.map(|context| context.parent),
            start: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos(),
            end: 0,
            method: known(method),
            routed: None,
            account: None,
            status: 0,
            code: "",
            request_id: String::new(),
        };
        Self(Some(Box::new(Open { record, began: Instant::now(), outbox: Arc::clone(outbox) })))
    }

    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The request has a route.
    pub fn routed(&mut self, routed: impl FnOnce() -> Routed) {
        if let Some(open) = &mut self.0 {
            open.record.routed = Some(routed());
        }
    }

    /// The answer's head is known: `code` is Pixy's own error code, or empty.
    pub fn answered(
        &mut self,
        account: Option<&AccountName>,
        status: StatusCode,
        code: &'static str,
        request_id: impl Display,
    ) {
        if let Some(open) = &mut self.0 {
            open.record.account = account.map(AccountName::to_string);
            (open.record.status, open.record.code) = (status.as_u16(), code);
            open.record.request_id = request_id.to_string();
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open { mut record, began, outbox } = *open;
            // The wall clock may step while the request is under way.
            record.end = record.start + began.elapsed().as_nanos();
            outbox.put(record);
        }
    }
}

/// An agent's own word is no attribute (semantic conventions, `http.request.method`).
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}
