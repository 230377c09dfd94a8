//! The faults of one refresh.

use std::time::Duration;

/// The process was killed: its memory is lost.
pub struct Crash;

/// A point between two steps of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Begun,
    Probed,
    Intended,
    Committed,
    Received,
    StoreFailed,
    Durable,
    Published,
}

/// The result of a write to the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Works,
    Full,
    /// The write fails, but the record is stored (a failed fsync of the directory).
    FailsButKeeps,
}

/// The outcome of a call of the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Success,
    ExpiredOnArrival,
    NeverSent,
    SpentWithoutResponse,
    UnspentWithoutResponse,
    Refused,
    Transient,
    TooMany(u16),
    Unknown,
}

/// The faults of the next refresh.
#[derive(Debug, Clone)]
pub struct Plan {
    pub crash: Option<Point>,
    pub down: Duration,
    /// A step of the wall clock, in milliseconds, at a point of the refresh.
    pub step: Option<(Point, i64)>,
    pub probe_works: bool,
    pub intent: Disk,
    pub reply: Reply,
    pub request_time: Duration,
    pub response_time: Duration,
    /// The number of failed tries to store the outcome.
    pub store_failures: u16,
    pub store: Disk,
    pub jitter: f64,
}

impl Plan {
    /// A refresh without faults.
    pub fn healthy(jitter: f64) -> Self {
        Self {
            crash: None,
            down: Duration::ZERO,
            step: None,
            probe_works: true,
            intent: Disk::Works,
            reply: Reply::Success,
            request_time: Duration::from_millis(20),
            response_time: Duration::from_millis(20),
            store_failures: 0,
            store: Disk::Works,
            jitter,
        }
    }
}
