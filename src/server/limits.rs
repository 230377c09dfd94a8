//! What a client may take of a surface.

use std::time::Duration;

/// Limits of a surface, for all its connections together or for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open connections of agents. For a further one, the longest-stalled connection is evicted.
    pub connections: usize,
    /// Bytes of a request's head, and of its trailers.
    pub header_bytes: usize,
    /// Fields of a request's head.
    pub header_fields: usize,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// From the start of a request's head to its end.
    pub header_time: Duration,
    /// Between two bytes of a request's body, between two bytes that the client accepts of a response, and between two requests.
    pub idle_time: Duration,
    /// Open exchanges may continue for this long after SIGTERM.
    pub drain_time: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_bytes: 64 * 1024,
            header_fields: 100,
            uri_bytes: 8 * 1024,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_mins(2), // above the 90 s for which clients keep an idle connection at most
            drain_time: Duration::from_secs(20), // below the 30 s that Kubernetes and systemd leave
        }
    }
}
