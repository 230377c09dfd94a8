//! What a person does with a login: takes it up, and gives it up.

use std::sync::Arc;

use super::state::{self, Record, Standing};
use super::{Account, Login, RevocationOutcome, VaultError, random_fraction};

impl Account {
    /// Stores a login that a person has confirmed, then announces it. What it replaces is revoked after that. Goes on to
    /// its end even when the caller leaves.
    pub async fn adopt(self: &Arc<Self>, login: Login) -> Result<(), VaultError> {
        let account = Arc::clone(self);
        joined(tokio::spawn(async move { account.adopt_now(login).await })).await
    }

    /// Ends the login at the provider, then forgets it. Goes on to its end even when the caller leaves.
    pub async fn unlink(self: &Arc<Self>) -> Result<RevocationOutcome, VaultError> {
        let account = Arc::clone(self);
        joined(tokio::spawn(async move { account.unlink_now().await })).await
    }

    /// Ends a grant that was exchanged and never adopted. Whoever is told [`RevocationOutcome::Pending`] may try again.
    pub async fn discard(&self, login: &Login) -> RevocationOutcome {
        match self.owed(login) {
            Some(ended) => self.tell(&ended).await.0,
            None => RevocationOutcome::NotRevoked,
        }
    }

    async fn adopt_now(self: Arc<Self>, login: Login) -> Result<(), VaultError> {
        let mut inner = self.hold().await;
        Self::must_be_served(&inner)?;
        // Also past a record that did not open, and one that was removed: an older copy put back is noticed.
        inner.generation = self.services.vault.next_generation(&self.name).await?.saturating_sub(1);
        let replaced = inner.record.take();
        let wall = self.services.clock.wall();
        // What it replaces is owed to the provider from the very write that replaces it.
        let ended = replaced.iter().flat_map(|old| old.ended.iter().cloned().chain(self.owed(&old.login))).collect();
        // Higher than any serial before it: what an agent says of an old token never concerns the new one.
        let login = Login { serial: inner.generation + 1, ..login };
        let stored = self.store(&mut inner, Record { ended, ..Record::linked(login, wall) }).await;
        if let Err(error) = stored {
            inner.record = replaced;
            return Err(error);
        }
        (inner.failed_in_a_row, inner.held_until) = (0, None);
        inner.renewed_by = Arc::clone(&inner.follows.profile);
        self.ledger.forget_quota();
        self.publish(&mut inner);
        tracing::info!(account = %self.name, "linked");
        inner.tell_at = None;
        self.tell_when_due(&mut inner).await;
        self.wake.notify_one();
        Ok(())
    }

    async fn unlink_now(self: Arc<Self>) -> Result<RevocationOutcome, VaultError> {
        let mut inner = self.hold().await;
        Self::must_be_served(&inner)?;
        let Some(record) = inner.record.clone() else {
            // Nothing usable, but perhaps a record that does not open: forgetting it is what was asked.
            self.services.vault.remove(&self.name).await?;
            self.publish(&mut inner);
            return Ok(RevocationOutcome::Revoked);
        };
        // From here on no request gets the token, whatever the provider and the disk say.
        self.live.store(None);
        self.ledger.forget_quota();
        let wall = self.services.clock.wall();
        let (mut ended, own) = (record.ended.clone(), self.owed(&record.login));
        let (outcome, retry_after) = match &own {
            _ if record.is_being_revoked() => (RevocationOutcome::Pending, None), // a second time: its own is among them
            Some(own) => self.tell(own).await,
            None => (RevocationOutcome::NotRevoked, None),
        };
        if outcome == RevocationOutcome::Pending && !record.is_being_revoked() {
            ended.extend(own);
            inner.told_in_vain = 1;
            inner.tell_at = Some(self.services.clock.tick().after(state::backoff(1, retry_after, random_fraction())));
        }
        if ended.is_empty() {
            self.services.vault.remove(&self.name).await.map_err(not_removed)?;
            inner.record = None;
        } else {
            let standing = Standing::RevocationPending { since: wall };
            self.store(&mut inner, Record { standing, ended, ..record }).await.map_err(not_removed)?;
            self.wake.notify_one();
        }
        self.publish(&mut inner);
        tracing::info!(account = %self.name, revoked = ?outcome, "unlinked");
        Ok(outcome)
    }
}

fn not_removed(source: VaultError) -> VaultError {
    VaultError::NotRemoved { source: Box::new(source) }
}

/// Waits for a task that must not be cancelled with its caller.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()), // it is never aborted, so it panicked
    }
}
