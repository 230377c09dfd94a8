//! What a build without the feature `otlp` has in the place of traces.

use std::fmt::Display;
use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};

use super::{Routed, Settings};
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::upstream::Upstream;

/// No traces.
#[derive(Clone)]
pub struct Traces;

/// No span.
pub struct Span;

#[allow(clippy::unused_self, clippy::unused_async, reason = "the same calls as with the feature")]
impl Traces {
    /// Says so to whoever expects some.
    pub fn start(settings: &Settings, _: &Upstream, _: &Arc<Metrics>) -> Self {
        if settings.endpoint.is_some() {
            tracing::info!("no traces are exported: this Pixy is built without the feature `otlp`");
        }
        Self
    }

    /// Nothing begins.
    pub fn begin(&self, _: &Method, _: &HeaderMap) -> Span {
        Span
    }

    /// Nothing is left.
    pub async fn finish(&self) {}
}

#[allow(clippy::unused_self, reason = "the same calls as with the feature")]
impl Span {
    /// Not asked.
    pub fn routed(&mut self, _: impl FnOnce() -> Routed) {}

    /// Not told.
    pub fn answered(&mut self, _: Option<&AccountName>, _: StatusCode, _: &'static str, _: impl Display) {}
}
