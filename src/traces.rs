//! Traces, with the cargo feature `otlp`: a span for each request, sent to a collector of OpenTelemetry's (OTLP over HTTP, as JSON).
//! Without the feature all of this is empty.
//!
//! `traceparent` and `tracestate` of agents reach the upstream as they came, in every build, since nothing takes them out. A span's
//! parent is that `traceparent` (W3C Trace Context); without a valid one it begins a trace, and one that says that its trace is
//! not recorded is heeded. No span holds a header's value, a query, a path beyond the rule that allowed it, or a token.
//!
//! Own code, because little is needed: the crates of OpenTelemetry bring protobuf, a thread for batches and, unless one implements
//! their client, a second HTTP client, and everything that leaves Pixy leaves through `upstream`. So its rule holds for the
//! collector as well: HTTPS, or plain HTTP to this machine. What a collector does not take is not kept or sent again, only
//! counted (`pixy_spans_total`): a request never waits for it.

#[cfg(feature = "otlp")]
mod context;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod json;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod span;

#[cfg(feature = "otlp")]
pub use export::Traces;
#[cfg(not(feature = "otlp"))]
pub use off::{Span, Traces};
#[cfg(feature = "otlp")]
pub use span::Span;

/// Where spans go, and under which name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The whole URL that batches are sent to; without one there are no spans.
    pub endpoint: Option<String>,
    /// `service.name`; `pixy` if not set.
    pub service: Option<String>,
}

/// What is known of a request once it has a route.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The path as the account's list has it, like `/claude/v1/models/*`.
    pub shape: String,
    /// The host that it goes to.
    pub host: String,
}
