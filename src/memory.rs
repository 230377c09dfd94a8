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
    /// What is reserved here is reserved there too.
    whole: Option<MemoryBudget>,
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
        Self::create(total, None)
    }

    /// A part of this budget: at most `total` bytes of it.
    #[must_use]
    pub fn part(&self, total: usize) -> Self {
        Self::create(total, Some(self.clone()))
    }

    fn create(total: usize, whole: Option<Self>) -> Self {
        Self(Arc::new(Bytes { total: AtomicUsize::new(total), reserved: AtomicUsize::new(0), whole }))
    }

    /// Changes the total. Reservations stay, also those above a lower total.
    pub fn resize(&self, total: usize) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// Reserves `bytes`, or nothing if fewer are free.
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// Reserves `bytes` also if fewer are free. The caller must see to it that as many are returned soon.
    pub fn reserve_beyond(&self, bytes: usize) -> Reservation {
        self.add(bytes);
        Reservation { budget: self.clone(), bytes }
    }

    /// Bytes that are reserved now.
    pub fn reserved(&self) -> usize {
        self.0.reserved.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let Bytes { total, reserved, whole } = &*self.0;
        let total = total.load(Ordering::Relaxed);
        let add = |reserved: usize| reserved.checked_add(bytes).filter(|sum| *sum <= total);
        if reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            return false;
        }
        let is_free = whole.as_ref().is_none_or(|whole| whole.take(bytes));
        if !is_free {
            reserved.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_free
    }

    fn add(&self, bytes: usize) {
        self.0.reserved.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.add(bytes);
        }
    }

    fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.0.reserved.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.release(bytes);
        }
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
        self.budget.release(bytes);
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

    #[test]
    fn a_part_is_limited_by_itself_and_by_the_whole() {
        let whole = MemoryBudget::new(10);
        let part = whole.part(6);
        assert!(part.reserve(7).is_none());
        let mut first = part.reserve(4).unwrap();
        let other = whole.reserve(5).unwrap();
        assert!(!first.grow(2), "the whole has one byte left");
        assert_eq!((part.reserved(), whole.reserved()), (4, 9));
        let beyond = part.reserve_beyond(100);
        assert_eq!((part.reserved(), whole.reserved()), (104, 109));
        drop((first, other, beyond));
        assert_eq!((part.reserved(), whole.reserved()), (0, 0));
    }
}
