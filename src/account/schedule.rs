//! When a login is refreshed. Pure: reads no clock and no randomness.

use std::time::Duration;

use super::refresh_timing::Timing;
use super::refusals::{Refusals, TokenReport};
use super::state::Record;
use crate::clock::{Tick, Timestamp};

/// When the next refresh is due, and what delays it. In memory only; what must survive a restart is in the [`Record`].
#[derive(Default)]
pub struct RefreshSchedule {
    /// Of the published token, with its serial. Decided once, so that a step of the wall clock changes nothing.
    timing: Option<(u64, Timing)>,
    /// `None` is never.
    refresh_at: Option<Tick>,
    /// What delays a forced refresh.
    refusals: Refusals,
    /// After a failure no refresh is tried before, not even a forced one.
    blocked_until: Option<Tick>,
    /// Failures in a row, for the backoff.
    failures: u32,
}

impl RefreshSchedule {
    /// Schedules the refresh of a token that is published now, and returns its timing. The same token keeps its timing.
    pub fn publish(
        &mut self,
        record: &Record,
        profile_lead: Duration,
        jitter: f64,
        wall: Timestamp,
        tick: Tick,
    ) -> Timing {
        let serial = record.login.serial;
        let timing = match self.timing {
            Some((known, timing)) if known == serial => timing,
            _ => record.timing(profile_lead, jitter, wall, tick),
        };
        self.timing = Some((serial, timing));
        self.refresh_at = timing.refresh_at.filter(|_| record.is_refreshable());
        timing
    }

    /// No refresh is due until a token is published.
    pub fn stop(&mut self) {
        self.refresh_at = None;
    }

    /// The timing of the published token is decided anew at the next [`RefreshSchedule::publish`].
    pub fn forget_timing(&mut self) {
        self.timing = None;
    }

    /// When the next refresh is due; `None` is never.
    pub fn refresh_at(&self) -> Option<Tick> {
        self.refresh_at
    }

    /// Whether a refresh is due.
    pub fn is_due(&self, now: Tick) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }

    /// Applies reports about tokens, by their serials, and returns whether the current token is refreshed before that is due. A
    /// refresh that is allowed counts as begun.
    pub fn is_forced(&mut self, reports: &[(u64, TokenReport)], record: &Record, now: Tick) -> bool {
        let serial = record.login.serial;
        let (mut is_wanted, mut by_person) = (false, false);
        // What was cured is the token before.
        let concerned = |(of, report): &&(u64, TokenReport)| *of == serial || *report == TokenReport::Cured;
        for (of, report) in reports.iter().filter(concerned) {
            is_wanted |= self.refusals.apply(*of, report, record.is_refreshable());
            by_person |= *report == TokenReport::Replace;
        }
        let not_before = self.timing.and_then(|(_, timing)| timing.not_before);
        let limits = [not_before, self.refusals.not_before(by_person), self.blocked_until];
        if !is_wanted || !record.is_refreshable() || limits.into_iter().flatten().any(|until| now < until) {
            return false;
        }
        self.refusals.forced(serial, by_person, now);
        true
    }

    /// What is known of refused tokens.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The account was linked again, or its profile changed: earlier refusals say nothing any more.
    pub fn forget_refusals(&mut self) {
        self.refusals = Refusals::default();
    }

    /// A new login: ends the backoff and forgets refusals.
    pub fn linked(&mut self) {
        self.succeeded();
        self.forget_refusals();
    }

    /// Counts a failure and returns the pause before the next try.
    pub fn failed(&mut self, retry_after: Option<Duration>, jitter: f64) -> Duration {
        self.failures += 1;
        backoff(self.failures, retry_after, jitter)
    }

    /// No refresh before `at`.
    pub fn postpone(&mut self, at: Tick) {
        (self.refresh_at, self.blocked_until) = (Some(at), Some(at));
    }

    /// Ends the backoff.
    pub fn succeeded(&mut self) {
        (self.failures, self.blocked_until) = (0, None);
    }
}

/// The pause after the `nth` failure in a row (from 1): doubling from one second, at most five minutes, half of it jitter;
/// never less than the server asked for.
pub fn backoff(nth: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    const LONGEST: Duration = Duration::from_mins(5);
    let whole = Duration::from_secs(1 << nth.saturating_sub(1).min(9)).min(LONGEST);
    let pause = whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    // Retry-After gets jitter on top, so that sidecars with the same Retry-After do not return at the same moment.
    retry_after.map_or(pause, |asked| pause.max(asked.min(LONGEST).mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 10.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_five_minutes_and_honours_the_server() {
        assert_eq!(backoff(1, None, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(4, None, 0.0), Duration::from_secs(4));
        assert_eq!(backoff(99, None, 1.0), Duration::from_mins(5));
        assert_eq!(backoff(1, Some(Duration::from_mins(1)), 0.0), Duration::from_mins(1));
        assert!(backoff(1, Some(Duration::from_hours(9)), 1.0) <= Duration::from_secs(330));
    }
}
