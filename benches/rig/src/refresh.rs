//! The times of requests during a refresh, compared with a span of the same length before it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{Client, Target};
use crate::tokens::{LIFETIME, Refresh, Tokens};
use crate::{Result, load, now};

/// The interval between requests; a slow response does not delay the next request.
const INTERVAL: Duration = Duration::from_millis(1);

/// How long before the call a refresh begins, in nanoseconds: Pixy first probes the vault and stores its intent.
const BEFORE_CALL: u64 = 20_000_000;

/// The gap between a refresh and the span that it is compared with, in nanoseconds.
const GAP: u64 = 100_000_000;

/// The number of failed requests that ends the run.
const MAX_FAILURES: usize = 100;

/// Medians over the refreshes, each with its own p99: a pause of the machine affects one span, but would dominate a common p99.
/// Times are in microseconds.
pub struct Impact {
    /// p99 of the requests during the refresh.
    pub during: f64,
    /// The same for a span of that length just before.
    pub before: f64,
    /// The ratio of the first to the second.
    pub ratio: f64,
    /// The ratio of the second to a span before it: its deviation from 1 is noise.
    pub chance: f64,
    /// The longest request during the refresh.
    pub longest: f64,
    /// Requests that failed, and requests with a token that was not valid at that time.
    pub failed: usize,
}

/// The start and end of a request, in [`now`]'s nanoseconds.
type Span = (u64, u64);

/// Sends requests to a peer until that many refreshes are complete.
pub async fn measure(target: &Target, tokens: &Tokens, refreshes: usize) -> Result<Impact> {
    tokens.take();
    let (spans, failed) = load(target, tokens, refreshes).await?;
    let (completed, rejected) = tokens.take();
    let began = spans.first().map_or(0, |span| span.0);
    let mut each: [Vec<f64>; 5] = Default::default();
    for Refresh { called, used, old, .. } in completed {
        let Some(used) = used else { continue };
        let from = called - BEFORE_CALL;
        let step = used - from + GAP;
        if from < began + 2 * step {
            continue; // no earlier span to compare with
        }
        if old == 0 {
            return Err("no request used the old token during a refresh".into());
        }
        let times = |back| durations_within(&spans, from - back, used - back);
        let p99 = |back| load::quantile(&times(back), 0.99);
        let (during, before, earlier) = (p99(0), p99(step), p99(2 * step));
        for (all, value) in each.iter_mut().zip([
            during,
            before,
            during / before,
            before / earlier,
            times(0).last().copied().unwrap_or(f64::NAN),
        ]) {
            all.push(value);
        }
    }
    let [during, before, ratio, chance, longest] = each.map(|values| load::median(values).unwrap_or(f64::NAN));
    Ok(Impact { during, before, ratio, chance, longest, failed: failed + rejected })
}

/// Sends requests at a constant rate; returns their spans and the number of failures.
async fn load(target: &Target, tokens: &Tokens, refreshes: usize) -> Result<(Vec<Span>, usize)> {
    let until = Instant::now() + LIFETIME * (refreshes as u32 + 4);
    let (mut idle, mut all) = (VecDeque::from(load::connected(target, 32).await?), JoinSet::new());
    let (mut spans, mut failures) = (Vec::new(), 0);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while tokens.complete() < refreshes {
        if Instant::now() > until {
            return Err(format!("{} of {refreshes} refreshes completed", tokens.complete()).into());
        }
        tokio::select! {
            _ = ticks.tick() => {
                let (idle_client, target) = (idle.pop_front(), target.clone());
                all.spawn(async move { request(idle_client, &target).await });
            }
            Some(done) = all.join_next() => match done? {
                Ok((client, span)) => {
                    idle.push_back(client);
                    spans.push(span);
                }
                Err(error) if failures == MAX_FAILURES => return Err(error),
                Err(error) => {
                    eprintln!("  a request failed: {error}");
                    failures += 1;
                }
            },
        }
    }
    while let Some(done) = all.join_next().await {
        failures += usize::from(done?.is_err());
    }
    spans.sort_unstable();
    Ok((spans, failures))
}

async fn request(idle_client: Option<Client>, target: &Target) -> Result<(Client, Span)> {
    let began = now();
    let mut client = match idle_client {
        Some(client) => client,
        None => Client::connect(target).await?,
    };
    client.exchange("json", load::PROMPT).await?;
    Ok((client, (began, now())))
}

/// The sorted durations of requests that overlap a span, in microseconds.
fn durations_within(spans: &[Span], from: u64, to: u64) -> Vec<f64> {
    let overlapping = spans.iter().filter(|(began, ended)| *began < to && *ended > from);
    let mut times: Vec<f64> = overlapping.map(|(began, ended)| (ended - began) as f64 / 1e3).collect();
    times.sort_unstable_by(f64::total_cmp);
    times
}
