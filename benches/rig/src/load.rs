//! The kinds of load, and how they are measured.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{Client, Target};
use crate::process::Running;
use crate::{Result, now};

/// A kind of load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Requests for 1 KiB over 32 connections, back to back.
    Json,
    /// The same at a fixed rate of 200 requests per second.
    Rate,
    /// Four streams, each with an event every 5 ms.
    Paced,
    /// Consecutive streams of 2,000 events sent at once.
    Burst,
    /// Consecutive requests of 1 MiB.
    Upload,
    /// Consecutive short messages over a WebSocket.
    Echo,
}

/// The amount of work.
#[derive(Clone, Copy)]
pub struct Workload {
    pub requests: usize,
    pub seconds: usize,
    pub bursts: usize,
    pub uploads: usize,
    pub messages: usize,
}

/// The result of a job.
pub struct Sample {
    /// The peer's CPU for each request, event or message, in microseconds; 0 for a direct connection.
    pub cpu: f64,
    /// Requests, events or messages a second.
    pub rate: f64,
    /// The duration of each, or the delay of each event, in microseconds; sorted.
    pub times: Vec<f64>,
    /// The peak memory, in KiB above the value before.
    pub growth: f64,
}

pub const EVENTS: usize = 2000;
const STREAMS: usize = 4;
const CONNECTIONS: usize = 32;
pub const PROMPT: usize = 500;
const MIB: usize = 1 << 20;

/// Measures CPU time, memory and duration of a job.
struct Meter<'a> {
    running: Option<&'a Running>,
    cpu: f64,
    memory: f64,
    growth: f64,
    began: Instant,
}

impl<'a> Meter<'a> {
    fn start(running: Option<&'a Running>) -> Self {
        let memory = running.map_or(0.0, Running::memory);
        Self { running, cpu: running.map_or(0.0, Running::cpu), memory, growth: 0.0, began: Instant::now() }
    }

    fn sample(&mut self) {
        self.growth = self.running.map_or(0.0, Running::memory).max(self.memory + self.growth) - self.memory;
    }

    fn stop(mut self, units: usize, mut times: Vec<f64>) -> Sample {
        let seconds = self.began.elapsed().as_secs_f64();
        let spent = self.running.map_or(0.0, Running::cpu) - self.cpu;
        self.sample();
        times.sort_unstable_by(f64::total_cmp);
        Sample { cpu: spent / units as f64, rate: units as f64 / seconds, times, growth: self.growth }
    }
}

impl Sample {
    /// The quantile of the times.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.times, share)
    }
}

/// The median of the values that are numbers.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The quantile of sorted times.
pub fn quantile(times: &[f64], share: f64) -> f64 {
    let index = (times.len() as f64 * share) as usize;
    times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

impl Job {
    pub const ALL: [Self; 6] = [Self::Json, Self::Rate, Self::Paced, Self::Burst, Self::Upload, Self::Echo];

    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Rate => "rate",
            Self::Paced => "paced",
            Self::Burst => "burst",
            Self::Upload => "upload",
            Self::Echo => "echo",
        }
    }

    pub async fn run(self, target: &Target, running: Option<&Running>, workload: Workload) -> Result<Sample> {
        match self {
            Self::Json => json(target, running, workload.requests).await,
            Self::Rate => rate(target, running, workload.seconds * 200).await,
            Self::Paced => paced(target, running, workload.seconds * 200).await,
            Self::Burst => burst(target, running, workload.bursts).await,
            Self::Upload => upload(target, running, workload.uploads).await,
            Self::Echo => echo(target, running, workload.messages).await,
        }
    }
}

/// Opens connections and sends a request over each.
pub async fn connected(target: &Target, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(target).await?;
        client.exchange("json", PROMPT).await?;
        clients.push(client);
    }
    Ok(clients)
}

async fn json(target: &Target, running: Option<&Running>, requests: usize) -> Result<Sample> {
    let clients = connected(target, CONNECTIONS).await?;
    let meter = Meter::start(running);
    let mut all = JoinSet::new();
    let each = requests.div_ceil(CONNECTIONS);
    for mut client in clients {
        all.spawn(async move {
            let mut times = Vec::with_capacity(each);
            for _ in 0..each {
                times.push(timed(&mut client).await?);
            }
            Result::Ok(times)
        });
    }
    let times = joined(all).await?;
    Ok(meter.stop(times.len(), times))
}

async fn rate(target: &Target, running: Option<&Running>, requests: usize) -> Result<Sample> {
    let mut idle = VecDeque::from(connected(target, 8).await?);
    let mut all: JoinSet<Result<(Client, f64)>> = JoinSet::new();
    let mut times = Vec::with_capacity(requests);
    let mut ticks = interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let meter = Meter::start(running);
    let mut started = 0;
    while times.len() < requests {
        tokio::select! {
            _ = ticks.tick(), if started < requests => {
                started += 1;
                let (free, target) = (idle.pop_front(), target.clone());
                all.spawn(async move {
                    let mut client = match free {
                        Some(client) => client,
                        None => Client::connect(&target).await?,
                    };
                    let time = timed(&mut client).await?;
                    Ok((client, time))
                });
            }
            Some(done) = all.join_next() => {
                let (client, time) = done??;
                idle.push_back(client);
                times.push(time);
            }
        }
    }
    Ok(meter.stop(requests, times))
}

async fn paced(target: &Target, running: Option<&Running>, events: usize) -> Result<Sample> {
    let clients = connected(target, STREAMS).await?;
    let meter = Meter::start(running);
    let mut all = JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        all.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number as u64)).await; // staggers the streams
            client.ask(&format!("paced-{events}"), PROMPT).await?;
            delays(&mut client, events).await
        });
    }
    let times = joined(all).await?;
    Ok(meter.stop(times.len(), times))
}

async fn burst(target: &Target, running: Option<&Running>, bursts: usize) -> Result<Sample> {
    let mut client = connected(target, 1).await?.remove(0);
    let meter = Meter::start(running);
    let mut times = Vec::new();
    for _ in 0..bursts {
        client.ask(&format!("burst-{EVENTS}"), PROMPT).await?;
        times.extend(delays(&mut client, EVENTS).await?);
    }
    Ok(meter.stop(bursts * EVENTS, times))
}

async fn upload(target: &Target, running: Option<&Running>, uploads: usize) -> Result<Sample> {
    let mut client = connected(target, 1).await?.remove(0);
    let mut meter = Meter::start(running);
    let mut times = Vec::new();
    for _ in 0..uploads {
        let began = Instant::now();
        client.exchange("upload", MIB).await?;
        times.push(micros(began));
        meter.sample();
    }
    Ok(meter.stop(uploads, times))
}

async fn echo(target: &Target, running: Option<&Running>, messages: usize) -> Result<Sample> {
    let mut client = Client::connect(target).await?;
    client.upgrade().await?;
    let meter = Meter::start(running);
    let mut times = Vec::new();
    for _ in 0..messages {
        let began = Instant::now();
        client.echo().await?;
        times.push(micros(began));
    }
    Ok(meter.stop(messages, times))
}

/// Opens streams of which only the first event arrives, and waits for that.
pub async fn open_streams(target: &Target, count: usize) -> Result<Vec<Client>> {
    const BATCH: usize = 50;
    let mut clients = Vec::new();
    while clients.len() < count {
        let mut batch = JoinSet::new();
        for _ in 0..BATCH.min(count - clients.len()) {
            let target = target.clone();
            batch.spawn(async move {
                let mut client = Client::connect(&target).await?;
                client.ask("open", PROMPT).await?;
                client.read(&mut Vec::new()).await?;
                Result::Ok(client)
            });
        }
        while let Some(client) = batch.join_next().await {
            clients.push(client??);
        }
    }
    Ok(clients)
}

async fn timed(client: &mut Client) -> Result<f64> {
    let began = Instant::now();
    client.exchange("json", PROMPT).await?;
    Ok(micros(began))
}

/// The delay of each event of a stream.
async fn delays(client: &mut Client, expected: usize) -> Result<Vec<f64>> {
    let (mut text, mut delays, mut more) = (Vec::new(), Vec::with_capacity(expected), true);
    while more {
        more = client.read(&mut text).await?;
        let (now, mut at) = (now(), 0);
        while let Some(end) = text[at..].windows(2).position(|two| two == b"\n\n") {
            let event = String::from_utf8_lossy(&text[at..at + end]);
            let sent = event.split("sent=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            delays.extend(sent.map(|sent| now.saturating_sub(sent) as f64 / 1e3));
            at += end + 2;
        }
        text.drain(..at);
    }
    if delays.len() != expected {
        return Err(format!("{} of {expected} events arrived", delays.len()).into());
    }
    Ok(delays)
}

async fn joined(mut all: JoinSet<Result<Vec<f64>>>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    while let Some(done) = all.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6
}
