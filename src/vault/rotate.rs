//! A new key while running, as a list of steps: stopped between any two, every record opens.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::error::VaultError;
use super::seal::Header;
use super::{Inner, State};
use crate::name::AccountName;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationReport {
    /// A new key was made. `false` where the key file is read-only and lists several keys: then records were sealed with its
    /// first, and removing the others from the file is left to whoever provides it.
    pub new_key: bool,
    /// How many records were sealed anew.
    pub resealed: usize,
    /// Accounts whose record does not open, and was left as it is.
    pub untouched: Vec<AccountName>,
    /// How many keys still open records, the sealing one included: 1 when all is done.
    pub keys: usize,
}

/// One step; each leaves everything readable.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// The new key is listed first, durably, before it seals anything.
    NewKey,
    /// One record; in between others may be read and written.
    Reseal(AccountName),
    /// Keys that no record needs any more.
    ForgetOldKeys,
}

impl Inner {
    pub(super) fn rotate(&self) -> Result<RotationReport, VaultError> {
        let _one_at_a_time = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = RotationReport { new_key: false, resealed: 0, untouched: Vec::new(), keys: 0 };
        let mut steps = VecDeque::from([Step::NewKey]);
        while let Some(step) = steps.pop_front() {
            steps.extend(self.rotate_by(step, &mut report)?);
        }
        Ok(report)
    }

    /// Takes one step; gives those that follow from it.
    pub(super) fn rotate_by(&self, step: Step, report: &mut RotationReport) -> Result<Vec<Step>, VaultError> {
        let mut state = self.state();
        let mut following = Vec::new();
        match step {
            Step::NewKey => {
                match state.keys.add() {
                    Ok(()) => report.new_key = true,
                    // The file comes from elsewhere (a mounted secret) and its first key is the new one.
                    Err(VaultError::Io { .. }) if state.keys.len() > 1 => {}
                    Err(error) => return Err(error),
                }
                // Listed only now, under the same lock: an account linked from here on is sealed with the new key.
                following.extend(self.store.list()?.into_iter().map(Step::Reseal));
                following.push(Step::ForgetOldKeys);
            }
            Step::Reseal(account) => match self.stored(&state, &account) {
                Ok(Some((provider, stored))) => {
                    // The generation stays: the login is the same. So does a copy that is too old; reading it still asks.
                    self.put(&state, &account, &provider, stored.generation, &stored.plaintext)?;
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
                // Which key it needs cannot be told: a person may mend the file, so all stay.
                Err(_) => return Ok(()),
            }
        }
        match state.keys.retain(|key| needed.contains(&key.id())) {
            Err(VaultError::Io { .. }) if !ours => Ok(()),
            done => done,
        }
    }
}
