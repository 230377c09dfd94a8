//! When an access token is refreshed ahead of its end. Pure: reads no clock and no randomness.

use std::time::Duration;

use super::login::{CLOCK_TOLERANCE, Login, RefreshCredential};
use crate::clock::{Tick, Timestamp};

/// When the current access token is valid and when it should be refreshed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The token is not sent from here on; `None` is never.
    pub usable_until: Option<Tick>,
    /// When to refresh; `None` is never.
    pub refresh_at: Option<Tick>,
    /// No refresh before this, not even a forced one.
    pub not_before: Option<Tick>,
}

impl Timing {
    /// Decides once, when a token is published, until when it is usable and when to refresh it. `jitter` is within 0..1.
    pub fn of(login: &Login, profile_lead: Duration, jitter: f64, wall: Timestamp, tick: Tick) -> Self {
        let not_before = login.not_before.map(|at| {
            // The longer of the server's moment and our own calculation, because our clock may have been wrong then or may be
            // wrong now. A clock that was set back extends no wait beyond its original length.
            let calculated = at.wait.saturating_sub(wall.since(login.obtained_at));
            tick.after(at.moment.since(wall).max(calculated).min(at.wait))
        });
        let Some(lifetime) = login.lifetime else { return Self { usable_until: None, refresh_at: None, not_before } };
        // A token from the future was stored under another clock: its remaining lifetime is unknown.
        let from_future = login.obtained_at > wall.after(CLOCK_TOLERANCE);
        let remaining =
            if from_future { Duration::ZERO } else { lifetime.saturating_sub(wall.since(login.obtained_at)) };
        // Time for a request to arrive before the token ends. Servers count in whole seconds, so a token may end up to one
        // second before its lifetime is over.
        let margin = (lifetime / 20).clamp(Duration::from_millis(1_100), Duration::from_secs(10)).min(lifetime / 2);
        let lead = profile_lead
            .min(lifetime / 10)
            .mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
            .max(margin + (lifetime / 10).min(Duration::from_secs(1)));
        let due = tick.after(remaining.saturating_sub(lead));
        let refresh_at = match login.refresh_credential {
            RefreshCredential::None => None,
            _ => Some(not_before.map_or(due, |at| due.max(at))),
        };
        Self { usable_until: Some(tick.after(remaining.saturating_sub(margin))), refresh_at, not_before }
    }
}
