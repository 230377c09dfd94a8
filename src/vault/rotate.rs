//! Key rotation while the vault is in use, as a list of steps: after an interruption between any two, every record opens.

use std::collections::VecDeque;

use super::error::VaultError;
use super::records::{Records, Replaced, State};
use super::seal::Header;
use crate::lock::lock;
use crate::name::AccountName;

/// The result of a key rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationReport {
    /// Whether a new key was made. `false` where the key file is read-only and lists several keys: then the records were sealed
    /// with its first, and the operator removes the others from the file.
    pub new_key: bool,
    /// The number of records that were sealed again.
    pub resealed: usize,
    /// Accounts whose record does not open and was not changed.
    pub untouched: Vec<AccountName>,
    /// The number of keys that are still needed, the new one included: 1 when the rotation is complete.
    pub keys: usize,
}

/// One step; after each, everything opens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Stores the new key durably, before it seals anything.
    NewKey,
    /// Seals one record with the new key; between these steps other operations run.
    Reseal(AccountName),
    /// Removes the keys that no record needs.
    ForgetOldKeys,
}

impl Records {
    pub(super) fn rotate(&self) -> Result<RotationReport, VaultError> {
        let _one_at_a_time = lock(&self.rotating);
        let mut report = RotationReport { new_key: false, resealed: 0, untouched: Vec::new(), keys: 0 };
        let mut steps = VecDeque::from([Step::NewKey]);
        while let Some(step) = steps.pop_front() {
            steps.extend(self.rotate_by(step, &mut report)?);
        }
        Ok(report)
    }

    /// Takes one step; returns those that follow from it.
    pub(super) fn rotate_by(&self, step: Step, report: &mut RotationReport) -> Result<Vec<Step>, VaultError> {
        let mut state = self.state();
        let mut following = Vec::new();
        match step {
            Step::NewKey => {
                match state.keys.add() {
                    Ok(()) => report.new_key = true,
                    // A read-only file (a mounted secret): its first key is the new one.
                    Err(VaultError::Io { .. }) if state.keys.len() > 1 => {}
                    Err(error) => return Err(error),
                }
                // Listed under the same lock: an account linked after this is sealed with the new key.
                following.extend(self.store.list()?.into_iter().map(Step::Reseal));
                following.push(Step::ForgetOldKeys);
            }
            Step::Reseal(account) => match self.stored(&state, &account) {
                Ok(Some((provider, stored))) => {
                    // With its generation, because the login is the same: an older copy is still refused when it is read.
                    let replaced = Replaced::Generation(stored.generation);
                    self.put(&state, replaced, &account, &provider, stored.generation, &stored.plaintext)?;
                    report.resealed += 1;
                }
                Ok(None) => {}
                Err(error) if error.is_unopenable_record() => report.untouched.push(account),
                Err(error) => return Err(error),
            },
            Step::ForgetOldKeys => {
                self.forget_old_keys(&mut state, report.new_key)?;
                report.keys = state.keys.len();
            }
        }
        Ok(following)
    }

    fn forget_old_keys(&self, state: &mut State, ours: bool) -> Result<(), VaultError> {
        let mut needed = Vec::new();
        for account in self.store.list()? {
            let Some(record) = self.store.read(&account)? else { continue };
            match Header::parse(&record).and_then(|header| Ok(header.key_among(state.keys.opening())?.id())) {
                Ok(id) => needed.push(id),
                // The key that it needs is unknown, and the file may be restored: all keys stay.
                Err(_) => return Ok(()),
            }
        }
        match state.keys.retain(|key| needed.contains(&key.id())) {
            Err(VaultError::Io { .. }) if !ours => Ok(()),
            done => done,
        }
    }
}
