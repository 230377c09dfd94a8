//! Prometheus metrics for `/metrics`. Names and label values are bounded; no label holds a path, a person or a secret.

use std::sync::LazyLock;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::name::AccountName;

/// All metrics; shared by the components that record them.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refreshes: Family<OutcomeLabels, Counter>,
    repairs: Family<OutcomeLabels, Counter>,
    expiry: Family<AccountLabels, Gauge<i64, AtomicI64>>,
    usable: Family<AccountLabels, Gauge<i64, AtomicI64>>,
    redactions: Family<AccountLabels, Counter>,
    dropped_fields: Family<AccountLabels, Counter>,
    open_streams: Gauge,
    agent_same_uid: Gauge,
    rotation_window: Histogram,
    reloads: Family<ReloadLabels, Counter>,
    reload_successful: Gauge,
    reload_success_time: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    account: String,
    status: u16,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    account: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AccountLabels {
    account: String,
}

/// Histogram buckets of the rotation window: an idle disk takes one or two milliseconds.
const ROTATION_WINDOW_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Outcomes of a refresh.
const REFRESH_OUTCOMES: [&str; 7] =
    ["renewed", "withheld", "terminal", "transient", "unheard", "unknown", "vault_unwritable"];

/// Lines that did not reach the log, of the whole process.
#[derive(Default)]
pub struct LogLines {
    /// Standard error did not accept them.
    pub dropped: Counter,
    /// Too many of one kind.
    pub suppressed: Counter,
}

/// The log is the process's, and begins before there are [`Metrics`].
pub static LOG_LINES: LazyLock<LogLines> = LazyLock::new(LogLines::default);

/// Counts one open stream until it is dropped.
pub struct OpenStream(Gauge);

impl Metrics {
    /// Registers all metrics, with value 0.
    pub fn new() -> Self {
        let mut all = Registry::with_prefix("pixy");
        let registry = &mut all;
        let mut metrics = Self {
            requests: metric(
                registry,
                "requests",
                "Requests of agents; code is Pixy's own error code, empty if the response is the upstream's",
            ),
            refreshes: metric(registry, "refreshes", "Token requests that refresh a login"),
            repairs: metric(
                registry,
                "repairs",
                "Requests whose token the upstream refused before it expired, by the outcome of the retry",
            ),
            expiry: metric_in_seconds(
                registry,
                "access_token_expiry",
                "Time until the current access token expires; absent if it does not expire",
                Family::default(),
            ),
            usable: metric(registry, "account_usable", "1 when a request for the account would be served"),
            redactions: metric(
                registry,
                "redactions",
                "Secrets of the account that an upstream returned and that were replaced in its responses",
            ),
            dropped_fields: metric(
                registry,
                "request_fields_dropped",
                "Header fields and query keys of agents that were not forwarded because no list names them; `pixy explain ACCOUNT --last` shows the last names",
            ),
            open_streams: metric(registry, "open_streams", "Requests and streams under way"),
            agent_same_uid: metric(
                registry,
                "agent_same_uid",
                "1 after a request of an agent that runs as Pixy's user or as root: it can read the vault and its key",
            ),
            rotation_window: metric_in_seconds(
                registry,
                "rotation_window",
                "From the token response until the new tokens are durable: a crash in between may lose a login",
                Histogram::new(ROTATION_WINDOW_SECONDS),
            ),
            reloads: metric(
                registry,
                "config_reloads",
                "Reloads of the configuration: taken_up (applied), bad_file, not_bound (a new listener cannot be bound) or restart (a change needs one)",
            ),
            reload_successful: metric(
                registry,
                "config_last_reload_successful",
                "0 if the last reload failed and the configuration before it stays in force",
            ),
            reload_success_time: metric_in_seconds(
                registry,
                "config_last_reload_success_timestamp",
                "Time of the last successful reload; 0 is never",
                Gauge::default(),
            ),
            registry: all,
        };
        metrics.reload_successful.set(1);
        let LogLines { dropped, suppressed } = &*LOG_LINES;
        register_metric(
            &mut metrics.registry,
            "log_lines_dropped",
            "Log lines that were lost because standard error did not accept them: a full pipe or disk",
            dropped,
        );
        register_metric(
            &mut metrics.registry,
            "log_lines_suppressed",
            "Log lines that were not written because too many of one kind came in a second",
            suppressed,
        );
        let build: Family<BuildLabels, Gauge> =
            metric(&mut metrics.registry, "build_info", "Always 1; the version is a label");
        build.get_or_create(&BuildLabels { version: crate::VERSION }).set(1);
        metrics
    }

    /// Counts an answered request; `account` is `None` if no account was found.
    pub fn record_request(&self, account: Option<&AccountName>, status: u16, code: &'static str) {
        let account = account.map_or_else(String::new, |name| name.as_str().to_owned());
        self.requests.get_or_create(&RequestLabels { account, status, code }).inc();
    }

    /// Counts a token request that refreshes a login.
    pub fn record_refresh(&self, account: &AccountName, outcome: &'static str) {
        debug_assert!(REFRESH_OUTCOMES.contains(&outcome), "{outcome} is not initialised to 0");
        let account = account.as_str().to_owned();
        self.refreshes.get_or_create(&OutcomeLabels { account, outcome }).inc();
    }

    /// Counts a request that the upstream refused although the token had not expired.
    pub fn record_repair(&self, account: &AccountName, outcome: &'static str) {
        let account = account.as_str().to_owned();
        self.repairs.get_or_create(&OutcomeLabels { account, outcome }).inc();
    }

    /// Counts secrets that were replaced in a response.
    pub fn record_redactions(&self, account: &AccountName, count: u64) {
        let account = account.as_str().to_owned();
        self.redactions.get_or_create(&AccountLabels { account }).inc_by(count);
    }

    /// Counts fields and query keys of a request that were not forwarded.
    pub fn record_dropped_fields(&self, account: &AccountName, count: u64) {
        let account = account.as_str().to_owned();
        self.dropped_fields.get_or_create(&AccountLabels { account }).inc_by(count);
    }

    /// Records how long a token response was not yet durable.
    pub fn record_rotation_window(&self, span: std::time::Duration) {
        self.rotation_window.observe(span.as_secs_f64());
    }

    /// Counts a stream until the returned value is dropped.
    pub fn count_open_stream(&self) -> OpenStream {
        self.open_streams.inc();
        OpenStream(self.open_streams.clone())
    }

    /// Records that an agent runs as Pixy's own user, or as root.
    pub fn set_agent_same_uid(&self) {
        self.agent_same_uid.set(1);
    }

    /// Sets the state of one account; called before [`Metrics::encode`]. `expires_in` is in seconds.
    pub fn set_account(&self, name: &AccountName, usable: bool, expires_in: Option<i64>) {
        let labels = AccountLabels { account: name.as_str().to_owned() };
        self.usable.get_or_create(&labels).set(i64::from(usable));
        // Initialised to 0, so that `increase()` sees the first event.
        drop(self.redactions.get_or_create(&labels));
        drop(self.dropped_fields.get_or_create(&labels));
        for outcome in REFRESH_OUTCOMES {
            drop(self.refreshes.get_or_create(&OutcomeLabels { account: labels.account.clone(), outcome }));
        }
        match expires_in {
            Some(seconds) => {
                self.expiry.get_or_create(&labels).set(seconds);
            }
            None => {
                self.expiry.remove(&labels);
            }
        }
    }

    /// Removes the gauges of an account that is no longer configured.
    pub fn remove_account(&self, name: &AccountName) {
        let labels = AccountLabels { account: name.as_str().to_owned() };
        self.usable.remove(&labels);
        self.expiry.remove(&labels);
    }

    /// Counts a reload; `applied_at` is in seconds since 1970, `None` if the reload failed.
    pub fn record_reload(&self, outcome: &'static str, applied_at: Option<i64>) {
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
        self.reload_successful.set(i64::from(applied_at.is_some()));
        if let Some(at) = applied_at {
            self.reload_success_time.set(at);
        }
    }

    /// Encodes all metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Registers a new metric.
fn metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let new = M::default();
    register_metric(registry, name, help, &new);
    new
}

fn register_metric<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

/// Registers a metric in seconds.
fn metric_in_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}
