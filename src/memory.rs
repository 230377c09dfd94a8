//! The budget of bytes that clients may occupy, shared by everything that keeps bytes for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that reservations share. Cheap to clone; clones share the bytes.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Bytes>);

#[derive(Debug)]
struct Bytes {
    total: AtomicUsize,
    reserved: AtomicUsize,
}

/// Bytes of a [`MemoryBudget`], returned when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `total` bytes.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Bytes { total: AtomicUsize::new(total), reserved: AtomicUsize::new(0) }))
    }

    /// Changes the total. Reservations stay, also those above a lower total.
    pub fn resize(&self, total: usize) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Reserves `bytes`, or nothing if fewer are free.
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> usize {
        self.0.reserved.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let total = self.0.total.load(Ordering::Relaxed);
        let add = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= total);
        self.0.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

impl Reservation {
    /// Reserves `bytes` more. Returns whether they were free.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let is_free = self.budget.take(bytes);
        if is_free {
            self.bytes += bytes;
        }
        is_free
    }

    /// Returns `bytes`, at most all.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.0.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_the_total_and_are_returned() {
        let budget = MemoryBudget::new(10);
        let mut first = budget.reserve(6).unwrap();
        assert!(budget.reserve(5).is_none());
        assert!(first.grow(4) && !first.grow(1));
        first.shrink(8);
        assert_eq!((first.bytes(), budget.reserved()), (2, 2));
        budget.resize(1);
        assert!(budget.reserve(1).is_none());
        drop(first);
        assert_eq!(budget.reserved(), 0);
        assert!(budget.reserve(usize::MAX).is_none());
    }
}
