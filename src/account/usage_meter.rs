//! What agents use of an account, for the person to see.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;

use super::Account;
use crate::usage::{Hour, Quota, TokenCounter, Tokens};

/// A burst of requests is told to those who watch once in so long.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// One answer of the upstream's while it passes; its tokens are counted when it is dropped.
pub struct UsageMeter {
    account: Arc<Account>,
    counter: TokenCounter,
}

impl Account {
    /// The upstream has begun to answer: the request counts, and what the head says of the quota is remembered.
    pub fn answered(self: &Arc<Self>, headers: &HeaderMap) -> UsageMeter {
        self.ledger.record_request(&self.profile().api.quota_headers, headers, self.services.clock.wall());
        self.tell_of_usage();
        UsageMeter { account: Arc::clone(self), counter: TokenCounter::default() }
    }

    /// The quota as the provider told it last; nothing without a login.
    pub fn quota(&self) -> Vec<Quota> {
        self.ledger.quota(self.services.clock.wall())
    }

    /// Use by the hour, of the last 24 hours.
    pub fn usage(&self) -> Option<Vec<Hour>> {
        self.ledger.hours(self.services.clock.wall())
    }

    fn tell_of_usage(self: &Arc<Self>) {
        if !self.tells_of_usage.swap(true, Ordering::AcqRel) {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return }; // Pixy is going down
            // Weak: a Pixy that has gone down must not be kept alive, its vault locked.
            let account = Arc::downgrade(self);
            runtime.spawn(async move {
                tokio::time::sleep(TOLD_EVERY).await;
                let Some(account) = account.upgrade() else { return };
                account.tells_of_usage.store(false, Ordering::Release);
                account.services.changes.send_modify(|count| *count += 1);
            });
        }
    }
}

impl UsageMeter {
    /// The next piece of the answer.
    pub fn feed(&mut self, piece: &[u8]) {
        self.counter.feed(piece);
    }

    /// Counts what was fed so far and returns it; more may follow on the same connection.
    pub fn count(&mut self) -> Tokens {
        let tokens = self.counter.take();
        self.account.ledger.record_tokens(tokens, self.account.services.clock.wall());
        tokens
    }
}

impl Drop for UsageMeter {
    /// Also when the agent hung up: what the model has said by then is spent.
    fn drop(&mut self) {
        self.count();
        self.account.tell_of_usage();
    }
}
