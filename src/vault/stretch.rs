//! Stretches a passphrase with Argon2id (RFC 9106), which is the one step of Pixy that takes much memory at once.
//!
//! One passphrase is stretched at a time in the process, with at most [`Cost::CEILING`], whatever a file asks for.

use std::sync::Mutex;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::lock::lock;
use crate::memory::MemoryBudget;
use crate::secret::Secret;

/// What stretching a passphrase costs: memory in KiB, passes over it, lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

/// Held while a passphrase is stretched. The budget is where its memory is reserved.
static GATE: Mutex<Option<MemoryBudget>> = Mutex::new(None);

/// Reserves the memory for stretching passphrases in this budget from now on, in the whole process.
pub fn reserve_memory_in(budget: MemoryBudget) {
    *lock(&GATE) = Some(budget);
}

impl Cost {
    /// RFC 9106 §4, the second recommended choice: 64 MiB, three passes, four lanes.
    pub(super) const STRONG: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 };

    /// The most that a file may ask for.
    pub(super) const CEILING: Self = Self { memory_kib: 64 * 1024, passes: 10, lanes: 16 };

    /// Refuses a cost above the ceiling, or one that Argon2 does not define. `place` is where it was read.
    ///
    /// # Errors
    /// [`VaultError::StretchTooCostly`].
    pub(super) fn check(self, place: impl FnOnce() -> String) -> Result<(), VaultError> {
        let Self { memory_kib, passes, lanes } = self;
        let within = memory_kib <= Self::CEILING.memory_kib
            && passes <= Self::CEILING.passes
            && lanes <= Self::CEILING.lanes
            && Params::new(memory_kib, passes, lanes, Some(32)).is_ok();
        if within {
            return Ok(());
        }
        let cost = format!("{self}, but Pixy spends at most {}", Self::CEILING);
        Err(VaultError::StretchTooCostly { place: place(), cost })
    }

    /// Derives a key from a passphrase. Blocks while another one is stretched.
    ///
    /// # Errors
    /// [`VaultError::NoMemory`] if the memory is not free; [`VaultError::PassphraseTooLong`];
    /// [`VaultError::StretchTooCostly`].
    pub(super) fn stretch(self, passphrase: &Secret, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        self.check(|| "a passphrase".to_owned())?;
        let Self { memory_kib, passes, lanes } = self;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| VaultError::PassphraseTooLong)?;
        let gate = lock(&GATE);
        let bytes = params.block_count().saturating_mul(argon2::Block::SIZE);
        let _reservation = match &*gate {
            Some(budget) => Some(budget.reserve(bytes).ok_or(VaultError::NoMemory { bytes })?),
            None => None,
        };
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), salt, &mut *key)
            .map_err(|error| match error {
                argon2::Error::OutOfMemory => VaultError::NoMemory { bytes },
                _ => VaultError::PassphraseTooLong,
            })?;
        Ok(key)
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} KiB, {} passes and {} lanes", self.memory_kib, self.passes, self.lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_82_a_passphrase_is_stretched_within_the_budget() {
        let secret = Secret::new("horse".to_owned());
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let budget = MemoryBudget::new(64 * 1024);
        reserve_memory_in(budget.clone());
        cost.stretch(&secret, &[0; 16]).unwrap();
        assert_eq!(budget.reserved(), 0, "returned");
        let _other = budget.reserve(1).unwrap();
        let refused = cost.stretch(&secret, &[0; 16]).unwrap_err();
        assert!(matches!(refused, VaultError::NoMemory { bytes: 65_536 }), "{refused}");
        *lock(&GATE) = None;
    }

    #[test]
    fn attack_82_a_cost_above_the_ceiling_is_refused() {
        let secret = Secret::new("horse".to_owned());
        for (memory_kib, passes, lanes) in [
            (64 * 1024 + 1, 3, 4),
            (u32::MAX, 3, 4),
            (64, 11, 1),
            (64, u32::MAX, 1),
            (65_536, 1, 17),
            (8, 1, 0),
            (0, 0, 0),
        ] {
            let cost = Cost { memory_kib, passes, lanes };
            let refused = cost.stretch(&secret, &[0; 16]).unwrap_err();
            assert!(matches!(refused, VaultError::StretchTooCostly { .. }), "{cost}: {refused}");
        }
        Cost::STRONG.check(String::new).unwrap();
        Cost::CEILING.check(String::new).unwrap();
    }
}
