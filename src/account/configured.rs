//! What the configuration says of an account. It may change while the account is served; its login is not touched by that.
//!
//! There is one [`Account`] a name for as long as Pixy runs, also while its name is out of the configuration: so whoever writes
//! its record is one task at any time. What changed is taken up under the account's lock, so a refresh that is under way ends
//! as it began.

use std::sync::Arc;

use tokio::sync::MutexGuard;

use super::{Account, Bearer, Inner, State, View};
use crate::oauth::profile::Profile;
use crate::vault::VaultError;

/// What the configuration says of an account.
pub(super) struct Configured {
    pub(super) profile: Arc<Profile>,
    pub(super) terms_accepted: bool,
    /// Its name is in the configuration.
    pub(super) served: bool,
}

impl Account {
    /// Its provider, as the configuration has it now. What must hold for a whole request is taken once.
    pub fn profile(&self) -> Arc<Profile> {
        Arc::clone(&self.configured.load().profile)
    }

    /// Whether it may be linked at all: the provider's terms are open or accepted.
    pub fn terms_accepted(&self) -> bool {
        self.configured.load().terms_accepted
    }

    /// Serves it from now on by this profile, which is of the same provider.
    pub(super) fn configure(&self, profile: Arc<Profile>, terms_accepted: bool) {
        let now = self.configured.load();
        // The same one stays, for what was published under it stays good.
        let same = *now.profile == *profile;
        if same && now.served && now.terms_accepted == terms_accepted {
            return;
        }
        let profile = if same { Arc::clone(&now.profile) } else { profile };
        self.configured.store(Arc::new(Configured { profile, terms_accepted, served: true }));
        self.wake.notify_one();
    }

    /// It is not served any more; its record stays as it is.
    pub(super) fn put_aside(&self) {
        let now = self.configured.load();
        let (profile, terms_accepted) = (Arc::clone(&now.profile), now.terms_accepted);
        self.configured.store(Arc::new(Configured { profile, terms_accepted, served: false }));
        self.wake.notify_one();
    }

    /// Every change begins here: what is configured now is taken up first.
    pub(super) async fn hold(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().await;
        let now = self.configured.load_full();
        let before = std::mem::replace(&mut inner.follows, Arc::clone(&now));
        match (before.served, now.served) {
            (true, false) => self.let_go(&mut inner),
            (false, true) => self.take_up(&mut inner).await,
            (true, true) if !Arc::ptr_eq(&before.profile, &now.profile) => self.publish_under(&now.profile),
            (true, true) | (false, false) => {}
        }
        inner
    }

    /// For what a person asks of the login: an account that is not served has none.
    pub(super) fn must_be_served(inner: &Inner) -> Result<(), VaultError> {
        if inner.follows.served { Ok(()) } else { Err(VaultError::NotConfigured) }
    }

    /// Memory forgets the login; the vault keeps it.
    fn let_go(&self, inner: &mut Inner) {
        (inner.record, inner.timing, inner.refresh_at, inner.tell_at) = (None, None, None, None);
        self.live.store(None);
        self.show(|view| *view = View::empty(State::Unlinked));
    }

    /// The same token, for requests that were checked against the new profile.
    fn publish_under(&self, profile: &Arc<Profile>) {
        if let Some(bearer) = self.live.load_full() {
            self.live.store(Some(Arc::new(Bearer { profile: Arc::clone(profile), ..Bearer::clone(&bearer) })));
        }
        self.show(|_| {}); // whoever waits for a token looks again
    }
}

impl Bearer {
    /// The profile that names where it may be sent.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }
}
