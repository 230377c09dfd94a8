//! All accounts of a running Pixy.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Account;
use crate::name::AccountName;

/// The accounts, in the order of the configuration.
#[derive(Clone, Default)]
pub struct Book(Arc<[Arc<Account>]>);

impl Book {
    /// A book of these accounts.
    pub fn new(accounts: Vec<Arc<Account>>) -> Self {
        Self(accounts.into())
    }

    /// The account of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        self.0.iter().find(|account| account.name().as_str() == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.iter()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &AccountName> {
        self.0.iter().map(|account| account.name())
    }

    /// Starts each account's keeper. They end after `shutdown` becomes true, each when its refresh, if one is under way, is
    /// over and durable.
    pub fn keep(&self, shutdown: &watch::Receiver<bool>) -> JoinSet<()> {
        self.iter().map(|account| Arc::clone(account).keep(shutdown.clone())).collect()
    }
}
