//! What happens to one refresh in a story.

use std::time::Duration;

/// The process died: what was in memory is lost.
pub struct Crash;

/// Between which steps of a refresh something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Begun,
    Probed,
    Intended,
    Committed,
    Heard,
    StoreFailed,
    Durable,
    Published,
}

/// How the vault behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Works,
    Full,
    /// It says no, and the bytes are there (an fsync of the directory that failed).
    FailsButKeeps,
}

/// How a call of the token endpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Honest,
    DeadOnArrival,
    NeverSent,
    SpentUnheard,
    UnspentUnheard,
    Refused,
    Transient,
    TooMany(u16),
    Unknown,
}

/// How the next refresh goes.
#[derive(Debug, Clone)]
pub struct Plan {
    pub crash: Option<Point>,
    pub down: Duration,
    /// A step of the wall clock, in milliseconds, at a point of the refresh.
    pub step: Option<(Point, i64)>,
    pub probe_works: bool,
    pub intent: Disk,
    pub reply: Reply,
    pub there: Duration,
    pub back: Duration,
    /// So many tries to store the outcome fail.
    pub store_failures: u16,
    pub store: Disk,
    pub jitter: f64,
}

impl Plan {
    /// Nothing goes wrong.
    pub fn healthy(jitter: f64) -> Self {
        Self {
            crash: None,
            down: Duration::ZERO,
            step: None,
            probe_works: true,
            intent: Disk::Works,
            reply: Reply::Honest,
            there: Duration::from_millis(20),
            back: Duration::from_millis(20),
            store_failures: 0,
            store: Disk::Works,
            jitter,
        }
    }
}
