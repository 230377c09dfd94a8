//! Ends grants at the provider that were given up here.

use rand::random as jitter; // 0..1; not a secret

use super::Lifecycle;
use crate::account::pending_revocation::PendingRevocation;
use crate::account::revocation_retry::{self, RevocationOutcome};
use crate::account::state::Record;
use crate::vault::VaultError;

impl Lifecycle {
    /// Revokes the grants of `record`; those that stay pending are added to `pending`.
    pub(super) async fn revoke_own(
        &mut self,
        record: &Record,
        pending: &mut Vec<PendingRevocation>,
    ) -> RevocationOutcome {
        let mut result = RevocationOutcome::NotRevoked;
        for own in record.own_revocations(&self.configured.profile, self.wall()) {
            let (outcome, retry_after) = revocation_retry::revoke(&self.services, &own).await;
            if outcome == RevocationOutcome::Pending {
                pending.push(own);
                self.revocations.failed_first(retry_after, jitter(), self.tick());
            }
            result = if result == RevocationOutcome::Pending { result } else { outcome };
        }
        result
    }

    pub(in super::super) async fn revoke_if_due(&mut self) {
        if !self.revocations.is_due(self.tick()) {
            return;
        }
        if let Err(error) = self.revoke_pending().await {
            tracing::error!(account = %self.name, %error, "the result of a revocation cannot be stored");
            self.revocations.store_failed(jitter(), self.tick());
        }
    }

    /// Asks the provider to revoke every pending grant, and removes from the record those that it revoked or refused.
    async fn revoke_pending(&mut self) -> Result<(), VaultError> {
        let has_pending = |record: &Record| !record.pending_revocations.is_empty() || record.is_being_revoked();
        let Some(record) = self.record.clone().filter(has_pending) else {
            self.revocations.succeeded();
            return Ok(());
        };
        let wall = self.wall();
        let (mut left, mut retry_after) = (record.pending_revocations.clone(), None);
        for pending in &record.pending_revocations {
            let (outcome, asked) = revocation_retry::revoke(&self.services, pending).await;
            let _ = left.remove(0);
            if outcome == RevocationOutcome::Pending && !pending.is_given_up(wall) {
                // The provider is not asked about the others either; at the next try they come first.
                retry_after = asked;
                left.push(pending.clone());
                break;
            }
        }
        if left.is_empty() {
            self.revocations.succeeded();
        } else {
            self.revocations.failed(retry_after, jitter(), self.tick());
        }
        if left.is_empty() && record.is_being_revoked() {
            self.services.vault.remove(&self.name).await?;
            self.record = None;
        } else if left.len() < record.pending_revocations.len() {
            self.store(Record { pending_revocations: left, ..record }).await?;
        }
        Ok(())
    }
}
