//! An authorization response that a browser brings back by itself.

use std::sync::Arc;

use super::page::CallbackOutcome;
use super::{Linker, paste};
use crate::oauth::profile::Redirect;

impl Linker {
    /// Whether a path is one that a provider may send a browser back to.
    pub(super) fn is_callback_path(&self, path: &str) -> bool {
        self.accounts.iter().any(|account| match &account.profile().link.redirect {
            Redirect::Loopback(registered) => *registered.path == path,
            Redirect::Paste(_) | Redirect::None => false,
        })
    }

    /// Takes an authorization response off the browser. The state finds the attempt: whoever does not know it finds none.
    pub(super) async fn come_back(self: &Arc<Self>, path: &str, query: &str) -> CallbackOutcome {
        let found = {
            let attempts = self.attempts();
            // Every attempt is asked, and each compares in constant time.
            attempts
                .values()
                .filter_map(|attempt| Some((attempt, attempt.expected()?)))
                .filter(|(_, expected)| expected.redirect_uri.path() == path)
                .find_map(|(attempt, expected)| match paste::read(query, &expected) {
                    Err(paste::PasteError::OtherAttempt | paste::PasteError::NoState) => None,
                    _ => Some((attempt.id().to_owned(), attempt.bound.account.clone())),
                })
        };
        let Some((id, account)) = found else {
            let sentence = "This address belongs to no attempt that is open. Go back to Pixy and start again.";
            return CallbackOutcome::Rejection { sentence: sentence.to_owned() };
        };
        match self.paste(&id, query).await {
            Ok(_) => CallbackOutcome::Exchanged { title: account.as_str().to_owned() },
            Err(problem) => CallbackOutcome::Rejection { sentence: format!("{} {}", problem.title, problem.detail) },
        }
    }
}
