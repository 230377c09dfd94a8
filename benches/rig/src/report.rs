//! The results as a table, and whether each goal is met.

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

/// A goal of Pixy: the protocol of the upstream, the peer, and the bound.
struct Gate {
    title: &'static str,
    id: &'static str,
    than: Than,
    most: f64,
}

enum Than {
    /// Times the peer's figure, in the same round.
    Peer(&'static str),
    /// The figure itself.
    Nobody,
    /// The figure itself, in the worst round.
    Ever,
}

const ROWS: &[Row] = &[
    Row { id: "json.cpu", title: "JSON 1 KiB, 32 connections: CPU µs/request" },
    Row { id: "rate.cpu", title: "200 requests/s: CPU µs/request" },
    Row { id: "rate.added", title: "200 requests/s: added p50, µs" },
    Row { id: "paced.cpu", title: "SSE, 4 streams, an event every 5 ms: CPU µs/event" },
    Row { id: "paced.p50", title: "… delay of an event, p50, µs" },
    Row { id: "burst.cpu", title: "SSE, 2,000 events at once: CPU µs/event" },
    Row { id: "upload.cpu", title: "Upload of 1 MiB: CPU µs" },
    Row { id: "upload.growth", title: "… most memory above that before, MiB" },
    Row { id: "echo.cpu", title: "WebSocket, 100 bytes there and back: CPU µs" },
    Row { id: "echo.p50", title: "… time, p50, µs" },
    Row { id: "start", title: "Start to first request served, ms" },
    Row { id: "idle", title: "Memory after one request, MiB" },
    Row { id: "stream.1000", title: "Memory of a stream, 1,000 open, KiB" },
    Row { id: "after.1000", title: "… left above idle after at most 10 s, MiB" },
    Row { id: "stream.5000", title: "Memory of a stream, 5,000 open, KiB" },
    Row { id: "after.5000", title: "… left above idle after at most 10 s, MiB" },
    Row { id: "refresh.before", title: "1,000 requests/s, just before a refresh: p99, µs" },
    Row { id: "refresh.during", title: "… while it goes on" },
    Row { id: "refresh.ratio", title: "… the second beside the first" },
    Row { id: "refresh.failed", title: "… requests that failed" },
    Row { id: "refresh.chance", title: "(for information) … two such spans before a refresh, beside each other" },
    Row { id: "refresh.longest", title: "(for information) … the longest request while one goes on, µs" },
    Row { id: "json.rate", title: "(for information) JSON, 32 connections: requests/s" },
    Row { id: "rate.p99", title: "(for information) 200 requests/s: p99, µs" },
];

const GATES: &[Gate] = &[
    Gate { title: "JSON: CPU", id: "json.cpu", than: Than::Peer("nginx"), most: 1.0 },
    Gate { title: "200 requests/s: CPU", id: "rate.cpu", than: Than::Peer("nginx"), most: 1.0 },
    Gate { title: "200 requests/s: added p50", id: "rate.added", than: Than::Peer("haproxy"), most: 1.0 },
    Gate { title: "SSE every 5 ms: CPU", id: "paced.cpu", than: Than::Peer("nginx"), most: 0.8 },
    Gate { title: "SSE every 5 ms: delay p50", id: "paced.p50", than: Than::Peer("nginx"), most: 1.0 },
    Gate { title: "SSE burst: CPU", id: "burst.cpu", than: Than::Peer("nginx"), most: 1.2 },
    Gate { title: "Upload: CPU", id: "upload.cpu", than: Than::Peer("nginx"), most: 0.6 },
    Gate { title: "Upload: memory stays flat, MiB", id: "upload.growth", than: Than::Nobody, most: 4.0 },
    Gate { title: "Memory idle, MiB", id: "idle", than: Than::Nobody, most: 10.0 },
    Gate { title: "Memory of a stream, 1,000 open, KiB", id: "stream.1000", than: Than::Nobody, most: f64::NAN },
    Gate { title: "Memory of a stream, 5,000 open, KiB", id: "stream.5000", than: Than::Nobody, most: f64::NAN },
    Gate { title: "Memory left after 1,000 streams, MiB", id: "after.1000", than: Than::Nobody, most: 20.0 },
    Gate { title: "Memory left after 5,000 streams, MiB", id: "after.5000", than: Than::Nobody, most: 20.0 },
    Gate { title: "Start to first request served, ms", id: "start", than: Than::Nobody, most: 60.0 },
    Gate { title: "Refresh: p99 beside that before", id: "refresh.ratio", than: Than::Nobody, most: 1.1 },
    Gate { title: "Refresh: requests that failed", id: "refresh.failed", than: Than::Ever, most: 0.0 },
];

/// The memory of a stream has a goal for each protocol; so has the size of the program, which is not measured in rounds.
const STREAM_GATES: [(&str, f64); 2] = [("pixy", 40.0), ("pixy, h2", 16.0)];
const SIZE_GATE: f64 = 12.0;

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

    /// Something could not be measured.
    pub fn fault(&mut self, peer: &str, id: &str, why: &str) {
        let fault = format!("{peer}, {id}: {why}");
        if !self.faults.contains(&fault) {
            eprintln!("  {fault}");
            self.faults.push(fault);
        }
    }

    /// One figure of each round; comparisons with a direct connection are within the round.
    fn rounds(&self, peer: &'static str, id: &str) -> BTreeMap<usize, f64> {
        if id == "rate.added" {
            let direct = self.rounds("direct", "rate.p50");
            let own = self.rounds(peer, "rate.p50");
            let added = own.into_iter().filter_map(|(round, value)| Some((round, value - direct.get(&round)?)));
            return if peer == "direct" { BTreeMap::new() } else { added.collect() };
        }
        self.figures.get(&(peer, id.to_owned())).cloned().unwrap_or_default()
    }

    /// The ratio of two peers' figures in the same round.
    fn ratio(&self, peer: &'static str, other: &'static str, id: &str) -> Option<f64> {
        median(self.ratios(peer, other, id))
    }

    /// The same, of every round.
    fn ratios(&self, peer: &'static str, other: &'static str, id: &str) -> Vec<f64> {
        let others = self.rounds(other, id);
        let own = self.rounds(peer, id).into_iter();
        own.filter_map(|(round, value)| Some(value / others.get(&round)?)).collect()
    }

    /// The whole page.
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
            if cells.iter().any(|cell| cell != NOTHING) {
                let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
            }
        }
        let sizes = self.peers.iter().map(|peer| self.sizes.get(peer).map_or(NOTHING.to_owned(), |size| shown(*size)));
        let _ = writeln!(
            text,
            "| Program, MiB (libraries that it loads not counted) | {} |",
            sizes.collect::<Vec<_>>().join(" | ")
        );
        self.gates(&mut text);
        self.not_measured(&mut text);
        text
    }

    /// Builds of Pixy beside the first of them.
    pub fn builds(&self, rounds: usize, notes: &[String]) -> String {
        let mut text = format!("# Builds of Pixy beside each other: {rounds} rounds\n\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
        text.push_str(BUILDS);
        text.push_str("\n| |");
        let is_seen = |row: &&Row| self.peers.iter().any(|peer| !self.rounds(peer, row.id).is_empty());
        let rows: Vec<_> = ROWS.iter().filter(|row| row.title.contains("CPU µs")).filter(is_seen).collect();
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
                    _ => write!(text, " {NOTHING} | {NOTHING} | {NOTHING} |"),
                };
            }
            text.push('\n');
        }
        self.not_measured(&mut text);
        text
    }

    /// One figure of each round, the least first.
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
        let Some(middle) = median(values.clone()) else { return NOTHING.to_owned() };
        let spread = if values.len() > 1 { format!(" ({}–{})", shown(least), shown(most)) } else { String::new() };
        let compared = !matches!(peer, "nginx" | "direct") && !id.starts_with("after") && id != "upload.growth";
        let ratio = self
            .ratio(peer, "nginx", id)
            .filter(|_| compared)
            .map_or(String::new(), |ratio| format!(" · {ratio:.2} ×"));
        format!("{}{spread}{ratio}", shown(middle))
    }

    fn gates(&self, text: &mut String) {
        let ours: Vec<_> = STREAM_GATES.into_iter().filter(|(peer, _)| self.peers.contains(peer)).collect();
        if ours.is_empty() {
            return;
        }
        text.push_str("\n## Gates\n\n| gate | at most |");
        for (peer, _) in &ours {
            let _ = write!(text, " {peer} |");
        }
        let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(ours.len()));
        for gate in GATES {
            let verdicts: Vec<_> = ours
                .iter()
                .map(|(peer, stream)| {
                    let most = if gate.most.is_nan() { *stream } else { gate.most };
                    let value = match gate.than {
                        Than::Peer(other) => self.ratio(peer, other, gate.id),
                        Than::Nobody => median(self.rounds(peer, gate.id).into_values().collect()),
                        Than::Ever => self.rounds(peer, gate.id).into_values().max_by(f64::total_cmp),
                    };
                    verdict(value, most)
                })
                .collect();
            let most = match gate.than {
                Than::Peer(other) => format!("{} × {other}", gate.most),
                Than::Nobody if gate.most.is_nan() => {
                    ours.iter().map(|(_, most)| most.to_string()).collect::<Vec<_>>().join(", ")
                }
                Than::Nobody | Than::Ever => gate.most.to_string(),
            };
            let _ = writeln!(text, "| {} | {most} | {} |", gate.title, verdicts.join(" | "));
        }
        let sizes: Vec<_> = ours.iter().map(|(peer, _)| verdict(self.sizes.get(peer).copied(), SIZE_GATE)).collect();
        let _ = writeln!(text, "| Program, MiB | {SIZE_GATE} | {} |", sizes.join(" | "));
    }
}

const NOTHING: &str = "–";

const METHOD: &str = "
Every peer has one worker thread, takes plain HTTP on loopback, replaces the agent's key, and speaks TLS 1.3 to the same API
stand-in, whose certificate it verifies. All write a line for every request into a log. Pixy has all its guards on, an agent's key
and a limit of tokens (so it reads every answer for usage) included; \"pixy, h2\" is the same over HTTP/2 to the API. Peers take
turns round by round. CPU is the peer's own (`/proc/PID/task/*/schedstat`, all processes), memory is its resident set. Left out: the
kernel's work for others, the load generator's and the API's CPU; a network that is not loopback; more than one thread.

Refreshes: an access token that lasts 4 s, so that a new one comes every 2.5 s, from a token endpoint that takes 200 ms and a new
connection each time. Counted are the requests that were under way at some moment from 20 ms before that call until the first
request with the new token, beside those of a span as long just before; each refresh has its own p99, and a round shows the
median of its refreshes. Failed is also what came to the API with a token that was not valid at that moment.
";

const BUILDS: &str = "
Median; × is the median of the ratios to the first in the same round (half of them lie between); least × compares the least of all
rounds: what else happens on the machine only ever adds.
";

fn verdict(value: Option<f64>, most: f64) -> String {
    match value {
        None => "not measured".to_owned(),
        Some(value) if value <= most => format!("{} met", shown(value)),
        Some(value) => format!("**{} missed**", shown(value)),
    }
}

/// The least and the most.
fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)))
}

/// Three digits.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
