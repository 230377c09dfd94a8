//! Probes and metrics for a kubelet and Prometheus. They show no identity, and of a token only the seconds until it expires.

use std::fmt::Write as _;
use std::future::{Future, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::account::{Accounts, State};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::server::{Peer, Rejection, Surface};

/// The ops surface; cheap to clone.
#[derive(Clone)]
pub struct Ops {
    /// The accounts.
    pub accounts: Accounts,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Wall clock, for the time until tokens expire.
    pub clock: Clock,
    /// `true` after the shutdown has begun: not ready.
    pub shutdown: watch::Receiver<bool>,
}

impl Ops {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics\n".to_owned()),
        }
    }

    /// Ready if at least one account is usable, no linked login has ended, and Pixy is not shutting down.
    fn ready(&self) -> Response<Full<Bytes>> {
        let mut lines = String::new();
        let (mut usable, mut dead) = (0, 0);
        for account in self.accounts.iter() {
            let state = account.view().state;
            let serves = account.is_usable();
            usable += usize::from(serves);
            dead += usize::from(state == State::RelinkRequired || (!serves && state == State::Uncertain));
            let word = if serves { "usable" } else { "not usable" };
            let _ = writeln!(lines, "{}: {}, {word}", account.name(), state.as_str()); // writing to a String cannot fail
        }
        let down = *self.shutdown.borrow();
        let ready = usable > 0 && dead == 0 && !down;
        let first = match (ready, down) {
            (true, _) => "ready",
            (false, true) => "shutting down",
            (false, false) => "not ready",
        };
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{first}\n{lines}"))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let now = self.clock.wall();
        for account in self.accounts.iter() {
            let expires_in = account.view().expires_at.map(|at| at.as_seconds() - now.as_seconds());
            self.metrics.set_account(account.name(), account.is_usable(), expires_in);
        }
        let mut response = text(StatusCode::OK, self.metrics.encode());
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

impl Surface for Ops {
    type Body = Full<Bytes>;
    type Connection = ();

    async fn connect(&self, _: Peer) {}

    fn call(&self, (): (), request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>> + Send {
        ready(self.answer(&request))
    }

    fn reject(&self, rejection: Rejection) -> Response<Self::Body> {
        text(rejection.status(), format!("{}\n", rejection.message()))
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    // A cached probe would hide a failure.
    for (name, value) in
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
