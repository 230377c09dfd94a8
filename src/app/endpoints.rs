//! What a person and the agents' lines are told of where Pixy is reached. A reload changes it.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::listeners::Prepared;
use crate::account::Account;
use crate::config::Config;
use crate::link::{AgentEndpoint, Facts, Key};
use crate::name::AccountName;
use crate::server::Address;
use crate::vault;

/// As it is now; whoever tells it looks each time.
#[derive(Clone)]
pub(super) struct Endpoints {
    agents: Arc<ArcSwap<Agents>>,
    pub(super) facts: Arc<ArcSwap<Facts>>,
    /// The page's own address, while it is on.
    pub(super) page: Arc<ArcSwapOption<Address>>,
}

struct Agents {
    /// Where they connect, and the account that a listener is bound to.
    listeners: Vec<(Option<AccountName>, Address)>,
    /// What their keys open, and the files that they are in.
    keys: Vec<(Vec<AccountName>, Option<PathBuf>)>,
}

impl Endpoints {
    pub(super) fn new(config: &Config, prepared: &Prepared) -> Self {
        let page = prepared.page().cloned().map(Arc::new);
        Self {
            agents: Arc::new(ArcSwap::from_pointee(agents(config, prepared))),
            facts: Arc::new(ArcSwap::from_pointee(facts(config, prepared))),
            page: Arc::new(ArcSwapOption::new(page)),
        }
    }

    pub(super) fn change(&self, config: &Config, prepared: &Prepared) {
        self.agents.store(Arc::new(agents(config, prepared)));
        self.facts.store(Arc::new(facts(config, prepared)));
        self.page.store(prepared.page().cloned().map(Arc::new));
    }

    /// Where an account's agents connect: a listener bound to the account first, then one for all.
    pub(super) fn door(&self, account: &Account) -> AgentEndpoint {
        let Agents { listeners, keys } = &**self.agents.load();
        let bound = listeners.iter().find(|(bound, _)| bound.as_ref() == Some(account.name()));
        let open = || listeners.iter().find(|(bound, _)| bound.is_none());
        let fallback = || Address::Tcp(([127, 0, 0, 1], 8700).into());
        let address = bound.or_else(open).map_or_else(fallback, |(_, address)| address.clone());
        let key = match keys.iter().find(|(accounts, _)| accounts.contains(account.name())) {
            None => Key::Any,
            Some((_, Some(file))) => Key::File(file.clone()),
            Some((_, None)) => Key::Known,
        };
        AgentEndpoint { address, bound: bound.is_some(), key }
    }
}

fn agents(config: &Config, prepared: &Prepared) -> Agents {
    Agents {
        listeners: prepared.agents().map(|(bound, address)| (bound.cloned(), address.clone())).collect(),
        keys: config.agent_keys.iter().map(|key| (key.accounts.clone(), key.key_file.clone())).collect(),
    }
}

fn facts(config: &Config, prepared: &Prepared) -> Facts {
    let store = match &config.vault.store {
        vault::StoreSettings::Files(path) => path.display().to_string(),
        vault::StoreSettings::Postgres { .. } => "PostgreSQL".to_owned(),
    };
    Facts {
        file: config.file.as_ref().map(|file| file.display().to_string()),
        version: crate::VERSION,
        agent_addresses: prepared.agents().map(|(_, address)| address.to_string()).collect(),
        store,
        port: prepared.page().and_then(|address| match address {
            Address::Tcp(address) => Some(address.port()),
            Address::Unix(_) => None,
        }),
    }
}
