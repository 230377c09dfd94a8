//! Admission control: how many connections are open at once, and which one is evicted for a newcomer.
//!
//! The number of connections is limited (`limits.connections`), and each reserves a fixed part of the process's memory. A client
//! that opens all of them and then hardly speaks (slow loris, slow bodies, slow readers; attack 40) would exclude all other
//! clients indefinitely, each of its connections within every time limit. So when a connection arrives and no permit is free,
//! **the connection that has been stalled longest by its own client is evicted**. One that waits for an upstream, for minutes in
//! the case of a slow model, is never evicted. If none can be evicted, the newcomer waits.
//!
//! - The line is first come, first served: one newcomer for each listener, and behind it the kernel's accept queue, which is
//!   bounded. So the work for a newcomer does not depend on how many wait.
//! - A short stall is not enough: a new connection has `FIRST_REQUEST_GRACE` for its first request, and a transfer may pause for
//!   `STALL_GRACE`. While newcomers have waited without a break for `PRESSURE_TIME` it is `PRESSED_GRACE`, so that a flood of ten
//!   times the permits passes within a second. Pauses add up, and only bytes cancel them (`STALL_PER_BYTE`): a trickle is not
//!   enough. On surfaces without long transfers every grace is short ([`Transfers`]).
//! - While a newcomer waits, connections are closed after the response to their current request.
//! - Among idle connections, the one that has been idle longest is evicted first, as if its idle timeout had passed: HTTP lets
//!   a server close an idle connection at any time (RFC 9112 §9.5), and clients open the next one.
//! - There are no quotas by peer address: beside a sidecar, every peer is 127.0.0.1. Agents with keys have shares
//!   (`proxy::agent`), which are checked once the head of a request is read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::stall::{Grace, StallTracker};
use crate::lock::lock;
use crate::memory::{MemoryBudget, Reservation};

/// While no permit is free: eviction retry interval, and the shortest time between two scans of all connections.
const EVICTION_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Newcomers that have waited without a break for so long are a flood.
const PRESSURE_TIME: Duration = Duration::from_millis(100);

/// A longer time without a newcomer that waits is a break.
const PRESSURE_BREAK: Duration = Duration::from_millis(100);

/// How many connections several listeners may have open together. Cheap to clone; clones share the limit.
#[derive(Debug, Clone)]
pub struct ConnectionLimit(Arc<Shared>);

/// The memory that the connections of a [`ConnectionLimit`] may use.
#[derive(Debug, Clone)]
pub struct ConnectionMemory {
    /// Each connection reserves its fixed part here.
    pub fixed: MemoryBudget,
    /// The fixed part, in bytes.
    pub per_connection: usize,
    /// For what a connection keeps beyond the fixed part.
    pub variable: MemoryBudget,
}

/// Whether a surface has long transfers, whose pauses are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfers {
    /// A request or its response may take minutes.
    Long,
    /// Requests and responses are small: a client that pauses can be evicted at once.
    Short,
}

#[derive(Debug)]
struct Shared {
    permits: Arc<Semaphore>,
    /// Newcomers that wait for a permit.
    waiting: AtomicUsize,
    max: AtomicUsize,
    per_connection: AtomicUsize,
    memory: ConnectionMemory,
    connections: Mutex<Connections>,
}

#[derive(Debug)]
struct Connections {
    open: HashMap<u64, Arc<StallTracker>>,
    next_id: u64,
    /// Permits in use beyond `max`, after `max` was lowered. Each is discarded when its connection ends.
    surplus: usize,
    evictor: Evictor,
}

/// Finds the connections to evict. One scan serves many newcomers: what it finds is kept in order.
#[derive(Debug)]
struct Evictor {
    transfers: Transfers,
    /// The longest-stalled last.
    candidates: Vec<Arc<StallTracker>>,
    scanned: Option<Instant>,
    /// The first and the last moment at which a newcomer waited, without a break.
    waited: Option<(Instant, Instant)>,
}

/// Permission for one open connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limit: ConnectionLimit,
    id: u64,
    stall: Arc<StallTracker>,
    semaphore: Option<OwnedSemaphorePermit>,
    _memory: Reservation,
}

/// Counts a newcomer that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl ConnectionMemory {
    /// Memory without a bound, for surfaces of which few connections are allowed.
    pub fn unbounded() -> Self {
        let unbounded = MemoryBudget::new(usize::MAX);
        Self { fixed: unbounded.clone(), per_connection: 0, variable: unbounded }
    }
}

impl ConnectionLimit {
    /// Allows `max` open connections, in memory without a bound.
    pub fn new(max: usize) -> Self {
        Self::with_memory(max, Transfers::Long, ConnectionMemory::unbounded())
    }

    /// Allows `max` open connections, as far as there is memory.
    pub fn with_memory(max: usize, transfers: Transfers, memory: ConnectionMemory) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let evictor = Evictor { transfers, candidates: Vec::new(), scanned: None, waited: None };
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(max)),
            waiting: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            per_connection: AtomicUsize::new(memory.per_connection),
            memory,
            connections: Mutex::new(Connections { open: HashMap::new(), next_id: 0, surplus: 0, evictor }),
        }))
    }

    /// Allows `max` open connections from now on, each with a fixed part of `per_connection` bytes. Never evicts; newcomers queue, or evict the longest-stalled connection, until
    /// there are fewer.
    pub fn resize(&self, max: usize, per_connection: usize) {
        self.0.per_connection.store(per_connection, Ordering::Relaxed);
        let max = max.min(Semaphore::MAX_PERMITS);
        let mut connections = lock(&self.0.connections);
        let before = self.0.max.swap(max, Ordering::Relaxed);
        if max < before {
            let fewer = before - max;
            connections.surplus += fewer - self.0.permits.forget_permits(fewer);
        } else {
            let more = max - before;
            let kept = more.min(connections.surplus);
            connections.surplus -= kept;
            self.0.permits.add_permits(more - kept);
        }
    }

    /// Whether a newcomer waits for a permit.
    pub fn is_contended(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// How many connections may be open.
    pub fn max(&self) -> usize {
        self.0.max.load(Ordering::Relaxed)
    }

    /// The memory for what a connection keeps beyond its fixed part.
    pub(super) fn variable_memory(&self) -> &MemoryBudget {
        &self.0.memory.variable
    }

    fn try_acquire(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok()?;
        let memory = self.reserve()?;
        Some(self.register(permit, memory))
    }

    fn reserve(&self) -> Option<Reservation> {
        self.0.memory.fixed.reserve(self.0.per_connection.load(Ordering::Relaxed))
    }

    /// Waits for a permit, first come, first served, and evicts stalled connections one by one until there is one.
    pub(super) async fn acquire(&self) -> Permit {
        if let Some(permit) = self.try_acquire() {
            return permit;
        }
        let _waiting = Waiting::new(&self.0.waiting);
        let permit = async {
            match Arc::clone(&self.0.permits).acquire_owned().await {
                Ok(permit) => permit,
                Err(_) => std::future::pending().await, // cannot happen: the semaphore is never closed
            }
        };
        let permit = self.evicting_until(permit).await;
        let memory = async {
            loop {
                if let Some(memory) = self.reserve() {
                    return memory;
                }
                tokio::time::sleep(EVICTION_RETRY_INTERVAL).await;
            }
        };
        let memory = self.evicting_until(memory).await;
        self.register(permit, memory)
    }

    /// Evicts stalled connections one by one until `awaited` resolves.
    async fn evicting_until<T>(&self, awaited: impl Future<Output = T>) -> T {
        tokio::pin!(awaited);
        loop {
            tokio::select! {
                biased;
                got = &mut awaited => return got,
                () = async {
                    lock(&self.0.connections).evict_for_newcomer();
                    tokio::time::sleep(EVICTION_RETRY_INTERVAL).await;
                } => {}
            }
        }
    }

    fn register(&self, permit: OwnedSemaphorePermit, memory: Reservation) -> Permit {
        let stall = Arc::new(StallTracker::new());
        let mut connections = lock(&self.0.connections);
        let id = connections.next_id;
        connections.next_id += 1;
        connections.open.insert(id, Arc::clone(&stall));
        Permit { limit: self.clone(), id, stall, semaphore: Some(permit), _memory: memory }
    }

    /// Requests the eviction of the connection whose client has not read its response for longest. Returns whether there is one.
    pub(super) fn evict_slowest_reader(&self) -> bool {
        let now = Instant::now();
        let connections = lock(&self.0.connections);
        let readers = connections.open.values().filter(|stall| !stall.eviction_requested());
        let slowest = readers.filter_map(|stall| Some((stall.unread_since(now)?, stall))).min_by_key(|(at, _)| *at);
        slowest.inspect(|(_, stall)| stall.request_eviction(Grace::Pressed)).is_some()
    }
}

impl Connections {
    /// Requests the eviction of the connection that has been stalled longest.
    fn evict_for_newcomer(&mut self) {
        let now = Instant::now();
        let grace = self.evictor.grace(now);
        if self.evictor.evict_next(now, grace)
            || self.evictor.scanned.is_some_and(|at| now - at < EVICTION_RETRY_INTERVAL)
        {
            return;
        }
        let waiting = self.open.values().filter(|stall| !stall.eviction_requested());
        let mut found: Vec<_> =
            waiting.filter_map(|stall| Some((stall.evictable_since(now, grace)?, Arc::clone(stall)))).collect();
        found.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        self.evictor.candidates.clear();
        self.evictor.candidates.extend(found.into_iter().map(|(_, stall)| stall));
        self.evictor.scanned = Some(now);
        self.evictor.evict_next(now, grace);
    }
}

impl Evictor {
    /// The grace that applies now, when a newcomer waits.
    fn grace(&mut self, now: Instant) -> Grace {
        if self.transfers == Transfers::Short {
            return Grace::Short;
        }
        let since = self.waited.filter(|(_, last)| now - *last < PRESSURE_BREAK).map_or(now, |(since, _)| since);
        self.waited = Some((since, now));
        if now - since < PRESSURE_TIME { Grace::Usual } else { Grace::Pressed }
    }

    /// Requests the eviction of the next candidate that is still stalled. Returns whether there is one.
    fn evict_next(&mut self, now: Instant, grace: Grace) -> bool {
        while let Some(stall) = self.candidates.pop() {
            if !stall.eviction_requested() && stall.evictable_since(now, grace).is_some() {
                stall.request_eviction(grace);
                return true;
            }
        }
        false
    }
}

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Permit {
    /// Records the stalls of the connection that this permit is for.
    pub(super) fn stall(&self) -> &Arc<StallTracker> {
        &self.stall
    }

    /// The limit that this permit is of.
    pub(super) fn limit(&self) -> &ConnectionLimit {
        &self.limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.stall.request_eviction(Grace::Usual); // no longer a candidate
        let mut connections = lock(&self.limit.0.connections);
        connections.open.remove(&self.id);
        // Returned while `connections` is locked: `resize`, on another thread, must find each permit either used or free.
        let permit = self.semaphore.take();
        if connections.surplus > 0
            && let Some(permit) = permit
        {
            connections.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
