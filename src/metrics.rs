//! What Pixy counts, for `/metrics`: names and labels are bounded, and no label holds a path, a person or a secret.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::name::AccountName;

/// All counters; shared by everything that counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refreshes: Family<OutcomeLabels, Counter>,
    repairs: Family<OutcomeLabels, Counter>,
    expiry: Family<AccountLabels, Gauge<i64, AtomicI64>>,
    usable: Family<AccountLabels, Gauge<i64, AtomicI64>>,
    redactions: Family<AccountLabels, Counter>,
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

/// Bounds of the rotation window: a disk takes a millisecond or two when it is quiet.
const WINDOW_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// What may come of a call to renew a login.
const REFRESHES: [&str; 6] = ["renewed", "terminal", "transient", "unheard", "unknown", "vault_unwritable"];

/// Counts one open stream for as long as it lives.
pub struct OpenStream(Gauge);

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut all = Registry::with_prefix("pixy");
        let of = &mut all;
        let mut metrics = Self {
            requests: metric(
                of,
                "requests",
                "Requests of agents; code is Pixy's own error code, or empty when the answer is the upstream's",
            ),
            refreshes: metric(of, "refreshes", "Calls to the token endpoint to renew a login"),
            repairs: metric(
                of,
                "repairs",
                "Requests that the upstream refused with 401 before the token's end, by what came of a second try",
            ),
            expiry: in_seconds(
                of,
                "access_token_expiry",
                "Until the current access token ends; absent when it does not",
                Family::default(),
            ),
            usable: metric(of, "account_usable", "1 when a request for the account would be served"),
            redactions: metric(
                of,
                "redactions",
                "Secrets of the account that an upstream sent back and that were replaced in its answers",
            ),
            open_streams: metric(of, "open_streams", "Requests and streams under way"),
            agent_same_uid: metric(
                of,
                "agent_same_uid",
                "1 when an agent was seen that runs as the same user as Pixy, or as root: it can read the vault and its key",
            ),
            rotation_window: in_seconds(
                of,
                "rotation_window",
                "From the token endpoint's answer to the new tokens being durable: a crash in it may lose a login",
                Histogram::new(WINDOW_SECONDS),
            ),
            reloads: metric(
                of,
                "config_reloads",
                "Readings of the configuration while running: taken_up, bad_file, not_bound when a new listener cannot be had, or restart when what is changed needs one",
            ),
            reload_successful: metric(
                of,
                "config_last_reload_successful",
                "0 when the configuration was read last and not taken up: the one before serves",
            ),
            reload_success_time: in_seconds(
                of,
                "config_last_reload_success_timestamp",
                "When the configuration was taken up last while running; 0 is never",
                Gauge::default(),
            ),
            registry: all,
        };
        metrics.reload_successful.set(1);
        let build: Family<BuildLabels, Gauge> =
            metric(&mut metrics.registry, "build_info", "Always 1; which Pixy this is");
        build.get_or_create(&BuildLabels { version: crate::VERSION }).set(1);
        metrics
    }

    /// One answered request; `account` is empty when no account was found.
    pub fn request(&self, account: Option<&AccountName>, status: u16, code: &'static str) {
        let account = account.map_or_else(String::new, |name| name.as_str().to_owned());
        self.requests.get_or_create(&RequestLabels { account, status, code }).inc();
    }

    /// One call to renew a login, and what came of it.
    pub fn refresh(&self, account: &AccountName, outcome: &'static str) {
        debug_assert!(REFRESHES.contains(&outcome), "{outcome} is not told as 0 before the first");
        let account = account.as_str().to_owned();
        self.refreshes.get_or_create(&OutcomeLabels { account, outcome }).inc();
    }

    /// One request that the upstream refused although the token had not ended.
    pub fn repair(&self, account: &AccountName, outcome: &'static str) {
        let account = account.as_str().to_owned();
        self.repairs.get_or_create(&OutcomeLabels { account, outcome }).inc();
    }

    /// Secrets that were replaced in an answer.
    pub fn redactions(&self, account: &AccountName, count: u64) {
        let account = account.as_str().to_owned();
        self.redactions.get_or_create(&AccountLabels { account }).inc_by(count);
    }

    /// How long the answer of a token endpoint was not yet durable.
    pub fn rotation_window(&self, span: std::time::Duration) {
        self.rotation_window.observe(span.as_secs_f64());
    }

    /// A stream begins; it ends when the value is dropped.
    pub fn open_stream(&self) -> OpenStream {
        self.open_streams.inc();
        OpenStream(self.open_streams.clone())
    }

    /// An agent runs as Pixy's own user, or as root.
    pub fn agent_of_the_same_user(&self) {
        self.agent_same_uid.set(1);
    }

    /// The state of one account, set just before [`Metrics::encode`].
    pub fn account(&self, name: &AccountName, usable: bool, expires_in: Option<i64>) {
        let labels = AccountLabels { account: name.as_str().to_owned() };
        self.usable.get_or_create(&labels).set(i64::from(usable));
        // Told as 0 before the first: a counter that begins with 1 has increased for nobody.
        drop(self.redactions.get_or_create(&labels));
        for outcome in REFRESHES {
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

    /// An account is not served any more.
    pub fn remove_account(&self, name: &AccountName) {
        let labels = AccountLabels { account: name.as_str().to_owned() };
        self.usable.remove(&labels);
        self.expiry.remove(&labels);
    }

    /// The configuration was read again; `taken_up_at` in seconds since 1970, if it was taken up.
    pub fn record_reload(&self, outcome: &'static str, taken_up_at: Option<i64>) {
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
        self.reload_successful.set(i64::from(taken_up_at.is_some()));
        if let Some(at) = taken_up_at {
            self.reload_success_time.set(at);
        }
    }

    /// As OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// A metric of this name, which `registry` tells.
fn metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let new = M::default();
    registry.register(name, help, new.clone());
    new
}

/// The same for one that is in seconds.
fn in_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
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
