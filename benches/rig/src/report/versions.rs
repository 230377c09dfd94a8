//! Compares the present version of Pixy with an earlier one.

use std::fmt::Write as _;

use super::{EMPTY, ROWS, Report, Row, shown};
use crate::load::{median, quantile};

/// The present version and the earlier one, by upstream protocol.
const PAIRS: [(&str, &str); 2] = [("pixy", "old"), ("pixy, h2", "old, h2")];

/// A figure is worse above this ratio to the earlier one.
const TOLERANCE: f64 = 1.05;

/// Memory figures near zero are compared by their difference, in MiB.
const TOLERANCE_MIB: f64 = 1.0;

impl Report {
    /// The comparison, and how many figures are worse by more than 5 %.
    pub fn versions(&self, rounds: usize, notes: &[String]) -> (String, usize) {
        let mut text = format!("# Pixy beside an earlier version: {rounds} rounds\n\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str(METHOD);
        let _ = writeln!(text, "\n| | old | new | × | least × | | old, h2 | new, h2 | × | least × | |");
        let _ = writeln!(text, "|---|{}", "---|".repeat(10));
        let mut worse = 0;
        for row in ROWS {
            let cells = PAIRS.map(|(new, old)| self.compare(row, new, old, &mut worse));
            if cells.iter().any(Option::is_some) {
                let cells = cells.map(|cell| cell.unwrap_or_else(|| [EMPTY; 5].join(" | ")));
                let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
            }
        }
        let size = |peer| self.sizes.get(peer).map_or(EMPTY.to_owned(), |size| format!("{size:.3}"));
        let _ = writeln!(text, "\nProgram, MiB: {} before, {} now", size("old"), size("pixy"));
        self.not_measured(&mut text);
        (text, worse)
    }

    /// The cells of a row: both medians, the median of the ratios, the ratio of the least, and the verdict.
    fn compare(&self, row: &Row, new: &'static str, old: &'static str, worse: &mut usize) -> Option<String> {
        let (ours, theirs) = (self.sorted(new, row.id), self.sorted(old, row.id));
        let ratio = median(self.ratios(new, old, row.id)).filter(|_| !ours.is_empty() && !theirs.is_empty())?;
        let (now, before) = (quantile(&ours, 0.5), quantile(&theirs, 0.5));
        let least = ours[0] / theirs[0];
        let is_worse = if row.title.starts_with("(for information)") {
            false
        } else if row.id.starts_with("after") || row.id == "upload.growth" || row.id == "refresh.failed" {
            now - before > TOLERANCE_MIB
        } else {
            ratio > TOLERANCE && least > TOLERANCE
        };
        *worse += usize::from(is_worse);
        let verdict = if is_worse { "**worse**" } else { "" };
        Some(format!("{} | {} | {ratio:.3} | {least:.3} | {verdict}", shown(before), shown(now)))
    }
}

const METHOD: &str = "
Both versions are built with the same profile and measured in turns, each with one worker thread, all its guards, an agent's key and a
limit of tokens. old and new are medians; × is the median of the ratios within a round; least × compares the least of all rounds, since
other load on the machine only adds. A figure is worse where both are above 1.05 (memory given back and failed requests: where it is
more than 1 above).
";
