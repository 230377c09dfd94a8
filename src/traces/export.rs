//! Spans on their way to the collector: a bounded queue, batches, and nothing that a request waits for.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::span::{Record, Span};
use super::{Settings, json};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

/// So many spans may wait; those after them are dropped. About a megabyte.
const WAITING: usize = 2048;
/// Spans of one batch.
const BATCH: usize = 512;
/// The first span of a batch waits so long for others.
const EVERY: Duration = Duration::from_secs(5);
/// One batch, from connecting to the end of the answer.
const LONGEST: Duration = Duration::from_secs(10);
/// What is left when Pixy goes down may take so long.
const LAST: Duration = Duration::from_secs(2);
/// Of a collector's answer nothing is read but the status.
const ANSWER: usize = 64 * 1024;

/// Begins spans; cheap to clone.
#[derive(Clone)]
pub struct Traces(Option<Arc<Outbox>>);

/// Where spans go when they are over.
pub(super) struct Outbox {
    queue: mpsc::Sender<Record>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    exporter: Mutex<Option<JoinHandle<()>>>,
}

struct Exporter {
    endpoint: Uri,
    service: String,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    /// The last batch was not taken.
    failing: bool,
}

impl Traces {
    /// Exports to the endpoint of `settings`; without one there are no spans. Needs a runtime.
    pub fn start(settings: &Settings, upstream: &Upstream, metrics: &Arc<Metrics>) -> Self {
        let Some(endpoint) = &settings.endpoint else { return Self(None) };
        let endpoint = match endpoint.parse::<Uri>() {
            Ok(uri) if uri.scheme().is_some() && uri.host().is_some() => uri,
            _ => {
                tracing::warn!("no traces are exported: the endpoint for them in the environment is no URL");
                return Self(None);
            }
        };
        let service = settings.service.clone().unwrap_or_else(|| "pixy".to_owned());
        tracing::info!(collector = endpoint.host(), service, "traces are exported");
        let (queue, spans) = mpsc::channel(WAITING);
        let (stop, stopped) = watch::channel(false);
        let (upstream, metrics) = (upstream.clone(), Arc::clone(metrics));
        let exporter = Exporter { endpoint, service, upstream, metrics: Arc::clone(&metrics), failing: false };
        let exporter = Mutex::new(Some(tokio::spawn(exporter.run(spans, stopped))));
        Self(Some(Arc::new(Outbox { queue, metrics, stop, exporter })))
    }

    /// A request has come.
    pub fn begin(&self, method: &Method, headers: &HeaderMap) -> Span {
        self.0.as_ref().map_or_else(Span::none, |outbox| Span::begin(outbox, method, headers))
    }

    /// Sends what is left, and then no more. At most for a moment: nobody's shutdown waits for a collector.
    pub async fn finish(&self) {
        let Some(outbox) = &self.0 else { return };
        outbox.stop.send_replace(true);
        let exporter = outbox.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut exporter) = exporter
            && timeout(LAST, &mut exporter).await.is_err()
        {
            exporter.abort();
        }
    }
}

impl Outbox {
    pub(super) fn put(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.metrics.spans("dropped", 1);
        }
    }
}

impl Exporter {
    async fn run(mut self, mut spans: mpsc::Receiver<Record>, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        loop {
            let first = tokio::select! {
                first = spans.recv() => first,
                () = stopped(&mut stop) => None,
            };
            let Some(first) = first else { break };
            batch.push(first);
            let others = async {
                while batch.len() < BATCH
                    && let Some(span) = spans.recv().await
                {
                    batch.push(span);
                }
            };
            tokio::select! {
                _ = timeout(EVERY, others) => {}
                () = stopped(&mut stop) => {}
            }
            self.send(mem::take(&mut batch)).await;
        }
        while spans.recv_many(&mut batch, BATCH.min(spans.len())).await > 0 {
            self.send(mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<Record>) {
        let body = Full::new(Bytes::from(json::batch(&batch, &self.service)));
        let request = Request::post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .body(body.map_err(|never| match never {}).boxed_unsync());
        let Ok(request) = request else { return }; // its parts are valid
        let problem = match self.upstream.fetch(request, ANSWER, LONGEST).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("it answered with {}", answer.status.as_u16())),
            Err(error) => Some(error.to_string()),
        };
        let outcome = if problem.is_none() { "exported" } else { "dropped" };
        self.metrics.spans(outcome, batch.len() as u64);
        // Told when it changes: a collector that is down for a night is worth one line.
        match (problem, mem::replace(&mut self.failing, outcome == "dropped")) {
            (Some(problem), false) => tracing::warn!(problem, "the collector takes no traces; they are dropped"),
            (None, true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }
}

/// Also when nobody is left who could say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream;

    #[tokio::test]
    async fn spans_that_are_too_many_are_dropped_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let upstream = Upstream::new(&upstream::Settings::default()).unwrap();
        let settings = Settings { endpoint: Some("http://127.0.0.1:1/v1/traces".to_owned()), service: None };
        let traces = Traces::start(&settings, &upstream, &metrics);
        for _ in 0..WAITING + 3 {
            drop(traces.begin(&Method::GET, &HeaderMap::new())); // the exporter has not had its turn yet
        }
        assert!(metrics.encode().contains("pixy_spans_total{outcome=\"dropped\"} 3\n"), "{}", metrics.encode());
        timeout(Duration::from_secs(10), traces.finish()).await.unwrap();
    }
}
