//! HTTP/1.1 connections that nobody uses, and the task that looks after them.

use std::future::poll_fn;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::h1::Http1;
use super::pool::Origin;

/// Those of one origin; the last used is the last.
#[derive(Default)]
pub(super) struct Idle {
    /// With the time until when it may lie here.
    connections: Vec<(Http1, Instant)>,
    /// Somebody looks after them.
    kept: bool,
}

/// How often the keeper looks. From then on it hears at once when the server closes one; before, whoever takes it finds out.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Idle {
    /// `true`: somebody has to look after them from now on.
    pub(super) fn put(&mut self, connection: Http1) -> bool {
        let until = Instant::now() + connection.keep();
        self.connections.push((connection, until));
        !std::mem::replace(&mut self.kept, true)
    }

    /// The one that was used last: the others may rest until they are too old.
    pub(super) fn take(&mut self) -> Option<Http1> {
        while let Some((connection, until)) = self.connections.pop() {
            // Who looks after them may be late.
            if Instant::now() < until {
                return Some(connection);
            }
            connection.say_goodbye();
        }
        None
    }

    /// Lets go of those that have ended or lain here for too long; `Ready` when none is left, and nobody looks after them.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.connections.retain_mut(|(connection, _)| connection.poll_ended(context).is_pending());
        let now = Instant::now();
        for (connection, _) in self.connections.extract_if(.., |(_, until)| *until <= now) {
            connection.say_goodbye();
        }
        self.kept = !self.connections.is_empty();
        if self.kept { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Looks after them for as long as there are some.
pub(super) async fn keep(origin: Weak<Origin>) {
    loop {
        let look = poll_fn(|context| origin.upgrade().map_or(Poll::Ready(()), |origin| origin.poll_idle(context)));
        if tokio::time::timeout(LOOK_EVERY, look).await.is_ok() {
            return;
        }
    }
}
