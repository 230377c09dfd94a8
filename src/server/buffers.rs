//! What one connection keeps in memory beyond its fixed part (`capacity`), reserved before it is kept.

use super::admission::ConnectionLimit;
use crate::memory::Reservation;

/// The reservations of one connection. Released when it ends.
#[derive(Debug)]
pub(in crate::server) struct Buffers {
    limit: ConnectionLimit,
    /// For the longest head so far: hyper's buffer does not shrink while the connection is open.
    head: Option<Reservation>,
    /// For a response that the client does not read.
    unread: Option<Reservation>,
}

/// Bytes of a head that the fixed part covers.
const FREE_HEAD: usize = 8 * 1024;

/// Bytes for each further byte of a head: it is in the buffers of `Strict`, of hyper and of the upstream's connection, whose
/// capacities double, and in the fields of the request.
const HEAD_COPIES: usize = 5;

/// Bytes for a response that the client does not read: what hyper has queued (`ExchangeBody`), the next piece, and what has arrived
/// from the upstream and waits: a window of HTTP/2 or the buffers of HTTP/1.1 and TLS, 64 KiB and 32 KiB.
const UNREAD: usize = 160 * 1024;

impl Buffers {
    /// For a connection that counts in `limit`.
    pub(in crate::server) fn new(limit: ConnectionLimit) -> Self {
        Self { limit, head: None, unread: None }
    }

    /// Reserves what a head of so many bytes needs. Returns whether it was free.
    #[must_use]
    pub(in crate::server) fn reserve_head(&mut self, bytes: usize) -> bool {
        let needed = HEAD_COPIES * bytes.saturating_sub(FREE_HEAD);
        let reserved = self.head.as_ref().map_or(0, Reservation::bytes);
        if needed <= reserved {
            return true;
        }
        if let Some(head) = &mut self.head {
            return head.grow(needed - reserved);
        }
        self.head = self.limit.variable_memory().reserve(needed);
        self.head.is_some()
    }

    /// The client does not read its response: reserves what waits for it. Without room the slowest reader is closed, and if that is
    /// this client, or there is none, returns `false`: this connection must be closed.
    #[must_use]
    pub(in crate::server) fn reserve_unread(&mut self) -> bool {
        if self.unread.is_none() {
            let memory = self.limit.variable_memory();
            self.unread = memory.reserve(UNREAD);
            if self.unread.is_none() && self.limit.evict_slowest_reader() {
                self.unread = Some(memory.reserve_beyond(UNREAD)); // the other's is returned within moments
            }
        }
        self.unread.is_some()
    }

    /// The client reads again.
    pub(in crate::server) fn release_unread(&mut self) {
        self.unread = None;
    }
}
