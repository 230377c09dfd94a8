//! What every account uses.

use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::upstream::Upstream;
use crate::vault::Vault;

/// What every account uses; clones share it.
#[derive(Clone)]
pub struct AccountServices {
    /// Where logins are stored.
    pub vault: Vault,
    /// Connections to token and revocation endpoints.
    pub upstream: Upstream,
    /// Wall and boot clock.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// A counter, incremented with every change that a person could see.
    pub changes: watch::Sender<u64>,
}
