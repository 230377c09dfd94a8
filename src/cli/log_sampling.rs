//! Limits how often lines of one kind are logged: a client that is refused again and again must not fill the disk.
//!
//! A kind is a place in the code, and the code of the refusal where the line has one. Of each kind [`LINES_PER_SECOND`] lines a
//! second are logged. The others are counted (`pixy_log_lines_suppressed_total`) and reported in one line a second. Lines about
//! requests that a provider answered are never suppressed.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::log_writer;
use crate::lock::lock;
use crate::metrics::LOG_LINES;

/// Suppresses lines of a kind that has been logged too often.
pub(super) struct Sampling;

/// Lines of one kind in a second.
const LINES_PER_SECOND: u32 = 20;

/// Most kinds; codes are words of Pixy's own, so that fewer exist.
const MOST_KINDS: usize = 512;

static KINDS: LazyLock<Mutex<HashMap<(Identifier, String), Kind>>> = LazyLock::new(Mutex::default);

/// A line was suppressed since the last report.
static HAS_SUPPRESSED: AtomicBool = AtomicBool::new(false);

struct Kind {
    name: String,
    /// Since when `logged` counts.
    since: Instant,
    logged: u32,
    /// Since the last report.
    suppressed: u64,
}

/// Finds the field `code`.
#[derive(Default)]
struct Code {
    found: Option<String>,
}

impl<S: Subscriber> Layer<S> for Sampling {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true; // asked for by `--log debug`
        }
        let mut code = Code::default();
        event.record(&mut code);
        match code.found {
            Some(code) if code.is_empty() => true, // answered by a provider
            code => {
                let name = code.as_deref().unwrap_or(metadata.target()).to_owned();
                let admitted = admits((metadata.callsite(), code.unwrap_or_default()), name, Instant::now());
                if !admitted {
                    LOG_LINES.suppressed.inc();
                    if !HAS_SUPPRESSED.swap(true, Ordering::Relaxed) {
                        log_writer::request_report();
                    }
                }
                admitted
            }
        }
    }
}

fn admits(key: (Identifier, String), name: String, now: Instant) -> bool {
    let mut kinds = lock(&KINDS);
    if kinds.len() >= MOST_KINDS && !kinds.contains_key(&key) {
        return false;
    }
    let kind = kinds.entry(key).or_insert(Kind { name, since: now, logged: 0, suppressed: 0 });
    kind.admits(now)
}

impl Kind {
    fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.logged) = (now, 0);
        }
        let admitted = self.logged < LINES_PER_SECOND;
        if admitted {
            self.logged += 1;
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
        }
        admitted
    }
}

/// Logs how many lines were suppressed since the last report, by kind.
pub(super) fn report() {
    if !HAS_SUPPRESSED.swap(false, Ordering::Relaxed) {
        return;
    }
    let (mut lines, mut kinds) = (0_u64, String::new());
    for kind in lock(&KINDS).values_mut().filter(|kind| kind.suppressed > 0) {
        let suppressed = std::mem::take(&mut kind.suppressed);
        lines = lines.saturating_add(suppressed);
        let separator = if kinds.is_empty() { "" } else { ", " };
        let _ = write!(kinds, "{separator}{} {suppressed}", kind.name); // writing to a String cannot fail
    }
    tracing::warn!(lines, kinds, "log lines were suppressed: too many of one kind in a second");
}

impl Visit for Code {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "code" {
            self.found = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_logged_at_a_fixed_rate() {
        let mut kind = Kind { name: String::new(), since: Instant::now(), logged: 0, suppressed: 0 };
        let mut logged = |count: u32| (0..count).filter(|_| kind.admits(Instant::now())).count();
        assert_eq!(logged(100), 20);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(logged(1), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(logged(100), 20);
        assert_eq!(kind.suppressed, 161);
    }
}
