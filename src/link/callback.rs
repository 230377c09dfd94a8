//! A loopback redirect that comes back by itself (RFC 8252 §7.3).

use std::sync::Arc;

use super::attempt::{Attempt, Stage};
use super::page::CallbackOutcome;
use super::{Linker, paste};
use crate::oauth::profile::Redirect;
use crate::server::Address;

impl Linker {
    /// Whether a path is one that a provider may send a browser back to.
    pub(super) fn is_callback_path(&self, path: &str) -> bool {
        self.book.iter().any(|account| match &account.profile().link.redirect {
            Redirect::Loopback { path: registered, .. } => registered == path,
            Redirect::Paste(_) | Redirect::None => false,
        })
    }

    /// Takes an authorization response off the browser. The state finds the attempt: whoever does not know it finds none.
    pub(super) async fn come_back(self: &Arc<Self>, path: &str, query: &str) -> CallbackOutcome {
        let found = {
            let attempts = self.attempts();
            // Every attempt is asked, and each compares in constant time.
            attempts.values().filter(|attempt| attempt.redirect_uri.path() == path).find_map(
                |attempt| match paste::read(query, &attempt.expected()) {
                    Err(paste::NotIt::OtherAttempt | paste::NotIt::NoState) => None,
                    _ => Some((attempt.id.clone(), attempt.account.clone())),
                },
            )
        };
        let Some((id, account)) = found else {
            let sentence = "This address belongs to no attempt that is open. Go back to Pixy and start again.";
            return CallbackOutcome::Refused { sentence: sentence.to_owned() };
        };
        match self.paste(&id, query).await {
            Ok(_) => CallbackOutcome::Exchanged { title: account.as_str().to_owned() },
            Err(problem) => CallbackOutcome::Refused { sentence: format!("{} {}", problem.title, problem.detail) },
        }
    }

    /// The attempt of an account, as the page shows it.
    pub(super) fn with_attempt<T>(
        &self,
        account: &crate::name::AccountName,
        look: impl FnOnce(&Attempt) -> T,
    ) -> Option<T> {
        let attempts = self.attempts();
        attempts.get(account).filter(|attempt| !attempt.is_over(&self.clock)).map(look)
    }

    /// The login that an attempt has exchanged, as the terminal waits for it.
    pub(super) fn is_exchanged(attempt: &Attempt) -> bool {
        matches!(attempt.stage, Stage::Exchanged(_))
    }
}

/// Whether the provider's redirect ends at the link port.
pub(super) fn comes_back(attempt: &Attempt, link_port: Option<&Address>) -> bool {
    let Some(Address::Tcp(address)) = link_port else { return false };
    let is_loopback = attempt.redirect_uri.host_str().is_some_and(crate::upstream::is_loopback_host);
    is_loopback
        && attempt.redirect_uri.scheme() == "http"
        && attempt.redirect_uri.port_or_known_default() == Some(address.port())
}
