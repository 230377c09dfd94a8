//! A login whose configured origins are not those that it is bound to: it is sent nowhere until a person confirms.

use super::Lifecycle;
use crate::vault::VaultError;

impl Lifecycle {
    /// Whether the configuration sends the login to an origin that it is not bound to.
    pub(super) fn is_moved(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.moved(&self.configured.profile).is_some())
    }

    /// Binds a login that an earlier version stored, or whose shipped profile has moved, to the configured origins.
    pub(super) async fn bind(&mut self) {
        let profile = &self.configured.profile;
        let Some(bound) = self.record.as_ref().and_then(|record| record.bound(profile)) else { return };
        let (provider, api) = (&profile.provider, profile.api.base_url.as_str());
        tracing::info!(account = %self.name, provider, api, "the stored login is now bound to the configured origins");
        if let Err(error) = self.store(bound.clone()).await {
            tracing::warn!(account = %self.name, %error, "the origins of the login cannot be stored yet, Pixy retries");
            (self.record, self.binding_is_stored) = (Some(bound), false);
        }
    }

    /// Stores a binding that could not be stored before.
    pub(super) async fn store_binding(&mut self) {
        if !self.binding_is_stored
            && let Some(record) = self.record.clone()
        {
            let _ = self.store(record).await; // the next pass tries again
        }
    }

    /// Binds the login to the configured origins, because a person asked for it, and publishes it. `false` when they are not those
    /// that the person has `seen`.
    pub(in super::super) async fn confirm_moved(&mut self, seen: Option<&str>) -> Result<bool, VaultError> {
        self.require_served()?;
        let profile = &self.configured.profile;
        let Some(record) = &self.record else { return Ok(true) };
        let Some(sentence) = record.moved(profile) else { return Ok(true) };
        if seen.is_some_and(|seen| seen != sentence) {
            return Ok(false);
        }
        let (bound, api) = (record.rebound(profile), profile.api.base_url.as_str().to_owned());
        self.store(bound).await?;
        self.publish();
        tracing::info!(account = %self.name, api, "a person confirmed that the login moves to the configured origins");
        Ok(true)
    }
}
