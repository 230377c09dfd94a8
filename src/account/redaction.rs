//! The secrets of an account that no response may contain.

use std::sync::Arc;

use super::login::{Login, RefreshCredential};
use super::state::Record;
use crate::scrub::SecretPatterns;
use crate::secret::Secret;

/// The current secrets and the previous ones: a response that is in progress during a refresh may contain the old token, and so
/// may an upstream's cache. Kept in memory alone: after a restart only the current ones are known.
#[derive(Default)]
pub struct Redactions {
    access: Pair,
    refresh_credential: Pair,
    withheld_access: Pair,
    withheld_refresh: Pair,
    patterns: Option<Arc<SecretPatterns>>,
}

#[derive(Default)]
struct Pair {
    current: Option<Secret>,
    previous: Option<Secret>,
}

impl Redactions {
    /// What to search for while `record` is the current one; built again only when a secret has changed.
    pub fn patterns(&mut self, record: &Record) -> Arc<SecretPatterns> {
        let (login, withheld) = (&record.login, record.withheld.as_deref());
        let mut changed = self.access.replace(Some(&login.access_token));
        changed |= self.refresh_credential.replace(credential(login));
        changed |= self.withheld_access.replace(withheld.map(|withheld| &withheld.access_token));
        changed |= self.withheld_refresh.replace(withheld.and_then(credential));
        match &self.patterns {
            Some(patterns) if !changed => Arc::clone(patterns),
            _ => {
                let pairs = [&self.access, &self.refresh_credential, &self.withheld_access, &self.withheld_refresh];
                let secrets = pairs.into_iter().flat_map(Pair::both);
                let patterns = Arc::new(SecretPatterns::new(secrets));
                self.patterns = Some(Arc::clone(&patterns));
                patterns
            }
        }
    }
}

fn credential(login: &Login) -> Option<&Secret> {
    match &login.refresh_credential {
        RefreshCredential::None => None,
        RefreshCredential::RefreshToken { token } => Some(token),
        RefreshCredential::ClientSecret { secret } => Some(secret),
    }
}

impl Pair {
    /// Returns whether the secret changed.
    fn replace(&mut self, secret: Option<&Secret>) -> bool {
        let same = match (&self.current, secret) {
            (Some(current), Some(secret)) => current.matches(secret.expose()),
            (None, None) => true,
            _ => false,
        };
        if !same && let Some(replaced) = std::mem::replace(&mut self.current, secret.cloned()) {
            self.previous = Some(replaced);
        }
        !same
    }

    fn both(&self) -> impl Iterator<Item = &Secret> {
        self.current.iter().chain(&self.previous)
    }
}
