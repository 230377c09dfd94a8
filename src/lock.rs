//! Mutexes of which a panic elsewhere is no reason to fail.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also where a thread panicked while it held the lock.
///
/// Every mutex of this crate guards plain values, which each critical section leaves consistent at every step. To pass the
/// panic on would make one failed request fail all later ones.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
