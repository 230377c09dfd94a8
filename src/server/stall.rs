//! How long a connection has been waiting for its client.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock::lock;

/// A new connection is not evicted before its first request while it is younger than this. A client that sends its request at once
/// needs none: the request has arrived when the connection is accepted, and then it is read first.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(5);

/// A connection is not evicted for a shorter stall than this, within an exchange or between two: a client whose next request
/// arrives at the moment when its connection is closed gets an error.
pub(super) const STALL_GRACE: Duration = Duration::from_secs(1);

/// The same while newcomers wait without a break.
pub(super) const PRESSED_GRACE: Duration = Duration::from_millis(50);

/// Each byte that arrives or is accepted cancels so much of the carried-over stall time: 4 KiB/s keep a connection from being
/// evicted, and a trickle does not.
pub(super) const STALL_PER_BYTE: Duration = Duration::from_micros(1_000_000 / 4096);

/// How short a stall is not enough for an eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Grace {
    /// `STALL_GRACE`.
    Usual = 1,
    /// `PRESSED_GRACE`.
    Pressed = 2,
    /// As for a first request.
    Short = 3,
}

impl Grace {
    /// For a stall of a connection that has had a request.
    fn of_stall(self) -> Duration {
        match self {
            Self::Usual => STALL_GRACE,
            Self::Pressed => PRESSED_GRACE,
            Self::Short => FIRST_REQUEST_GRACE,
        }
    }
}

/// Records whether one connection waits for its client, and since when.
#[derive(Debug)]
pub(super) struct StallTracker {
    exchanges: Mutex<Exchanges>,
    /// Waiting for more of a request's body.
    pub(super) reading: StallTimer,
    /// Waiting for the client to accept more of a response.
    pub(super) writing: StallTimer,
    /// The [`Grace`] of a requested eviction, or 0.
    eviction_requested: AtomicU8,
    eviction: Notify,
    first_request: Notify,
}

/// Requests whose responses have not ended.
#[derive(Debug)]
struct Exchanges {
    open: usize,
    /// The end of the last exchange, or the start of the connection. Meaningful while none is open.
    idle_since: Instant,
    has_served: bool,
}

/// The stall time of one direction.
#[derive(Debug, Default)]
pub(super) struct StallTimer(Mutex<Stall>);

#[derive(Debug, Default)]
struct Stall {
    since: Option<Instant>,
    /// Stall time carried over from earlier pauses, less what the bytes since then cancelled.
    carried_over: Duration,
}

impl StallTracker {
    /// A tracker for a connection that was accepted now.
    pub(super) fn new() -> Self {
        Self {
            exchanges: Mutex::new(Exchanges { open: 0, idle_since: Instant::now(), has_served: false }),
            reading: StallTimer::default(),
            writing: StallTimer::default(),
            eviction_requested: AtomicU8::new(0),
            eviction: Notify::new(),
            first_request: Notify::new(),
        }
    }

    pub(super) fn begin_exchange(&self) {
        let mut exchanges = lock(&self.exchanges);
        exchanges.open += 1;
        if exchanges.open == 1 && !exchanges.has_served {
            self.first_request.notify_one();
        }
    }

    pub(super) fn end_exchange(&self) {
        let mut exchanges = lock(&self.exchanges);
        exchanges.open -= 1;
        exchanges.idle_since = Instant::now();
        exchanges.has_served = true;
    }

    /// Resolves once the connection has had a request. Only one task may wait for it.
    pub(super) async fn first_request(&self) {
        let has_begun = || {
            let exchanges = lock(&self.exchanges);
            exchanges.has_served || exchanges.open > 0
        };
        while !has_begun() {
            self.first_request.notified().await;
        }
    }

    /// Whether an exchange is open.
    pub(super) fn is_busy(&self) -> bool {
        lock(&self.exchanges).open > 0
    }

    /// Since when the connection has been stalled, or `None` where it must not be evicted: it waits for something else than its
    /// client, or its grace period has not passed at `now`.
    pub(super) fn evictable_since(&self, now: Instant, grace: Grace) -> Option<Instant> {
        let in_exchange = [self.reading.stalled_since(), self.writing.stalled_since()].into_iter().flatten().min();
        let (since, grace) = if let Some(since) = in_exchange {
            (since, grace.of_stall())
        } else {
            let exchanges = lock(&self.exchanges);
            if exchanges.open > 0 {
                return None;
            }
            (exchanges.idle_since, if exchanges.has_served { grace.of_stall() } else { FIRST_REQUEST_GRACE })
        };
        (now.saturating_duration_since(since) >= grace).then_some(since)
    }

    /// Since when the client has not read its response, if that is longer than [`PRESSED_GRACE`] at `now`.
    pub(super) fn unread_since(&self, now: Instant) -> Option<Instant> {
        self.writing.stalled_since().filter(|since| now.saturating_duration_since(*since) >= PRESSED_GRACE)
    }

    pub(super) fn request_eviction(&self, grace: Grace) {
        self.eviction_requested.store(grace as u8, Ordering::Release);
        self.eviction.notify_one();
    }

    pub(super) fn eviction_requested(&self) -> bool {
        self.eviction_requested.load(Ordering::Acquire) != 0
    }

    /// Resolves when eviction was requested and is still allowed. A request for a connection that has moved on since is
    /// discarded. Only one task may wait for it.
    pub(super) async fn evicted(&self) {
        loop {
            self.eviction.notified().await;
            let requested = self.eviction_requested.load(Ordering::Acquire);
            let all = [Grace::Usual, Grace::Pressed, Grace::Short];
            let grace = all.into_iter().find(|grace| *grace as u8 == requested).unwrap_or(Grace::Usual);
            if self.evictable_since(Instant::now(), grace).is_some() {
                return;
            }
            self.eviction_requested.store(0, Ordering::Release);
        }
    }
}

impl StallTimer {
    /// Starts the timer unless it runs already.
    pub(super) fn start(&self) {
        lock(&self.0).since.get_or_insert_with(Instant::now);
    }

    /// Stops the timer, because so many bytes arrived or were accepted.
    pub(super) fn record_progress(&self, bytes: usize) {
        let mut stall = lock(&self.0);
        if let Some(since) = stall.since.take() {
            stall.carried_over += since.elapsed();
        }
        if !stall.carried_over.is_zero() {
            let cancelled = STALL_PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
            stall.carried_over = stall.carried_over.saturating_sub(cancelled);
        }
    }

    /// Stops the timer and clears the carried-over stall time.
    pub(super) fn reset(&self) {
        *lock(&self.0) = Stall::default();
    }

    /// When the stall would have begun if all stall time were one stall that lasts until now.
    fn stalled_since(&self) -> Option<Instant> {
        let stall = lock(&self.0);
        stall.since.map(|since| since.checked_sub(stall.carried_over).unwrap_or(since))
    }
}
