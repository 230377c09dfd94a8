//! Tokens that the provider refuses before they expire: the pauses between the refreshes that this causes, and what the person is
//! shown. Pure: reads no clock.
//!
//! A refresh helps if the token was revoked. If a fresh token is refused too, the provider or the request is the cause: further
//! refreshes wait for a growing pause, which ends when a token is accepted, a person wants a refresh, the account is linked again or
//! its profile changes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Tick;

/// Forced refreshes of one account are this far apart.
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// The pause after the first fresh token that was refused; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The most forced refreshes within [`SPAN`] that are not known to have cured a request, also where other requests are accepted in
/// between: an agent can provoke refusals by its requests, and leave before the second answer.
const MOST_UNCURED: usize = 6;

/// See [`MOST_UNCURED`].
const SPAN: Duration = Duration::from_hours(1);

/// How the provider refused a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefusal {
    /// The status of the response.
    pub status: u16,
    /// Its message, without secrets and as it may be shown to a person (`oauth::identity::shown`).
    pub says: Option<String>,
}

/// What happened to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenReport {
    /// A person wants a new one.
    Replace,
    /// The provider refused it.
    Refused(TokenRefusal),
    /// The provider refused it for a request for which it had refused the token before it, too.
    RefusedAgain(TokenRefusal),
    /// The provider accepted it.
    Accepted,
    /// The provider refused it, and accepted its successor for the same request.
    Cured,
}

/// What is known of refused tokens. In memory only.
#[derive(Default)]
pub struct Refusals {
    /// The serial of the token that the last forced refresh replaced, and when.
    forced: Option<(u64, Tick)>,
    /// The serial of the last token that was accepted.
    accepted: Option<u64>,
    /// The serial of the last fresh token that was counted as refused.
    counted: Option<u64>,
    /// Shown to the person while the token with this serial is the current one.
    shown: Option<(u64, TokenRefusal)>,
    /// Fresh tokens that were refused, since one was accepted.
    in_a_row: u32,
    /// The last [`MOST_UNCURED`] forced refreshes that no request was cured by: the serial of the token they replaced, and when.
    uncured: VecDeque<(u64, Tick)>,
}

impl Refusals {
    /// Applies a report about the current token, or that an earlier one was cured; returns whether a new one is wanted. `can_refresh`:
    /// there can be a new one.
    pub fn apply(&mut self, serial: u64, report: &TokenReport, can_refresh: bool) -> bool {
        match report {
            TokenReport::Replace => return true,
            TokenReport::Accepted => {
                (self.accepted, self.in_a_row, self.shown) = (Some(serial), 0, None);
                return false;
            }
            TokenReport::Cured => {
                self.uncured.retain(|(replaced, _)| *replaced != serial);
                return false;
            }
            TokenReport::Refused(refusal) if !can_refresh => self.shown = Some((serial, refusal.clone())),
            TokenReport::Refused(refusal) => {
                if self.accepted != Some(serial) && self.forced.is_some_and(|(replaced, _)| serial > replaced) {
                    self.count(serial, refusal);
                }
            }
            TokenReport::RefusedAgain(refusal) => self.count(serial, refusal),
        }
        true
    }

    /// Counts a fresh token that was refused, once. One that other requests are accepted with is no reason to worry the person.
    fn count(&mut self, serial: u64, refusal: &TokenRefusal) {
        if self.counted == Some(serial) {
            return;
        }
        self.counted = Some(serial);
        if self.accepted != Some(serial) {
            self.in_a_row += 1;
            self.shown = Some((serial, refusal.clone()));
        }
    }

    /// A refresh that replaces the token with this serial begins before it is due. It counts as one that cures nothing until
    /// [`TokenReport::Cured`]; one for a person ends the pauses.
    pub fn forced(&mut self, serial: u64, by_person: bool, now: Tick) {
        self.forced = Some((serial, now));
        if by_person {
            self.in_a_row = 0;
            self.uncured.clear();
            return;
        }
        self.uncured.push_back((serial, now));
        if self.uncured.len() > MOST_UNCURED {
            self.uncured.pop_front();
        }
    }

    /// No refresh is forced before this. A person's wish ends the growing pause, not the interval.
    pub fn not_before(&self, by_person: bool) -> Option<Tick> {
        let (_, at) = self.forced?;
        let pause = match self.in_a_row {
            uncured if uncured > 0 && !by_person => {
                FIRST_PAUSE.saturating_mul(1 << (uncured - 1).min(16)).min(LONGEST_PAUSE)
            }
            _ => FORCED_INTERVAL,
        };
        let oldest = self.uncured.front().filter(|_| !by_person && self.uncured.len() == MOST_UNCURED);
        Some(oldest.map_or(at.after(pause), |(_, oldest)| oldest.after(SPAN).max(at.after(pause))))
    }

    /// The sentence for the person, while the current token, with this serial, is refused although it is fresh.
    pub fn sentence(&self, serial: u64) -> Option<String> {
        let (_, refusal) = self.shown.as_ref().filter(|(shown, _)| *shown == serial)?;
        let said = refusal.says.as_ref().map_or_else(|| "without a message".to_owned(), |says| format!("“{says}”"));
        let fresh = if self.in_a_row > 0 { ", also a fresh one" } else { "" };
        Some(format!("The provider refuses the token of this login{fresh}: {}, {said}.", refusal.status))
    }

    /// Whether it matters that the token with this serial is accepted.
    pub fn awaits_acceptance(&self, serial: u64) -> bool {
        self.shown.is_some() || (self.accepted != Some(serial) && self.forced.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn refusal() -> TokenRefusal {
        TokenRefusal { status: 401, says: Some("Invalid bearer token".to_owned()) }
    }

    /// An account whose requests report what happened to its token, as `proxy` and `lifecycle` do.
    struct Run {
        refusals: Refusals,
        start: Tick,
        serial: u64,
        /// When they happened, in seconds.
        refreshes: Vec<u64>,
    }

    impl Run {
        fn new() -> Self {
            Self { refusals: Refusals::default(), start: Clock::default().tick(), serial: 1, refreshes: Vec::new() }
        }

        fn at(&self, second: u64) -> Tick {
            self.start.after(Duration::from_secs(second))
        }

        /// A refused request causes a refresh where that is allowed, and is sent once more. `accepts` judges a token by its serial.
        fn request(&mut self, second: u64, accepts: impl Fn(u64) -> bool) {
            if accepts(self.serial) {
                if self.refusals.awaits_acceptance(self.serial) {
                    self.refusals.apply(self.serial, &TokenReport::Accepted, true);
                }
                return;
            }
            if !self.refused(second) {
                return;
            }
            if accepts(self.serial) {
                self.refusals.apply(self.serial, &TokenReport::Accepted, true);
                self.refusals.apply(self.serial - 1, &TokenReport::Cured, true);
            } else {
                self.refusals.apply(self.serial, &TokenReport::RefusedAgain(refusal()), true);
            }
        }

        /// A refused request that gets no second answer: it is gone, or its body was not kept. Returns whether it caused a refresh.
        fn refused(&mut self, second: u64) -> bool {
            let now = self.at(second);
            assert!(self.refusals.apply(self.serial, &TokenReport::Refused(refusal()), true));
            let is_allowed = self.refusals.not_before(false).is_none_or(|at| at <= now);
            if is_allowed {
                self.refusals.forced(self.serial, false, now);
                self.serial += 1;
                self.refreshes.push(second);
            }
            is_allowed
        }
    }

    #[test]
    fn attack_96_the_pause_grows_while_fresh_tokens_are_refused() {
        let mut run = Run::new();
        for second in (0..100).step_by(4) {
            run.request(second, |_| false);
        }
        assert_eq!(run.refreshes, [0, 60], "two refreshes in 100 s");
        for second in (100..24 * 3600).step_by(4) {
            run.request(second, |_| false);
        }
        assert_eq!(run.refreshes[..7], [0, 60, 180, 420, 900, 1860, 3780]);
        assert!(run.refreshes.len() <= 7 + 24, "{:?}", run.refreshes);
        let sentence = run.refusals.sentence(run.serial).unwrap();
        assert!(sentence.contains("401") && sentence.contains("“Invalid bearer token”"), "{sentence}");
        // It works again: the pause ends, and a token that is revoked now is replaced at once.
        run.request(90_000, |_| true);
        assert_eq!(run.refusals.sentence(run.serial), None);
        let revoked = run.serial;
        run.request(93_700, |serial| serial > revoked);
        assert_eq!(run.refreshes.last(), Some(&93_700));
        assert_eq!(run.refusals.sentence(run.serial), None);
    }

    #[test]
    fn attack_96_an_agent_that_provokes_refusals_beside_others() {
        let mut run = Run::new();
        for second in 0..3600 {
            run.request(second, |_| second % 4 != 0); // every fourth request is refused, with any token
        }
        assert_eq!(run.refreshes.len(), MOST_UNCURED, "{:?}", run.refreshes);
        for second in 3600..10 * 3600 {
            run.request(second, |_| second % 4 != 0);
        }
        assert!(run.refreshes.len() <= 11 * MOST_UNCURED, "{:?}", run.refreshes);
    }

    #[test]
    fn attack_96_refused_requests_without_a_second_answer() {
        let mut run = Run::new();
        for second in (0..10 * 3600).step_by(31) {
            run.request(second, |_| true);
            run.refused(second + 1);
        }
        let within_hour = run.refreshes.iter().filter(|&&second| second < 3600).count();
        assert_eq!(within_hour, MOST_UNCURED);
        assert!(run.refreshes.windows(MOST_UNCURED + 1).all(|seven| seven[MOST_UNCURED] - seven[0] >= 3600));
    }

    #[test]
    fn attack_96_a_person_ends_the_pause() {
        let mut run = Run::new();
        for second in 0..2000 {
            run.request(second, |_| false);
        }
        assert!(run.refusals.not_before(false).unwrap() >= run.at(3600));
        run.refusals.forced(run.serial, true, run.at(2000));
        assert_eq!(run.refusals.not_before(false), Some(run.at(2030)));
    }

    #[test]
    fn tokens_that_are_revoked_again_and_again_are_replaced() {
        let mut run = Run::new();
        for nth in 0..200 {
            let revoked = run.serial;
            run.request(nth * 31, |serial| serial > revoked);
        }
        assert_eq!(run.refreshes.len(), 200, "a refresh cured each of them");
    }

    #[test]
    fn a_person_waits_for_the_interval_alone() {
        let mut run = Run::new();
        for second in 0..2000 {
            run.request(second, |_| false);
        }
        let last = *run.refreshes.last().unwrap();
        assert_eq!(run.refusals.not_before(true), Some(run.at(last + 30)));
        assert!(run.refusals.not_before(false).unwrap() >= run.at(last + 960));
    }

    #[test]
    fn a_refused_key_is_shown_until_it_is_accepted() {
        let mut refusals = Refusals::default();
        for _ in 0..2 {
            refusals.apply(1, &TokenReport::Refused(TokenRefusal { status: 401, says: None }), false);
            assert!(refusals.sentence(1).unwrap().contains("401, without a message"));
            assert!(refusals.awaits_acceptance(1));
            refusals.apply(1, &TokenReport::Accepted, false);
            assert_eq!(refusals.sentence(1), None);
        }
    }
}
