//! What a connection, or a stream of one, waits for: its client or not, and since when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::{NEWCOMER, PAUSE, SLOWEST};
use crate::lock::lock;

/// Whether one connection, or one HTTP/2 stream, waits for its client.
#[derive(Debug)]
pub(super) struct StallTracker {
    under_way: Mutex<UnderWay>,
    /// For more of a request's body.
    pub(super) reading: StallTimer,
    /// For room for an answer.
    pub(super) writing: StallTimer,
    /// Another needs the place.
    asked: AtomicBool,
    heard: Notify,
    /// The first request has begun.
    first: Notify,
}

/// Requests, until their answers' last byte.
#[derive(Debug)]
struct UnderWay {
    count: usize,
    /// When the last one ended; at first, when all this began.
    ended: Instant,
    /// There was one.
    served: bool,
}

/// StallTimer when something is waited for. What comes in drops does not make up for the wait: a debt is left.
#[derive(Debug, Default)]
pub(super) struct StallTimer(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    since: Option<Instant>,
    /// Waited for before, and not made up for by what came.
    debt: Duration,
}

tokio::task_local! {
    /// Of the HTTP/2 stream whose task this is.
    pub(super) static STREAM: Arc<StallTracker>;
}

impl StallTracker {
    /// Of a connection, without a request yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::new(UnderWay { count: 0, ended: Instant::now(), served: false }),
            reading: StallTimer::default(),
            writing: StallTimer::default(),
            asked: AtomicBool::new(false),
            heard: Notify::new(),
            first: Notify::new(),
        })
    }

    /// Of a stream, which is one request.
    pub(super) fn of_stream() -> Arc<Self> {
        let waits = Self::new();
        waits.begin();
        waits
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        let mut under_way = lock(&self.under_way);
        under_way.count += 1;
        if under_way.count == 1 && !under_way.served {
            self.first.notify_one();
        }
    }

    /// Resolves when there was a request. For one that waits.
    pub(super) async fn begun(&self) {
        let has_begun = || {
            let under_way = lock(&self.under_way);
            under_way.served || under_way.count > 0
        };
        while !has_begun() {
            self.first.notified().await;
        }
    }

    /// A request has ended.
    pub(super) fn end(&self) {
        let mut under_way = lock(&self.under_way);
        under_way.count -= 1;
        under_way.ended = Instant::now();
        under_way.served = true;
    }

    /// Something is under way.
    pub(super) fn is_busy(&self) -> bool {
        lock(&self.under_way).count > 0
    }

    /// StallTimer when nothing is under way.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let under_way = lock(&self.under_way);
        (under_way.count == 0).then_some(under_way.ended)
    }

    /// StallTimer when its client has been waited for, if that is so long that it could go.
    pub(super) fn dispensable(&self, now: Instant) -> Option<Instant> {
        let in_request = [self.reading.with_debt(), self.writing.with_debt()].into_iter().flatten().min();
        let (since, least) = match (in_request, self.idle_since()) {
            (Some(since), _) => (since, PAUSE),
            (None, Some(since)) => (since, if lock(&self.under_way).served { PAUSE } else { NEWCOMER }),
            (None, None) => return None,
        };
        (now.saturating_duration_since(since) >= least).then_some(since)
    }

    pub(super) fn ask_to_go(&self) {
        self.asked.store(true, Ordering::Release);
        self.heard.notify_one();
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Resolves when it was asked to go and still could.
    pub(super) async fn gone(&self) {
        loop {
            self.heard.notified().await;
            if self.dispensable(Instant::now()).is_some() {
                return;
            }
            self.asked.store(false, Ordering::Release);
        }
    }

    /// Resolves when nothing was under way for so long.
    pub(super) async fn idle(&self, time: Duration) {
        loop {
            match self.idle_since() {
                Some(since) if since + time <= Instant::now() => return,
                Some(since) => tokio::time::sleep_until(since + time).await,
                None => tokio::time::sleep(time).await,
            }
        }
    }

    /// Resolves when the client has not made room for so long.
    pub(super) async fn stalled(&self, time: Duration) {
        loop {
            let since = lock(&self.writing.0).since;
            match since {
                Some(since) if since + time <= Instant::now() => return,
                Some(since) => tokio::time::sleep_until(since + time).await,
                None => tokio::time::sleep(time).await,
            }
        }
    }
}

impl StallTimer {
    /// From now on, unless it has begun already.
    pub(super) fn begin(&self) {
        lock(&self.0).since.get_or_insert_with(Instant::now);
    }

    /// So many bytes came, or were taken.
    pub(super) fn moved(&self, bytes: usize) {
        let mut waiting = lock(&self.0);
        if let Some(since) = waiting.since.take() {
            waiting.debt += since.elapsed();
        }
        if !waiting.debt.is_zero() {
            waiting.debt = waiting.debt.saturating_sub(SLOWEST * u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// No more is waited for.
    pub(super) fn end(&self) {
        *lock(&self.0) = Waiting::default();
    }

    /// As if all the waiting had been at once.
    fn with_debt(&self) -> Option<Instant> {
        let waiting = lock(&self.0);
        waiting.since.map(|since| since.checked_sub(waiting.debt).unwrap_or(since))
    }
}
