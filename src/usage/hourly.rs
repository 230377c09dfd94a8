//! Usage of one account in the last 24 hours, and its quota as the provider last reported it; in memory alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use http::HeaderMap;

use super::TokenCounts;
use super::quota::{self, Quota};
use crate::clock::Timestamp;
use crate::lock::lock;

const HOURS: i64 = 24;

/// A quota that resets within this time is not shown after its reset.
const SHORT_WINDOW: Duration = Duration::from_mins(10);

/// Usage of one account.
#[derive(Debug, Default)]
pub struct HourlyUsage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By hours since 1970.
    hours: BTreeMap<i64, Counts>,
    quota: Vec<Quota>,
    /// When `quota` was reported.
    reported_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    tokens: TokenCounts,
}

/// One hour of the last 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// Start of the hour.
    pub from: Timestamp,
    /// Requests that the provider responded to.
    pub requests: u64,
    /// Tokens of the model in those responses.
    pub tokens: TokenCounts,
}

impl HourlyUsage {
    /// Counts a request when the head of its response has arrived. A response without quota fields keeps the last reported quota.
    pub fn record_request(&self, quota_headers: &[String], headers: &HeaderMap, now: Timestamp) {
        let reported = quota::parse(quota_headers, headers, now);
        let mut state = self.state();
        state.hour(now).requests += 1;
        if !reported.is_empty() {
            (state.quota, state.reported_at) = (reported, Some(now));
        }
    }

    /// Counts the tokens of a response.
    pub fn record_tokens(&self, tokens: TokenCounts, now: Timestamp) {
        if tokens != TokenCounts::default() {
            let mut state = self.state();
            let counted = &mut state.hour(now).tokens;
            counted.input = counted.input.saturating_add(tokens.input);
            counted.output = counted.output.saturating_add(tokens.output);
        }
    }

    /// Clears the quota: another login may have another plan.
    pub fn forget_quota(&self) {
        self.state().quota.clear();
    }

    /// The quota as last reported. After the reset of a limit its usage is unknown.
    pub fn quota(&self, now: Timestamp) -> Vec<Quota> {
        let state = self.state();
        let reported_at = state.reported_at.unwrap_or(now);
        let as_of_now = state.quota.iter().cloned().filter_map(|quota| match quota.resets_at {
            Some(at) if at <= now && at.since(reported_at) < SHORT_WINDOW => None,
            Some(at) if at <= now => Some(Quota { used: None, remaining: None, ..quota }),
            _ => Some(quota),
        });
        as_of_now.collect()
    }

    /// The last 24 hours, oldest first; `None` without a request in them.
    pub fn hours(&self, now: Timestamp) -> Option<Vec<Hour>> {
        let state = self.state();
        let last = hour_of(now);
        let hours = (last - HOURS + 1)..=last;
        state.hours.range(hours.clone()).next()?;
        let counts = |hour| state.hours.get(&hour).copied().unwrap_or_default();
        let filled = hours.map(|hour| {
            let Counts { requests, tokens } = counts(hour);
            Hour { from: Timestamp::from_seconds(hour * 3600), requests, tokens }
        });
        Some(filled.collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    /// The counts of the current hour. A new hour removes those that are over, and those in the future after a clock step.
    fn hour(&mut self, now: Timestamp) -> &mut Counts {
        let hour = hour_of(now);
        if !self.hours.contains_key(&hour) {
            self.hours.retain(|&kept, _| kept > hour - HOURS && kept < hour);
        }
        self.hours.entry(hour).or_default()
    }
}

fn hour_of(now: Timestamp) -> i64 {
    now.as_seconds().div_euclid(3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn record(usage: &HourlyUsage, now: i64, headers: &[(&'static str, &'static str)]) {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        usage.record_request(&["x-ratelimit-*".to_owned()], &headers, at(now));
    }

    #[test]
    fn usage_is_kept_by_the_hour_for_a_day() {
        let usage = HourlyUsage::default();
        assert_eq!(usage.hours(at(0)), None);
        record(&usage, 3599, &[]);
        usage.record_tokens(TokenCounts { input: 5, output: 2 }, at(3599));
        record(&usage, 3600, &[]);
        record(&usage, 3601, &[]);
        let hours = usage.hours(at(7199)).unwrap();
        assert_eq!(hours.len(), 24);
        assert_eq!(hours[22], Hour { from: at(0), requests: 1, tokens: TokenCounts { input: 5, output: 2 } });
        assert_eq!((hours[23].from, hours[23].requests), (at(3600), 2));
        let last_moment = 3600 * 25 - 1;
        assert_eq!(usage.hours(at(last_moment)).unwrap()[0].requests, 2);
        assert_eq!(usage.hours(at(last_moment + 1)), None);
        for hour in 0..1000 {
            record(&usage, hour * 3600, &[]);
        }
        assert_eq!(usage.state().hours.len(), 24);
        record(&usage, 0, &[]);
        assert_eq!(usage.state().hours.len(), 1, "the clock was set back: hours in the future are removed");
    }

    #[test]
    fn a_quota_is_valid_until_its_reset() {
        let usage = HourlyUsage::default();
        let plan = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "25"), ("x-ratelimit-reset", "3600")];
        record(&usage, 1000, &plan);
        record(&usage, 1001, &[]);
        let quota = Quota {
            name: "requests".into(),
            used: Some(0.75),
            limit: Some(100),
            remaining: Some(25),
            resets_at: Some(at(4600)),
        };
        assert_eq!(usage.quota(at(4599)), std::slice::from_ref(&quota));
        assert_eq!(usage.quota(at(4600)), [Quota { used: None, remaining: None, ..quota }]);
        record(&usage, 5000, &[("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-reset-tokens", "6m0s")]);
        assert_eq!(usage.quota(at(5359)).len(), 1);
        assert_eq!(usage.quota(at(5360)), [], "a short window is not shown after its reset");
        usage.forget_quota();
        assert_eq!(usage.quota(at(5001)), []);
    }
}
