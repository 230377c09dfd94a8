//! Idle HTTP/1.1 connections.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::h1::Http1;

/// The idle connections of one origin; the most recently used is the last.
#[derive(Default)]
pub(super) struct IdleConnections {
    /// With the time when each expires.
    connections: Vec<(Http1, Instant)>,
    /// A task polls them.
    is_polled: bool,
}

impl IdleConnections {
    /// Adds a connection. `true`: the caller must start a task that calls [`Self::poll`].
    pub(super) fn put(&mut self, connection: Http1) -> bool {
        let expires = Instant::now() + connection.max_idle;
        self.connections.push((connection, expires));
        !std::mem::replace(&mut self.is_polled, true)
    }

    /// The most recently used connection: the others can expire.
    pub(super) fn take(&mut self) -> Option<Http1> {
        while let Some((connection, expires)) = self.connections.pop() {
            // The polling task may be late.
            if Instant::now() < expires {
                return Some(connection);
            }
            connection.close();
        }
        None
    }

    /// Removes connections that the server closed, and closes expired ones; `Ready` when none is left, and the task ends.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connections.retain_mut(|(connection, _)| connection.poll_closed(context).is_pending());
        let now = Instant::now();
        for (connection, _) in self.connections.extract_if(.., |(_, expires)| *expires <= now) {
            connection.close();
        }
        self.is_polled = !self.connections.is_empty();
        if self.is_polled { Poll::Pending } else { Poll::Ready(()) }
    }
}
