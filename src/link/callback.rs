//! Authorization responses that a browser delivers by a redirect.

use std::sync::Arc;

use super::attempts::Attempts;
use super::code_exchange::CodeExchange;
use super::page::CallbackOutcome;
use crate::account::Accounts;
use crate::oauth::profile::Redirect;

/// Receives redirects, on the page's port and on the callback listeners.
pub struct CallbackReceiver {
    accounts: Accounts,
    attempts: Arc<Attempts>,
    exchange: Arc<CodeExchange>,
}

impl CallbackReceiver {
    /// A receiver for the attempts of `exchange`.
    pub fn new(exchange: Arc<CodeExchange>) -> Self {
        Self { accounts: exchange.accounts.clone(), attempts: Arc::clone(&exchange.attempts), exchange }
    }

    /// Whether `path` is the path of a configured redirect URI.
    pub fn is_callback_path(&self, path: &str) -> bool {
        self.accounts.iter().any(|account| match &account.profile().link.redirect {
            Redirect::Loopback(registered) => *registered.path == path,
            Redirect::Paste(_) | Redirect::None => false,
        })
    }

    /// Finds the attempt by the state of the response, and redeems its code.
    pub async fn receive(&self, path: &str, query: &str) -> CallbackOutcome {
        let Some((id, account)) = self.attempts.find_by_response(path, query) else {
            let sentence = "This address belongs to no open attempt. Go back to Pixy and start again.";
            return CallbackOutcome::Failed { sentence: sentence.to_owned() };
        };
        let redeemed = match self.attempts.take_code(&id, query) {
            Ok(redemption) => self.exchange.redeem(redemption).await,
            Err(problem) => Err(problem),
        };
        match redeemed {
            Ok(_) => CallbackOutcome::Exchanged { title: account.as_str().to_owned() },
            Err(problem) => CallbackOutcome::Failed { sentence: format!("{} {}", problem.title, problem.detail) },
        }
    }
}
