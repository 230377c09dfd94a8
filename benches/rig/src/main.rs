//! Measures Pixy and its peers under the same load; see `benches/compare`.

mod api;
mod client;
mod load;
mod peers;
mod process;
mod refresh;
mod report;
mod tls;
mod tokens;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use load::{Job, Workload};
use peers::{Environment, Peer, Programs};
use report::Report;
use tokens::Tokens;
use tokio::time::Instant;

/// An error ends the run and is printed.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "usage: pixy-rig [--quick|--smoke|--versions] [--only JOB|memory|refresh]… [--peer NAME]… [--rounds N] [--streams N]… [--note TEXT]… [--out FILE] [--keep DIRECTORY]\n       \
                     [--pixy PATH] [--old PATH] [--pixy NAME=PATH]… [--nginx PATH] [--haproxy PATH] [--envoy PATH] [--litellm PATH]";

/// See [`Plan::rate_interval`].
const RATE_INTERVAL: usize = 4;

static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Nanoseconds since the start of the rig: the API stand-in and the load generator share this clock, because they share a process.
pub fn now() -> u64 {
    START.elapsed().as_nanos() as u64
}

/// How much is measured.
struct Plan {
    workload: Workload,
    rounds: usize,
    /// Numbers of open streams for which memory is measured.
    streams: Vec<usize>,
    memory_rounds: usize,
    /// How long to wait until memory is returned after the streams have closed.
    memory_timeout: Duration,
    jobs: Vec<Job>,
    memory: bool,
    /// Refreshes per round; 0 measures none.
    refreshes: usize,
    /// `Job::Rate` runs in every nth round only: small differences need many rounds, and it takes seconds.
    rate_interval: usize,
    /// The peers to measure; all if empty.
    peers: Vec<String>,
    kind: &'static str,
}

fn main() -> ExitCode {
    LazyLock::force(&START);
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut programs, mut out, mut keep) = (Programs::default(), None, None);
    let mut plan = Plan::full();
    let (mut only, mut names, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rounds, mut streams) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match argument.as_str() {
            "--quick" => plan = Plan::quick(),
            "--smoke" => plan = Plan::smoke(),
            "--versions" => plan = Plan::versions(),
            "--only" => only.push(value()?),
            "--peer" => names.push(value()?),
            "--streams" => streams.push(value()?.parse()?),
            "--note" => notes.push(value()?),
            "--rounds" => rounds = Some(value()?.parse()?),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--keep" => keep = Some(PathBuf::from(value()?)),
            "--pixy" => {
                let build = value()?;
                match build.split_once('=') {
                    // Leaked on purpose: there are few builds, and their names are needed until the end.
                    Some((name, path)) => programs.builds.push((name.to_owned().leak(), path.into())),
                    None => programs.pixy = Some(build.into()),
                }
            }
            "--old" => programs.old = Some(value()?.into()),
            "--nginx" => programs.nginx = Some(value()?.into()),
            "--haproxy" => programs.haproxy = Some(value()?.into()),
            "--envoy" => programs.envoy = Some(value()?.into()),
            "--litellm" => programs.litellm = Some(value()?.into()),
            _ => return Err(USAGE.into()),
        }
    }
    let is_selected = |name: &str| only.is_empty() || only.iter().any(|selected| selected == name);
    plan.jobs.retain(|job| is_selected(job.name()));
    plan.memory = is_selected("memory");
    plan.refreshes *= usize::from(is_selected("refresh"));
    (plan.peers, plan.rounds) = (names, rounds.unwrap_or(plan.rounds));
    if !streams.is_empty() {
        plan.streams = streams;
    }
    let scratch = tempfile::Builder::new().prefix("pixy-rig-").tempdir()?;
    let directory = keep.as_deref().unwrap_or(scratch.path());
    std::fs::create_dir_all(directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compares_builds = !programs.builds.is_empty();
    let compares_versions = programs.old.is_some();
    plan.rate_interval = if compares_builds { RATE_INTERVAL } else { 1 };
    let report = runtime.block_on(measure(&plan, programs, directory))?;
    let (text, slower) = if compares_builds {
        (report.builds(plan.rounds, &notes), 0)
    } else if compares_versions {
        report.versions(plan.rounds, &notes)
    } else {
        (report.markdown(plan.kind, plan.rounds, &notes), 0)
    };
    match out {
        Some(file) => std::fs::write(file, text)?,
        None => print!("{text}"),
    }
    if slower > 0 { Err(format!("{slower} figures are worse than those of the old version").into()) } else { Ok(()) }
}

async fn measure(plan: &Plan, programs: Programs, directory: &Path) -> Result<Report> {
    let authority = tls::Authority::new()?;
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, authority.pem())?;
    let api = api::start(&authority)?;
    let tokens = Arc::clone(&api.tokens);
    let environment = Environment { directory, api, ca, connector: authority.connector()? };
    let mut refreshing = if plan.refreshes > 0 { environment.refreshing(&programs).await? } else { Vec::new() };
    let mut peers = environment.peers(programs).await?;
    for peers in [&mut peers, &mut refreshing] {
        peers.retain(|peer| plan.peers.is_empty() || plan.peers.iter().any(|name| name == peer.name));
    }
    let mut report = Report::new(&peers);
    for round in 0..plan.rounds {
        // Rotates the order in each round, so that a change of the machine affects all peers.
        for index in 0..peers.len() {
            let peer = &peers[(index + round) % peers.len()];
            if !plan.jobs.is_empty() && (peer.name != "litellm" || round == 0) {
                eprintln!("round {} of {}: {}", round + 1, plan.rounds, peer.name);
                loads(plan, peer, round, &mut report).await?;
            }
        }
        for peer in &refreshing {
            eprintln!("round {} of {}: {}, refreshes", round + 1, plan.rounds, peer.name);
            refreshes(plan, peer, &tokens, round, &mut report).await;
        }
    }
    if plan.memory {
        for round in 0..plan.memory_rounds {
            for peer in &peers {
                if peer.name != "direct" && peer.name != "litellm" {
                    eprintln!("memory, {} of {}: {}", round + 1, plan.memory_rounds, peer.name);
                    memory(plan, peer, round, &mut report).await?;
                }
            }
        }
    }
    Ok(report)
}

/// Runs all jobs on a newly started peer.
async fn loads(plan: &Plan, peer: &Peer, round: usize, report: &mut Report) -> Result<()> {
    let started = match peer.start().await {
        Ok(started) => started,
        Err(error) => {
            report.fault(peer.name, "start", &error.to_string()); // the other peers are still measured
            return Ok(());
        }
    };
    if let Some((_, time)) = &started {
        report.add(peer.name, "start", round, *time);
    }
    let running = started.as_ref().map(|(running, _)| running);
    let workload = if peer.name == "litellm" {
        Workload { requests: 320, seconds: 1, bursts: 1, uploads: 3, messages: 0 }
    } else {
        plan.workload
    };
    for &job in plan.jobs.iter().filter(|job| **job != Job::Rate || round.is_multiple_of(plan.rate_interval)) {
        let limit = Duration::from_mins(2);
        let sample = match tokio::time::timeout(limit, job.run(&peer.target, running, workload)).await {
            Ok(Ok(sample)) => sample,
            Ok(Err(error)) => {
                report.fault(peer.name, job.name(), &error.to_string());
                continue;
            }
            Err(_) => {
                report.fault(peer.name, job.name(), "timed out");
                continue;
            }
        };
        let mut add = |what: &str, value| report.add(peer.name, &format!("{}.{what}", job.name()), round, value);
        if running.is_some() {
            add("cpu", sample.cpu);
            add("growth", sample.growth / 1024.0);
        }
        add("p50", sample.quantile(0.5));
        add("p99", sample.quantile(0.99));
        add("rate", sample.rate);
    }
    Ok(())
}

/// Measures the times of requests during refreshes.
async fn refreshes(plan: &Plan, peer: &Peer, tokens: &Tokens, round: usize, report: &mut Report) {
    let impact = async {
        let running = peer.start().await?;
        let impact = refresh::measure(&peer.target, tokens, plan.refreshes).await;
        drop(running);
        impact
    };
    match impact.await {
        Ok(impact) => {
            let mut add = |what: &str, value| report.add(peer.name, &format!("refresh.{what}"), round, value);
            add("during", impact.during);
            add("before", impact.before);
            add("ratio", impact.ratio);
            add("chance", impact.chance);
            add("longest", impact.longest);
            add("failed", impact.failed as f64);
        }
        Err(error) => report.fault(peer.name, "refresh", &error.to_string()),
    }
}

/// Measures the memory that open streams use, and how much of it is returned.
async fn memory(plan: &Plan, peer: &Peer, round: usize, report: &mut Report) -> Result<()> {
    let (running, _) = match peer.start().await {
        Ok(Some(started)) => started,
        Ok(None) => return Ok(()),
        Err(error) => {
            report.fault(peer.name, "memory", &error.to_string());
            return Ok(());
        }
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = running.memory();
    report.add(peer.name, "idle", round, idle / 1024.0);
    for &count in &plan.streams {
        let clients = load::open_streams(&peer.target, count).await?;
        report.add(peer.name, &format!("stream.{count}"), round, (running.memory() - idle) / count as f64);
        drop(clients);
        let until = Instant::now() + plan.memory_timeout;
        while running.memory() - idle > 1024.0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        report.add(peer.name, &format!("after.{count}"), round, (running.memory() - idle) / 1024.0);
    }
    Ok(())
}

impl Plan {
    fn full() -> Self {
        Self {
            workload: Workload { requests: 16_000, seconds: 8, bursts: 40, uploads: 100, messages: 2000 },
            rounds: 5,
            streams: vec![1000, 5000],
            memory_rounds: 3,
            refreshes: 10,
            kind: "full",
            ..Self::quick()
        }
    }

    fn quick() -> Self {
        Self {
            workload: Workload { requests: 6400, seconds: 2, bursts: 15, uploads: 40, messages: 400 },
            rounds: 3,
            streams: vec![1000],
            memory_rounds: 1,
            memory_timeout: Duration::from_secs(10),
            jobs: Job::ALL.to_vec(),
            memory: true,
            refreshes: 5,
            rate_interval: 1,
            peers: Vec::new(),
            kind: "quick",
        }
    }

    /// For two versions of Pixy: many short rounds, because differences are small.
    fn versions() -> Self {
        Self { rounds: 11, memory_rounds: 3, ..Self::quick() }
    }

    /// Tests the rig; the figures mean nothing.
    fn smoke() -> Self {
        Self {
            workload: Workload { requests: 64, seconds: 1, bursts: 1, uploads: 2, messages: 10 },
            rounds: 1,
            streams: vec![20],
            memory_timeout: Duration::from_millis(500),
            refreshes: 1,
            kind: "smoke",
            ..Self::quick()
        }
    }
}
