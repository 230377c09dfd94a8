//! What agents use of an account, to show to the person.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::usage::{Hour, HourlyUsage, Quota, TokenCounter, TokenCounts};

/// Watchers are notified of usage at most once in this interval.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// The requests, tokens and quota of one account.
pub(super) struct AccountUsage {
    hourly: HourlyUsage,
    clock: Clock,
    changes: watch::Sender<u64>,
    notification_pending: AtomicBool,
}

/// Meters one response while it passes; its tokens are counted when it is dropped.
pub struct UsageMeter {
    usage: Arc<AccountUsage>,
    counter: TokenCounter,
}

impl AccountUsage {
    pub(super) fn new(clock: Clock, changes: watch::Sender<u64>) -> Self {
        Self { hourly: HourlyUsage::default(), clock, changes, notification_pending: AtomicBool::new(false) }
    }

    /// Counts a request whose response has begun, and stores the quota that its head reports.
    pub(super) fn response_begun(self: &Arc<Self>, quota_headers: &[String], headers: &HeaderMap) -> UsageMeter {
        self.hourly.record_request(quota_headers, headers, self.clock.wall());
        self.notify();
        UsageMeter { usage: Arc::clone(self), counter: TokenCounter::default() }
    }

    pub(super) fn quota(&self) -> Vec<Quota> {
        self.hourly.quota(self.clock.wall())
    }

    pub(super) fn forget_quota(&self) {
        self.hourly.forget_quota();
    }

    pub(super) fn hours(&self) -> Option<Vec<Hour>> {
        self.hourly.hours(self.clock.wall())
    }

    fn notify(self: &Arc<Self>) {
        if self.notification_pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return }; // Pixy is shutting down
        let usage = Arc::clone(self);
        runtime.spawn(async move {
            tokio::time::sleep(NOTIFY_INTERVAL).await;
            usage.notification_pending.store(false, Ordering::Release);
            usage.changes.send_modify(|count| *count += 1);
        });
    }
}

impl UsageMeter {
    /// A meter of its own.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let usage = Arc::new(AccountUsage::new(Clock::default(), watch::Sender::new(0)));
        usage.response_begun(&[], &HeaderMap::new())
    }

    /// Reads the next piece of the response.
    pub fn feed(&mut self, piece: &[u8]) {
        self.counter.feed(piece);
    }

    /// Counts the tokens that were read so far and returns them; more may follow on the same connection.
    pub fn count(&mut self) -> TokenCounts {
        let tokens = self.counter.take();
        self.usage.hourly.record_tokens(tokens, self.usage.clock.wall());
        tokens
    }
}

impl Drop for UsageMeter {
    /// Also when the client disconnected: what the model has produced by then is spent.
    fn drop(&mut self) {
        self.count();
        self.usage.notify();
    }
}
