//! Renders the results as tables, and whether each goal is met.

mod versions;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::load::{median, quantile};
use crate::peers::Peer;

/// Every figure of every round.
pub struct Report {
    peers: Vec<&'static str>,
    figures: BTreeMap<(&'static str, String), BTreeMap<usize, f64>>,
    sizes: BTreeMap<&'static str, f64>,
    faults: Vec<String>,
}

/// A line of the table.
struct Row {
    id: &'static str,
    title: &'static str,
}

/// A goal of Pixy: a figure, what it is compared with, and its upper bound.
struct Goal {
    title: &'static str,
    id: &'static str,
    baseline: Baseline,
    most: f64,
}

enum Baseline {
    /// The ratio to the peer's figure in the same round.
    Peer(&'static str),
    /// The median of the figure.
    Absolute,
    /// The figure of the worst round.
    Worst,
}

const ROWS: &[Row] = &[
    Row { id: "json.cpu", title: "JSON 1 KiB, 32 connections: CPU µs/request" },
    Row { id: "rate.cpu", title: "200 requests/s: CPU µs/request" },
    Row { id: "rate.added", title: "200 requests/s: added p50, µs" },
    Row { id: "paced.cpu", title: "SSE, 4 streams, an event every 5 ms: CPU µs/event" },
    Row { id: "paced.p50", title: "… delay of an event, p50, µs" },
    Row { id: "burst.cpu", title: "SSE, 2,000 events at once: CPU µs/event" },
    Row { id: "upload.cpu", title: "Upload of 1 MiB: CPU µs" },
    Row { id: "upload.growth", title: "… peak memory above that before, MiB" },
    Row { id: "echo.cpu", title: "WebSocket, echo of 100 bytes: CPU µs" },
    Row { id: "echo.p50", title: "… time, p50, µs" },
    Row { id: "start", title: "Start to first request served, ms" },
    Row { id: "idle", title: "Memory after one request, MiB" },
    Row { id: "stream.1000", title: "Memory of a stream, 1,000 open, KiB" },
    Row { id: "after.1000", title: "… left above idle after at most 10 s, MiB" },
    Row { id: "stream.5000", title: "Memory of a stream, 5,000 open, KiB" },
    Row { id: "after.5000", title: "… left above idle after at most 10 s, MiB" },
    Row { id: "refresh.before", title: "1,000 requests/s, just before a refresh: p99, µs" },
    Row { id: "refresh.during", title: "… during it" },
    Row { id: "refresh.ratio", title: "… ratio of the second to the first" },
    Row { id: "refresh.failed", title: "… requests that failed" },
    Row { id: "refresh.chance", title: "(for information) … ratio of two such spans before a refresh" },
    Row { id: "refresh.longest", title: "(for information) … the longest request during one, µs" },
    Row { id: "json.rate", title: "(for information) JSON, 32 connections: requests/s" },
    Row { id: "rate.p99", title: "(for information) 200 requests/s: p99, µs" },
];

const GOALS: &[Goal] = &[
    Goal { title: "JSON: CPU", id: "json.cpu", baseline: Baseline::Peer("nginx"), most: 1.0 },
    Goal { title: "200 requests/s: CPU", id: "rate.cpu", baseline: Baseline::Peer("nginx"), most: 1.0 },
    Goal { title: "200 requests/s: added p50", id: "rate.added", baseline: Baseline::Peer("haproxy"), most: 1.0 },
    Goal { title: "SSE every 5 ms: CPU", id: "paced.cpu", baseline: Baseline::Peer("nginx"), most: 0.8 },
    Goal { title: "SSE every 5 ms: delay p50", id: "paced.p50", baseline: Baseline::Peer("nginx"), most: 1.0 },
    Goal { title: "SSE burst: CPU", id: "burst.cpu", baseline: Baseline::Peer("nginx"), most: 1.2 },
    Goal { title: "Upload: CPU", id: "upload.cpu", baseline: Baseline::Peer("nginx"), most: 0.6 },
    Goal { title: "Upload: memory stays flat, MiB", id: "upload.growth", baseline: Baseline::Absolute, most: 4.0 },
    Goal { title: "Memory idle, MiB", id: "idle", baseline: Baseline::Absolute, most: 10.0 },
    Goal {
        title: "Memory of a stream, 1,000 open, KiB",
        id: "stream.1000",
        baseline: Baseline::Absolute,
        most: f64::NAN,
    },
    Goal {
        title: "Memory of a stream, 5,000 open, KiB",
        id: "stream.5000",
        baseline: Baseline::Absolute,
        most: f64::NAN,
    },
    Goal { title: "Memory left after 1,000 streams, MiB", id: "after.1000", baseline: Baseline::Absolute, most: 20.0 },
    Goal { title: "Memory left after 5,000 streams, MiB", id: "after.5000", baseline: Baseline::Absolute, most: 20.0 },
    Goal { title: "Start to first request served, ms", id: "start", baseline: Baseline::Absolute, most: 60.0 },
    Goal { title: "Refresh: p99 beside that before", id: "refresh.ratio", baseline: Baseline::Absolute, most: 1.1 },
    Goal { title: "Refresh: requests that failed", id: "refresh.failed", baseline: Baseline::Worst, most: 0.0 },
];

/// Goals for the memory of a stream, by upstream protocol. The size of the program is not measured in rounds.
const STREAM_GOALS: [(&str, f64); 2] = [("pixy", 40.0), ("pixy, h2", 16.0)];
const SIZE_GOAL: f64 = 12.0;

impl Report {
    pub fn new(peers: &[Peer]) -> Self {
        let sizes = peers.iter().filter_map(|peer| Some((peer.name, peer.size()?))).collect();
        Self {
            peers: peers.iter().map(|peer| peer.name).collect(),
            figures: BTreeMap::new(),
            sizes,
            faults: Vec::new(),
        }
    }

    pub fn add(&mut self, peer: &'static str, id: &str, round: usize, value: f64) {
        self.figures.entry((peer, id.to_owned())).or_default().insert(round, value);
    }

    /// Records why something could not be measured.
    pub fn fault(&mut self, peer: &str, id: &str, why: &str) {
        let fault = format!("{peer}, {id}: {why}");
        if !self.faults.contains(&fault) {
            eprintln!("  {fault}");
            self.faults.push(fault);
        }
    }

    /// A figure by round; `rate.added` is relative to the direct connection in the same round.
    fn rounds(&self, peer: &'static str, id: &str) -> BTreeMap<usize, f64> {
        if id == "rate.added" {
            let direct = self.rounds("direct", "rate.p50");
            let own = self.rounds(peer, "rate.p50");
            let added = own.into_iter().filter_map(|(round, value)| Some((round, value - direct.get(&round)?)));
            return if peer == "direct" { BTreeMap::new() } else { added.collect() };
        }
        self.figures.get(&(peer, id.to_owned())).cloned().unwrap_or_default()
    }

    /// The median of [`Self::ratios`].
    fn ratio(&self, peer: &'static str, other: &'static str, id: &str) -> Option<f64> {
        median(self.ratios(peer, other, id))
    }

    /// The ratio of two peers' figures in each round.
    fn ratios(&self, peer: &'static str, other: &'static str, id: &str) -> Vec<f64> {
        let others = self.rounds(other, id);
        let own = self.rounds(peer, id).into_iter();
        own.filter_map(|(round, value)| Some(value / others.get(&round)?)).collect()
    }

    /// The page benches/RESULTS.md.
    pub fn markdown(&self, kind: &str, rounds: usize, notes: &[String]) -> String {
        let mut text = format!("# Pixy beside its peers: a {kind} run of {rounds} rounds\n\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str(METHOD);
        text.push_str(
            "\n## Figures\n\nMedian (least–most); × is the median of the ratios to nginx in the same round.\n\n",
        );
        let _ = writeln!(text, "| | {} |", self.peers.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(self.peers.len()));
        for row in ROWS {
            let cells: Vec<_> = self.peers.iter().map(|peer| self.cell(peer, row.id)).collect();
            if cells.iter().any(|cell| cell != EMPTY) {
                let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
            }
        }
        let sizes = self.peers.iter().map(|peer| self.sizes.get(peer).map_or(EMPTY.to_owned(), |size| shown(*size)));
        let _ = writeln!(
            text,
            "| Program, MiB (libraries that it loads not counted) | {} |",
            sizes.collect::<Vec<_>>().join(" | ")
        );
        self.goals(&mut text);
        self.not_measured(&mut text);
        text
    }

    /// Compares builds of Pixy with the first one.
    pub fn builds(&self, rounds: usize, notes: &[String]) -> String {
        let mut text = format!("# Builds of Pixy beside each other: {rounds} rounds\n\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str(BUILDS_METHOD);
        text.push_str("\n| |");
        let has_figures = |row: &&Row| self.peers.iter().any(|peer| !self.rounds(peer, row.id).is_empty());
        let rows: Vec<_> = ROWS.iter().filter(|row| row.title.contains("CPU µs")).filter(has_figures).collect();
        for row in &rows {
            let _ = write!(text, " {} | × | least × |", row.title);
        }
        let _ = writeln!(text, "\n|---|{}", "---|---|---|".repeat(rows.len()));
        for peer in &self.peers {
            let _ = write!(text, "| {peer} |");
            for row in &rows {
                let (own, first) = (self.sorted(peer, row.id), self.sorted(self.peers[0], row.id));
                let mut ratios = self.ratios(peer, self.peers[0], row.id);
                ratios.sort_unstable_by(f64::total_cmp);
                let _ = match (own.first(), first.first()) {
                    (Some(least), Some(of_first)) => write!(
                        text,
                        " {} | {:.3} ({:.2}–{:.2}) | {:.3} |",
                        shown(quantile(&own, 0.5)),
                        quantile(&ratios, 0.5),
                        quantile(&ratios, 0.25),
                        quantile(&ratios, 0.75),
                        least / of_first
                    ),
                    _ => write!(text, " {EMPTY} | {EMPTY} | {EMPTY} |"),
                };
            }
            text.push('\n');
        }
        self.not_measured(&mut text);
        text
    }

    /// A figure of all rounds, sorted.
    fn sorted(&self, peer: &'static str, id: &str) -> Vec<f64> {
        let mut values: Vec<f64> = self.rounds(peer, id).into_values().collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    fn not_measured(&self, text: &mut String) {
        if !self.faults.is_empty() {
            text.push_str("\n## Not measured\n\n");
            for fault in &self.faults {
                let _ = writeln!(text, "- {fault}");
            }
        }
    }

    fn cell(&self, peer: &'static str, id: &str) -> String {
        let values: Vec<f64> = self.rounds(peer, id).into_values().collect();
        let (least, most) = spread(&values);
        let Some(middle) = median(values.clone()) else { return EMPTY.to_owned() };
        let spread = if values.len() > 1 { format!(" ({}–{})", shown(least), shown(most)) } else { String::new() };
        let compared = !matches!(peer, "nginx" | "direct") && !id.starts_with("after") && id != "upload.growth";
        let ratio = self
            .ratio(peer, "nginx", id)
            .filter(|_| compared)
            .map_or(String::new(), |ratio| format!(" · {ratio:.2} ×"));
        format!("{}{spread}{ratio}", shown(middle))
    }

    fn goals(&self, text: &mut String) {
        let ours: Vec<_> = STREAM_GOALS.into_iter().filter(|(peer, _)| self.peers.contains(peer)).collect();
        if ours.is_empty() {
            return;
        }
        text.push_str("\n## Goals\n\n| goal | at most |");
        for (peer, _) in &ours {
            let _ = write!(text, " {peer} |");
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(ours.len()));
        for goal in GOALS {
            let verdicts: Vec<_> = ours
                .iter()
                .map(|(peer, stream)| {
                    let most = if goal.most.is_nan() { *stream } else { goal.most };
                    let value = match goal.baseline {
                        Baseline::Peer(other) => self.ratio(peer, other, goal.id),
                        Baseline::Absolute => median(self.rounds(peer, goal.id).into_values().collect()),
                        Baseline::Worst => self.rounds(peer, goal.id).into_values().max_by(f64::total_cmp),
                    };
                    verdict(value, most)
                })
                .collect();
            let most = match goal.baseline {
                Baseline::Peer(other) => format!("{} × {other}", goal.most),
                Baseline::Absolute if goal.most.is_nan() => {
                    ours.iter().map(|(_, most)| most.to_string()).collect::<Vec<_>>().join(", ")
                }
                Baseline::Absolute | Baseline::Worst => goal.most.to_string(),
            };
            let _ = writeln!(text, "| {} | {most} | {} |", goal.title, verdicts.join(" | "));
        }
        let sizes: Vec<_> = ours.iter().map(|(peer, _)| verdict(self.sizes.get(peer).copied(), SIZE_GOAL)).collect();
        let _ = writeln!(text, "| Program, MiB | {SIZE_GOAL} | {} |", sizes.join(" | "));
    }
}

const EMPTY: &str = "–";

const METHOD: &str = "
Every peer has one worker thread, takes plain HTTP on loopback, replaces the agent's key, and speaks TLS 1.3 to the same API
stand-in, whose certificate it verifies. All write a line for every request into a log. Pixy has all its guards on, an agent's key
and a limit of tokens (so that it reads every response for usage) included, and `limits.memory: 2GiB`, for thousands of connections; \"pixy, h2\" is the same over HTTP/2 to the API. Peers take
turns round by round. CPU is the peer's own (`/proc/PID/task/*/schedstat`, all processes), memory is its resident set. Not measured: the
kernel's work for other processes, the CPU of the load generator and the API; a real network; more than one thread.

Refreshes: an access token that lasts 4 s, so that a new one comes every 2.5 s, from a token endpoint that takes 200 ms and a new
connection each time. Measured are the requests in progress between 20 ms before that call and the first request with
the new token, compared with a span of the same length before; each refresh has its own p99, and a round shows the
median of its refreshes. A request that reaches the API with an invalid token counts as failed.
";

const BUILDS_METHOD: &str = "
Median; × is the median of the ratios to the first in the same round (half of them lie between); least × compares the least of all
rounds, because other load on the machine only adds.
";

fn verdict(value: Option<f64>, most: f64) -> String {
    match value {
        None => "not measured".to_owned(),
        Some(value) if value <= most => format!("{} met", shown(value)),
        Some(value) => format!("**{} missed**", shown(value)),
    }
}

/// The minimum and the maximum.
fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)))
}

/// Formats with three significant digits.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
