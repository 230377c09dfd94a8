//! What requests, and the person, report of tokens, until the account's task takes it. One entry for each token and kind of report:
//! the task may be busy for long, and an agent can provoke reports meanwhile.

use std::mem::discriminant;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::published_token::Bearer;
use super::refusals::TokenReport;
use crate::lock::lock;

#[derive(Default)]
pub(super) struct Reports(Mutex<Vec<Report>>);

/// A report about a token.
pub(super) struct Report {
    /// The serial of the token.
    pub(super) serial: u64,
    pub(super) what: TokenReport,
    /// Dropped after the pass that handled the report; the waiting requests then look for a newer token.
    handled: watch::Sender<()>,
}

/// The token with which a refused request is sent once more.
pub struct Successor {
    /// The token.
    pub bearer: Arc<Bearer>,
    /// The serial of the token that was refused, if it was refused before it was replaced.
    pub(super) replaces: Option<u64>,
}

impl Reports {
    /// Adds a report, and returns what a request waits with for the pass that handles it: `changed` is `Ok` if the token was
    /// current when that pass began ([`Report::was_current`]).
    pub(super) fn add(&self, serial: u64, what: TokenReport) -> watch::Receiver<()> {
        let mut reports = lock(&self.0);
        let is_same =
            |report: &&mut Report| report.serial == serial && discriminant(&report.what) == discriminant(&what);
        if let Some(report) = reports.iter_mut().find(is_same) {
            report.what = what;
            return report.handled.subscribe();
        }
        let (handled, waiting) = watch::channel(());
        reports.push(Report { serial, what, handled });
        waiting
    }

    /// Takes all reports, in the order in which the first of each kind came.
    pub(super) fn take(&self) -> Vec<Report> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Report {
    /// Tells the waiting requests that the token was current when the pass began: what the pass did came after their refusals.
    pub(super) fn was_current(&self) {
        self.handled.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::refusals::TokenRefusal;

    fn refused(nth: u32) -> TokenReport {
        TokenReport::Refused(TokenRefusal { status: 401, says: Some(format!("the message {nth}")) })
    }

    #[test]
    fn attack_96_reports_to_a_busy_account_are_bounded() {
        let reports = Reports::default();
        for nth in 0..10_000 {
            drop(reports.add(1, refused(nth))); // the request gave up
            drop(reports.add(1, TokenReport::Replace));
        }
        let taken = reports.take();
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].what, refused(9_999), "the last message");
        assert!(reports.take().is_empty());
    }

    #[tokio::test]
    async fn all_that_wait_learn_how_their_report_was_handled() {
        let reports = Reports::default();
        let mut of_current = [reports.add(2, refused(0)), reports.add(2, refused(1))];
        let mut of_older = reports.add(1, refused(2));
        for report in reports.take() {
            if report.serial == 2 {
                report.was_current();
            }
        }
        for waiting in &mut of_current {
            assert!(waiting.changed().await.is_ok());
        }
        assert!(of_older.changed().await.is_err());
    }
}
