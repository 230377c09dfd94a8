//! Where agents and the person's browser reach Pixy. A reload changes it.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::listeners::BoundListeners;
use crate::account::Account;
use crate::config::Config;
use crate::link::{AgentCredential, AgentEndpoint, Facts};
use crate::name::AccountName;
use crate::server::Address;

/// The current endpoints. Cheap to clone; readers load them for each use.
#[derive(Clone)]
pub(super) struct Endpoints {
    agents: Arc<ArcSwap<AgentEndpoints>>,
    pub(super) facts: Arc<ArcSwap<Facts>>,
    /// The page's own address; `None` while it is off.
    pub(super) page: Arc<ArcSwapOption<Address>>,
}

struct AgentEndpoints {
    /// Each listener's account, if it is bound to one, and address.
    listeners: Vec<(Option<AccountName>, Address)>,
    /// Each agent key's accounts, and its file if it has one.
    keys: Vec<(Vec<AccountName>, Option<PathBuf>)>,
}

impl Endpoints {
    pub(super) fn new(config: &Config, listeners: &BoundListeners) -> Self {
        Self {
            agents: Arc::new(ArcSwap::from_pointee(agent_endpoints(config, listeners))),
            facts: Arc::new(ArcSwap::from_pointee(facts(config, listeners))),
            page: Arc::new(ArcSwapOption::new(listeners.page().cloned().map(Arc::new))),
        }
    }

    pub(super) fn replace(&self, config: &Config, listeners: &BoundListeners) {
        self.agents.store(Arc::new(agent_endpoints(config, listeners)));
        self.facts.store(Arc::new(facts(config, listeners)));
        self.page.store(listeners.page().cloned().map(Arc::new));
    }

    /// Where agents reach this account: on a listener that is bound to it, otherwise on the first one for all accounts.
    pub(super) fn of_account(&self, account: &Account) -> AgentEndpoint {
        let AgentEndpoints { listeners, keys } = &**self.agents.load();
        let bound = listeners.iter().find(|(bound, _)| bound.as_ref() == Some(account.name()));
        let shared = || listeners.iter().find(|(bound, _)| bound.is_none());
        let default = || Address::Tcp(([127, 0, 0, 1], 8700).into());
        let address = bound.or_else(shared).map_or_else(default, |(_, address)| address.clone());
        let key = match keys.iter().find(|(accounts, _)| accounts.contains(account.name())) {
            None => AgentCredential::Any,
            Some((_, Some(file))) => AgentCredential::File(file.clone()),
            Some((_, None)) => AgentCredential::Known,
        };
        AgentEndpoint { address, bound: bound.is_some(), key }
    }
}

fn agent_endpoints(config: &Config, listeners: &BoundListeners) -> AgentEndpoints {
    AgentEndpoints {
        listeners: listeners.agents().map(|(bound, address)| (bound.cloned(), address.clone())).collect(),
        keys: config.agent_keys.iter().map(|key| (key.accounts.clone(), key.key_file.clone())).collect(),
    }
}

fn facts(config: &Config, listeners: &BoundListeners) -> Facts {
    Facts {
        file: config.file.as_ref().map(|file| file.display().to_string()),
        version: crate::VERSION,
        agent_addresses: listeners.agents().map(|(_, address)| address.to_string()).collect(),
        store: config.vault.directory.display().to_string(),
        port: listeners.page().and_then(|address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }),
    }
}
