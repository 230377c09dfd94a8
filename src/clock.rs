//! The clocks, as a value that tests can advance and step.
//!
//! The wall clock has the time of day and may step; it is only stored, shown, and read when a record is loaded. The boot
//! clock never steps and continues during suspend; it decides whether a token is still valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment on the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// A moment on the boot clock; only comparable within one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(Duration);

/// The source of time. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    /// Follows tokio's clock, which a test can pause and advance; the wall clock can be stepped separately.
    Tokio { start: tokio::time::Instant, wall: Arc<AtomicI64> },
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From seconds since the epoch; saturates.
    pub fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Later by `span`; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The time from `earlier` to here, or zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC, to the second. A time out of the calendar's range becomes the maximum.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_second(self.as_seconds()).unwrap_or(jiff::Timestamp::MAX).to_string()
    }
}

impl Tick {
    /// Later by `span`; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }

    /// The time from `earlier` to here, or zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Clock {
    /// A clock that follows tokio's, so that `tokio::time::advance` moves it; the wall clock starts at `wall`.
    pub fn tokio(wall: Timestamp) -> Self {
        Self(Source::Tokio { start: tokio::time::Instant::now(), wall: Arc::new(AtomicI64::new(wall.0)) })
    }

    /// Steps the wall clock of a [`Clock::tokio`] by `millis`, as an administrator or NTP would. No effect on the system's.
    pub fn step_wall(&self, millis: i64) {
        if let Source::Tokio { wall, .. } = &self.0 {
            wall.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The time of day.
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Tokio { start, wall } => Timestamp(wall.load(Ordering::Relaxed)).after(start.elapsed()),
        }
    }

    /// The boot clock: never steps, and includes time in suspend.
    pub fn tick(&self) -> Tick {
        match &self.0 {
            Source::System => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                Tick(Duration::try_from(now).unwrap_or_default())
            }
            Source::Tokio { start, .. } => Tick(start.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_steps_and_the_boot_clock_does_not() {
        let clock = Clock::tokio(Timestamp::from_seconds(1_000));
        let (wall, tick) = (clock.wall(), clock.tick());
        tokio::time::advance(Duration::from_secs(5)).await;
        clock.step_wall(-3_600_000);
        assert_eq!(clock.tick().since(tick), Duration::from_secs(5));
        assert_eq!(clock.wall().as_seconds(), wall.as_seconds() + 5 - 3_600);
    }

    #[test]
    fn timestamps_format_as_rfc3339() {
        assert_eq!(Timestamp::from_seconds(0).to_rfc3339(), "1970-01-01T00:00:00Z");
        assert!(Timestamp::from_seconds(i64::MAX).to_rfc3339().starts_with("9999-"));
    }
}
