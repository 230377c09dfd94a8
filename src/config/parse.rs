//! From a text to a [`Config`]: parse, don't validate.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::fault::{Fault, Source};
use super::node::{Content, Node, start};
use super::{AccountConfig, AgentListener, Config, Env, Faults, Reporter, check, profile, raw, values};
use crate::name::{AccountName, AgentName, GRAMMAR};
use crate::proxy::agent::{AgentKey, Limits};
use crate::server::Address;
use crate::{upstream, vault};

/// A key that is shorter can be guessed.
const SHORTEST_KEY: usize = 16;

pub(super) fn parse(text: &str, file: Option<PathBuf>, env: &Env) -> Result<Config, Faults> {
    let name = file.as_ref().map_or_else(|| "config/pixy.yaml".to_owned(), |file| file.display().to_string());
    let source = Arc::new(Source { name, text: text.to_owned() });
    let mut tree = Node::parse(&source).map_err(|fault| Faults::new(vec![*fault]))?;
    if matches!(tree.content, Content::Null) {
        tree.content = Content::Map(Vec::new());
    }
    let check::Checked { mut faults, removed } = check::check(&mut tree, &super::schema());
    let parsed = match serde_json::from_value::<raw::File>(tree.to_json()) {
        Ok(raw) => Parser { tree: &tree, source: &source, env, faults: &mut faults, told: &removed }.config(raw, file),
        // What the check took out was required somewhere: it is told already.
        Err(_) if !faults.is_empty() => None,
        Err(error) => {
            faults.push(Fault::at(
                &tree.place,
                String::new(),
                format!("this file cannot be read as a configuration: {error}."),
            ));
            None
        }
    };
    match parsed {
        Some(config) if faults.is_empty() => Ok(config),
        _ => Err(Faults::new(faults)),
    }
}

struct Parser<'a> {
    tree: &'a Node,
    source: &'a Arc<Source>,
    env: &'a Env,
    faults: &'a mut Vec<Fault>,
    told: &'a [Vec<String>],
}

impl Parser<'_> {
    fn config(&mut self, raw: raw::File, file: Option<PathBuf>) -> Option<Config> {
        let accounts = self.accounts(raw.accounts.unwrap_or_default());
        let names: Vec<AccountName> = accounts.iter().map(|account| account.name.clone()).collect();
        let agent = raw.agent.unwrap_or_default();
        let agent_listeners = self.listeners(agent.listen, &names);
        let has_keys = agent.keys.as_ref().is_some_and(|keys| !keys.is_empty());
        let agent_keys = self.keys(agent.keys.unwrap_or_default(), &names);
        for listener in agent_listeners.iter().filter(|listener| !listener.address.is_local() && !has_keys) {
            let message = format!(
                "{} can be reached from other machines, so agents need keys there: add `agent.keys`, or listen on 127.0.0.1.",
                listener.address
            );
            self.report().fault(&["agent", "listen"], &message);
        }
        let link_listen = self.link_listen(raw.link.unwrap_or_default().listen.as_deref());
        let ops = raw.ops.unwrap_or_default().listen;
        let ops_listen = self.address(&["ops", "listen"], ops.as_deref()).unwrap_or(local(8702));
        let state_dir = self.path(&["state_dir"], raw.state_dir.as_deref().unwrap_or("~/.local/state/pixy"));
        let vault = self.vault(raw.vault.unwrap_or_default(), state_dir.clone());
        let upstream = self.upstream(raw.upstream.unwrap_or_default());
        Some(Config {
            file,
            agent_listeners,
            agent_keys,
            link_listen,
            ops_listen,
            state_dir: state_dir?,
            vault: vault?,
            accounts,
            upstream,
        })
    }

    /// In the order of the file, which the tree knows and a map of serde's does not.
    fn accounts(&mut self, mut raw: BTreeMap<String, Option<raw::Account>>) -> Vec<AccountConfig> {
        let order: Vec<String> = match self.tree.get("accounts").map(|entry| &entry.node.content) {
            Some(Content::Map(entries)) => entries.iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        };
        let mut accounts = Vec::new();
        for key in order {
            let Some(raw) = raw.remove(&key) else { continue };
            let raw = raw.unwrap_or_default();
            let Ok(name) = AccountName::parse(&key) else {
                self.report().key(&["accounts", &key], &format!("an account's name is {GRAMMAR}."));
                continue;
            };
            accounts.extend(self.account(name, &key, &raw));
        }
        accounts
    }

    fn account(&mut self, name: AccountName, key: &str, raw: &raw::Account) -> Option<AccountConfig> {
        let Some(provider) = &raw.provider else {
            let known = super::provider_names().collect::<Vec<_>>().join(", ");
            let was_told = self.told.iter().any(|told| told.starts_with(&["accounts".to_owned(), key.to_owned()]));
            if !was_told {
                self.report().key(&["accounts", key], &format!("`provider` is missing; it is one of {known}."));
            }
            return None;
        };
        let Some(base) = profile::shipped(provider) else {
            let known = super::provider_names().collect::<Vec<_>>();
            let near = check::did_you_mean(provider, &known);
            let message = format!("there is no provider \"{provider}\"; it is one of {}.{near}", known.join(", "));
            self.report().fault(&["accounts", key, "provider"], &message);
            return None;
        };
        let entry = self.tree.get("accounts")?.node.get(key)?;
        let changes = entry.node.get("profile").map(|entry| &entry.node);
        let merged = profile::laid_over(base, changes);
        let raw_profile = match serde_json::from_value(merged.to_json()) {
            Ok(raw_profile) => raw_profile,
            Err(error) => {
                self.report()
                    .fault(&["accounts", key, "profile"], &format!("this does not make a whole profile: {error}."));
                return None;
            }
        };
        let prefix = ["accounts", key, "profile"].map(str::to_owned).to_vec();
        let mut report = Reporter::new(&merged, prefix, entry.place.clone(), self.faults, self.told);
        let profile = profile::resolve(provider, raw_profile, &mut report)?;
        Some(AccountConfig {
            name,
            profile: Arc::new(profile),
            accept_terms: raw.accept_terms.unwrap_or(false) || is_open_of(&merged),
        })
    }

    fn listeners(&mut self, raw: Option<raw::Listen>, accounts: &[AccountName]) -> Vec<AgentListener> {
        const AT: [&str; 2] = ["agent", "listen"];
        let many = match raw {
            None => return vec![AgentListener { address: local(8700), account: None }],
            Some(raw::Listen::One(address)) => {
                let address = self.address(&AT, Some(&address));
                return address.map(|address| AgentListener { address, account: None }).into_iter().collect();
            }
            Some(raw::Listen::Many(many)) => many,
        };
        if many.is_empty() {
            self.report().fault(&AT, "an empty list leaves no way in for agents; name at least one address.");
        }
        let mut listeners = Vec::new();
        for (index, listener) in many.into_iter().enumerate() {
            let index = index.to_string();
            let account =
                listener.account.and_then(|name| self.known(&["agent", "listen", &index, "account"], &name, accounts));
            let address = self.address(&["agent", "listen", &index, "address"], Some(&listener.address));
            listeners.extend(address.map(|address| AgentListener { address, account }));
        }
        listeners
    }

    fn keys(&mut self, raw: Vec<raw::AgentKey>, accounts: &[AccountName]) -> Vec<AgentKey> {
        let mut keys: Vec<AgentKey> = Vec::new();
        for (index, key) in raw.into_iter().enumerate() {
            let index = index.to_string();
            let at = |last| ["agent", "keys", index.as_str(), last];
            let name = AgentName::parse(&key.name).ok();
            if name.is_none() {
                self.report().fault(&at("name"), &format!("an agent's name is {GRAMMAR}."));
            }
            let granted: Vec<AccountName> = key
                .accounts
                .iter()
                .enumerate()
                .filter_map(|(nth, name)| {
                    self.known(&["agent", "keys", &index, "accounts", &nth.to_string()], name, accounts)
                })
                .collect();
            let key_file = key.key_file.as_deref().and_then(|text| self.path(&at("key_file"), text));
            let sha256 = match (&key.key_file, &key.sha256) {
                (Some(_), None) => key_file.as_deref().and_then(|file| self.key_digest(&at("key_file"), file)),
                (None, Some(text)) => self.report().optional(&at("sha256"), Some(text), values::sha256),
                _ => {
                    self.report()
                        .fault(&["agent", "keys", &index], "an agent has a `key_file` or a `sha256`, one of the two.");
                    None
                }
            };
            if keys.iter().any(|known| Some(&known.name) == name.as_ref()) {
                self.report().fault(&at("name"), "another agent has this name already.");
            }
            let limits = key.limits.unwrap_or_default();
            let limits = Limits {
                requests_per_minute: limits.requests_per_minute,
                concurrent: limits.concurrent,
                tokens_per_day: limits.tokens_per_day,
            };
            if let (Some(name), Some(sha256)) = (name, sha256) {
                keys.push(AgentKey { name, sha256, key_file, accounts: granted, limits });
            }
        }
        keys
    }

    fn key_digest(&mut self, at: &[&str], file: &Path) -> Option<[u8; 32]> {
        let read =
            std::fs::metadata(file).and_then(|facts| Ok((facts.permissions().mode(), std::fs::read_to_string(file)?)));
        let fault = match &read {
            Err(error) => format!("{} cannot be read ({error}).", file.display()),
            Ok((mode, _)) if mode & 0o007 != 0 => format!("everybody can use {0}; run: chmod o= {0}", file.display()),
            Ok((_, text)) if text.trim().len() < SHORTEST_KEY => {
                format!(
                    "the key in {0} is shorter than {SHORTEST_KEY} characters; make one: openssl rand -hex 32 > {0}",
                    file.display()
                )
            }
            Ok((_, text)) => return Some(Sha256::digest(text.trim()).into()),
        };
        self.report().fault(at, &fault);
        None
    }

    fn link_listen(&mut self, raw: Option<&str>) -> Option<Address> {
        match raw {
            None => Some(local(8701)),
            Some("off") => None,
            Some(text) => self.address(&["link", "listen"], Some(text)),
        }
    }

    fn vault(&mut self, raw: raw::Vault, state_dir: Option<PathBuf>) -> Option<vault::Settings> {
        if raw.dir.is_some() && raw.postgres.is_some() {
            self.report().fault(&["vault"], "logins are kept in `dir` or in `postgres`, one of the two.");
        }
        if raw.key_file.is_some() && raw.passphrase_file.is_some() {
            self.report()
                .fault(&["vault"], "records are opened by `key_file` or by `passphrase_file`, one of the two.");
        }
        let store = match raw.postgres {
            Some(postgres) => {
                let url_file = self.path(&["vault", "postgres", "url_file"], &postgres.url_file);
                url_file.map(|url_file| vault::StoreSettings::Postgres { url_file })
            }
            None => self
                .path(&["vault", "dir"], raw.dir.as_deref().unwrap_or("~/.local/state/pixy/vault"))
                .map(vault::StoreSettings::Files),
        };
        let key = match (&raw.passphrase_file, &raw.key_file, &self.env.given_key) {
            (Some(file), _, _) => self.path(&["vault", "passphrase_file"], file).map(vault::KeySettings::Passphrase),
            (None, None, Some(given)) => Some(vault::KeySettings::File(given.clone())),
            (None, file, _) => self
                .path(&["vault", "key_file"], file.as_deref().unwrap_or("~/.config/pixy/key"))
                .map(vault::KeySettings::File),
        };
        Some(vault::Settings { store: store?, key: key?, state_dir: state_dir? })
    }

    fn upstream(&mut self, raw: raw::Upstream) -> upstream::Settings {
        let usual = upstream::Settings::default();
        let mut span = |key: &str, text: Option<String>, usual: Duration| {
            self.report().optional(&["upstream", key], text.as_deref(), values::duration).unwrap_or(usual)
        };
        let connect_timeout = span("connect_timeout", raw.connect_timeout, usual.connect_timeout);
        let head_timeout = span("head_timeout", raw.head_timeout, usual.head_timeout);
        let idle_timeout = span("idle_timeout", raw.idle_timeout, usual.idle_timeout);
        let extra_ca_file = raw.extra_ca_file.and_then(|text| self.path(&["upstream", "extra_ca_file"], &text));
        upstream::Settings { extra_ca_file, connect_timeout, head_timeout, idle_timeout }
    }

    fn known(&mut self, at: &[&str], name: &str, accounts: &[AccountName]) -> Option<AccountName> {
        let found = accounts.iter().find(|account| account.as_str() == name).cloned();
        // An account that is wrong itself is told there.
        let is_there = self.tree.get("accounts").is_some_and(|entry| entry.node.get(name).is_some());
        if found.is_none() && !is_there {
            let known: Vec<&str> = accounts.iter().map(AccountName::as_str).collect();
            self.report().fault(at, &format!("there is no account \"{name}\"; `accounts` has {}.", known.join(", ")));
        }
        found
    }

    fn address(&mut self, at: &[&str], text: Option<&str>) -> Option<Address> {
        let home = self.env.home.clone();
        self.report().optional(at, text, |text| values::address(text, |path| expanded(path, home.as_deref())))
    }

    fn path(&mut self, at: &[&str], text: &str) -> Option<PathBuf> {
        let home = self.env.home.clone();
        self.report().optional(at, Some(text), |text| expanded(text, home.as_deref()))
    }

    fn report(&mut self) -> Reporter<'_> {
        Reporter::new(self.tree, Vec::new(), start(self.source), self.faults, self.told)
    }
}

/// A profile whose terms are open needs no acceptance.
fn is_open_of(merged: &Node) -> bool {
    let status = merged.get("terms").and_then(|terms| terms.node.get("status"));
    status.is_none_or(|status| matches!(&status.node.content, Content::Text(text) if text == "open"))
}

fn local(port: u16) -> Address {
    Address::Tcp(([127, 0, 0, 1], port).into())
}

fn expanded(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    match (text.strip_prefix("~/"), home) {
        _ if text.is_empty() => Err("a path belongs here.".to_owned()),
        (Some(rest), Some(home)) => Ok(home.join(rest)),
        (Some(_), None) => {
            Err(format!("\"{text}\" starts at the home directory, and HOME is not set; write the whole path."))
        }
        (None, _) => Ok(PathBuf::from(text)),
    }
}
