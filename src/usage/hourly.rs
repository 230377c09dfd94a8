//! What one account was used for in the last 24 hours, and its quota as the provider told it last: in memory alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::Tokens;
use super::quota::{self, Quota};
use crate::clock::Timestamp;

/// So many hours are kept.
const HOURS: i64 = 24;

/// A limit that fills again within this is news no longer once it has.
const SHORT: Duration = Duration::from_mins(10);

/// Counts of one account.
#[derive(Debug, Default)]
pub struct HourlyUsage(Mutex<Hours>);

#[derive(Debug, Default)]
struct Hours {
    /// By hours since 1970.
    hours: BTreeMap<i64, Counts>,
    quota: Vec<Quota>,
    told_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    requests: u64,
    tokens: Tokens,
}

/// One hour of the last 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// When it began.
    pub from: Timestamp,
    /// Requests that the provider answered.
    pub requests: u64,
    /// The model's tokens in those answers.
    pub tokens: Tokens,
}

impl HourlyUsage {
    /// The provider has begun to answer a request. An answer without a word about the quota leaves what was told before.
    pub fn answered(&self, quota_headers: &[String], headers: &HeaderMap, now: Timestamp) {
        let told = quota::read(quota_headers, headers, now);
        let mut pages = self.pages();
        pages.hour(now).requests += 1;
        if !told.is_empty() {
            (pages.quota, pages.told_at) = (told, Some(now));
        }
    }

    /// An answer is over.
    pub fn spent(&self, tokens: Tokens, now: Timestamp) {
        if tokens != Tokens::default() {
            let mut pages = self.pages();
            let counted = &mut pages.hour(now).tokens;
            counted.input = counted.input.saturating_add(tokens.input);
            counted.output = counted.output.saturating_add(tokens.output);
        }
    }

    /// Another login is another plan.
    pub fn forget_quota(&self) {
        self.pages().quota.clear();
    }

    /// What the provider told last. Of a limit that has been reset since, nothing is known but that.
    pub fn quota(&self, now: Timestamp) -> Vec<Quota> {
        let pages = self.pages();
        let told_at = pages.told_at.unwrap_or(now);
        let as_of_now = pages.quota.iter().cloned().filter_map(|quota| match quota.resets_at {
            Some(at) if at <= now && at.since(told_at) < SHORT => None,
            Some(at) if at <= now => Some(Quota { used: None, remaining: None, ..quota }),
            _ => Some(quota),
        });
        as_of_now.collect()
    }

    /// The last 24 hours, the oldest first, or nothing when nothing was asked in them.
    pub fn hours(&self, now: Timestamp) -> Option<Vec<Hour>> {
        let pages = self.pages();
        let last = hour_of(now);
        let hours = (last - HOURS + 1)..=last;
        pages.hours.range(hours.clone()).next()?;
        let counts = |hour| pages.hours.get(&hour).copied().unwrap_or_default();
        let whole = hours.map(|hour| {
            let Counts { requests, tokens } = counts(hour);
            Hour { from: Timestamp::from_seconds(hour * 3600), requests, tokens }
        });
        Some(whole.collect())
    }

    /// A panic elsewhere leaves numbers that are still numbers.
    fn pages(&self) -> MutexGuard<'_, Hours> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hours {
    /// Those that are over, and those that a stepped clock has left in the future, go when a new one begins.
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

    fn ask(ledger: &HourlyUsage, now: i64, headers: &[(&'static str, &'static str)]) {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        ledger.answered(&["x-ratelimit-*".to_owned()], &headers, at(now));
    }

    #[test]
    fn a_day_is_counted_by_the_hour_and_no_longer() {
        let ledger = HourlyUsage::default();
        assert_eq!(ledger.hours(at(0)), None);
        ask(&ledger, 3599, &[]);
        ledger.spent(Tokens { input: 5, output: 2 }, at(3599));
        ask(&ledger, 3600, &[]);
        ask(&ledger, 3601, &[]);
        let hours = ledger.hours(at(7199)).unwrap();
        assert_eq!(hours.len(), 24);
        assert_eq!(hours[22], Hour { from: at(0), requests: 1, tokens: Tokens { input: 5, output: 2 } });
        assert_eq!((hours[23].from, hours[23].requests), (at(3600), 2));
        let last_moment = 3600 * 25 - 1;
        assert_eq!(ledger.hours(at(last_moment)).unwrap()[0].requests, 2);
        assert_eq!(ledger.hours(at(last_moment + 1)), None);
        for hour in 0..1000 {
            ask(&ledger, hour * 3600, &[]);
        }
        assert_eq!(ledger.pages().hours.len(), 24);
        ask(&ledger, 0, &[]);
        assert_eq!(ledger.pages().hours.len(), 1, "the clock was set back: what it had counted ahead goes");
    }

    #[test]
    fn a_quota_holds_until_its_reset() {
        let ledger = HourlyUsage::default();
        let plan = [("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "25"), ("x-ratelimit-reset", "3600")];
        ask(&ledger, 1000, &plan);
        ask(&ledger, 1001, &[]);
        let told = Quota {
            name: "requests".into(),
            used: Some(0.75),
            limit: Some(100),
            remaining: Some(25),
            resets_at: Some(at(4600)),
        };
        assert_eq!(ledger.quota(at(4599)), std::slice::from_ref(&told));
        assert_eq!(ledger.quota(at(4600)), [Quota { used: None, remaining: None, ..told }]);
        ask(&ledger, 5000, &[("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-reset-tokens", "6m0s")]);
        assert_eq!(ledger.quota(at(5359)).len(), 1);
        assert_eq!(ledger.quota(at(5360)), [], "a limit that comes back within minutes is no news afterwards");
        ledger.forget_quota();
        assert_eq!(ledger.quota(at(5001)), []);
    }
}
