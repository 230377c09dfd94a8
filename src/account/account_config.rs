//! The configuration of one account. It may change while the account is served.

use std::sync::Arc;

use crate::oauth::profile::Profile;

/// The configuration of one account.
pub(super) struct Configured {
    pub(super) profile: Arc<Profile>,
    pub(super) terms_accepted: bool,
    /// Whether the account's name is in the configuration.
    pub(super) served: bool,
}

impl Configured {
    /// A profile equal to the one before stays the same object, because tokens are published under it.
    pub(super) fn with(&self, profile: Arc<Profile>, terms_accepted: bool) -> Self {
        let profile = if *self.profile == *profile { Arc::clone(&self.profile) } else { profile };
        Self { profile, terms_accepted, served: true }
    }

    pub(super) fn removed(&self) -> Self {
        Self { profile: Arc::clone(&self.profile), terms_accepted: self.terms_accepted, served: false }
    }

    /// Whether nothing distinguishes the two.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.profile, &other.profile)
            && self.terms_accepted == other.terms_accepted
            && self.served == other.served
    }
}
