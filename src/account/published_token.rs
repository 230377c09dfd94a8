//! What requests and the page read without waiting for the lifecycle, which alone writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::watch;

use super::login::Login;
use super::refresh_timing::Timing;
use super::refusals::Refusals;
use super::view::{State, View};
use crate::clock::{Clock, Tick};
use crate::oauth::profile::Profile;
use crate::scrub::SecretPatterns;
use crate::secret::Secret;

/// The published token and view of one account.
pub(super) struct Published {
    /// Durable, and the only token that a request may get.
    bearer: ArcSwapOption<Bearer>,
    shown: watch::Sender<Shown>,
    changes: watch::Sender<u64>,
    /// The serial of the token whose acceptance by the upstream is to be reported; [`NOT_AWAITED`] for none.
    awaited: AtomicU64,
}

/// What is known of the account.
pub(super) struct Shown {
    pub(super) view: View,
    /// The profile that the view is of: after a reload the one before, until the account's task has applied the new one.
    pub(super) profile: Arc<Profile>,
}
/// No token has this serial.
const NOT_AWAITED: u64 = u64::MAX;

/// A token that may be sent now.
#[derive(Clone)]
pub struct Bearer {
    profile: Arc<Profile>,
    token: Secret,
    serial: u64,
    usable_until: Option<Tick>,
    claim_headers: Vec<(String, String)>,
    patterns: Arc<SecretPatterns>,
}

impl Published {
    pub(super) fn new(profile: Arc<Profile>, changes: watch::Sender<u64>) -> Self {
        let shown = watch::Sender::new(Shown { view: View::empty(State::Starting), profile });
        Self { bearer: ArcSwapOption::empty(), shown, changes, awaited: AtomicU64::new(NOT_AWAITED) }
    }

    /// The view is of `profile` from here on. Wakes the requests that wait for that.
    pub(super) fn set_profile(&self, profile: &Arc<Profile>) {
        self.shown.send_if_modified(|shown| {
            let differs = !Arc::ptr_eq(&shown.profile, profile);
            shown.profile = Arc::clone(profile);
            differs
        });
    }

    /// The token, if it has not expired and was published under `profile`.
    pub(super) fn usable(&self, profile: &Arc<Profile>, clock: &Clock) -> Option<Arc<Bearer>> {
        let published: Guard<_> = self.bearer.load();
        let bearer = published.as_ref().filter(|bearer| Arc::ptr_eq(&bearer.profile, profile))?;
        match bearer.usable_until {
            Some(until) if clock.tick() >= until => None,
            _ => Some(Arc::clone(bearer)),
        }
    }

    /// The serial of the published token, expired or not.
    pub(super) fn serial(&self) -> Option<u64> {
        self.bearer.load().as_ref().map(|bearer| bearer.serial)
    }

    pub(super) fn view(&self) -> View {
        self.shown.borrow().view.clone()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Shown> {
        self.shown.subscribe()
    }

    pub(super) fn set_bearer(&self, bearer: Bearer) {
        self.bearer.store(Some(Arc::new(bearer)));
    }

    pub(super) fn clear_bearer(&self) {
        self.bearer.store(None);
    }

    /// Publishes the same token for requests that were checked against `profile`.
    pub(super) fn change_profile(&self, profile: &Arc<Profile>) {
        if let Some(bearer) = self.bearer.load_full() {
            self.set_bearer(Bearer { profile: Arc::clone(profile), ..Bearer::clone(&bearer) });
        }
        self.set_profile(profile);
        self.update_view(|_| {});
    }

    /// Shows what is known of refusals of the token with this serial.
    pub(super) fn show_refusals(&self, refusals: &Refusals, serial: u64) {
        let awaited = if refusals.awaits_acceptance(serial) { serial } else { NOT_AWAITED };
        self.awaited.store(awaited, Ordering::Relaxed);
        let sentence = refusals.sentence(serial);
        if self.shown.borrow().view.refusal != sentence {
            self.update_view(|view| view.refusal = sentence);
        }
    }

    /// Whether the acceptance of the token with this serial is to be reported; true once.
    pub(super) fn take_awaited(&self, serial: u64) -> bool {
        self.awaited.load(Ordering::Relaxed) == serial && self.awaited.swap(NOT_AWAITED, Ordering::Relaxed) == serial
    }

    /// Changes the view and notifies its watchers.
    pub(super) fn update_view(&self, change: impl FnOnce(&mut View)) {
        self.shown.send_modify(|shown| change(&mut shown.view));
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Bearer {
    pub(super) fn new(profile: Arc<Profile>, login: &Login, timing: Timing, patterns: Arc<SecretPatterns>) -> Self {
        Self {
            profile,
            token: login.access_token.clone(),
            serial: login.serial,
            usable_until: timing.usable_until,
            claim_headers: login.claim_headers.clone(),
            patterns,
        }
    }

    /// The token; for `proxy::attach` alone.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The profile that names where the token may be sent.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Secrets that no response to a request with this token may contain: the account's current and previous ones.
    pub fn patterns(&self) -> &Arc<SecretPatterns> {
        &self.patterns
    }

    /// Headers that the profile copies from the login's claims.
    pub fn claim_headers(&self) -> &[(String, String)] {
        &self.claim_headers
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}
