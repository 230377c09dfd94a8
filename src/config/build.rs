//! Builds a [`Config`] from the file, or reports every fault of its values.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::{did_you_mean, short};
use super::diagnostics::Scope;
use super::env::Env;
use super::spanned_yaml::Node;
use super::value_parsers::Size;
use super::{AccountConfig, AgentListener, Config, agent_key, profile_merge, raw, shipped, value_parsers};
use crate::name::{AccountName, GRAMMAR};
use crate::proxy;
use crate::proxy::agent::AgentKey;
use crate::server::{Access, Address, LEAST_MEMORY, ServerLimits};
use crate::upstream::{AddressRange, UpstreamSettings};
use crate::vault::{KeySettings, VaultSettings};

/// The default of `limits.memory`, in bytes: half of what the example for Kubernetes allows.
const DEFAULT_MEMORY: usize = 128 << 20;

/// The most of `limits.replay_bytes`.
const MOST_REPLAYED: usize = 64 << 20;

/// The default of `state_dir`.
pub(super) const STATE_DIR: &str = "~/.local/state/pixy";

/// `None` only after a fault was reported.
pub(super) fn config(raw: raw::File, file: Option<PathBuf>, here: &Scope, root: &Node, env: &Env) -> Option<Config> {
    let accounts_here = here.at("accounts");
    let raw_accounts = raw.accounts.unwrap_or_default();
    // An account with faulty keys may still be referred to.
    let names: Vec<String> = raw_accounts.given().map(|(name, _)| name.clone()).collect();
    let accounts: Vec<_> =
        raw_accounts.given().map(|(name, raw)| account(name, raw, &accounts_here.at(name), root)).collect();
    let known = |name: &str, here: &Scope| account_name(name, &names, here);

    let agent_raw = raw.agent.unwrap_or_default();
    let agent = here.at("agent");
    let keys = keys(agent_raw.keys, &agent.at("keys"), env, &known);
    let no_keys = keys.as_ref().is_some_and(Vec::is_empty) && !agent.at("keys").has_fault_near();
    let agent_listeners = agent_listeners(agent_raw.listen, &agent.at("listen"), no_keys, env, &known);

    let listen = |text: Option<String>, default: &str, here: &Scope| {
        here.read(text.as_deref().unwrap_or(default), |text| value_parsers::address(text, env.home()))
    };
    let link_here = here.at("link");
    let link = match raw.link {
        Some(raw::Link::Word(raw::Off::Off)) => raw::LinkSurface { listen: Some("off".to_owned()), hosts: None },
        Some(raw::Link::Surface(surface)) => surface,
        None => raw::LinkSurface::default(),
    };
    let link_listen = match link.listen.as_deref() {
        Some("off") => Some(None),
        _ => listen(link.listen, "127.0.0.1:8701", &link_here.at("listen")).map(Some),
    };
    let link_hosts = hosts(link.hosts, link_listen.as_ref().and_then(Option::as_ref), &link_here.at("hosts"));
    let (ops, ops_here) = (raw.ops.unwrap_or_default(), here.at("ops"));
    let ops_listen = listen(ops.listen, "127.0.0.1:8702", &ops_here.at("listen"));
    let ops_hosts = hosts(ops.hosts, ops_listen.as_ref(), &ops_here.at("hosts"));
    report_collisions(agent_listeners.as_deref(), link_listen.as_ref(), ops_listen.as_ref(), here);

    let state_dir = path_or(raw.state_dir, STATE_DIR, &here.at("state_dir"), env);
    let vault = vault(raw.vault.unwrap_or_default(), state_dir.clone(), &here.at("vault"), env);
    let upstream = upstream(raw.upstream.unwrap_or_default(), &here.at("upstream"), env);
    let limits = raw.limits.unwrap_or_default();
    let limits_here = here.at("limits");
    let body = proxy::BodyLimits::default();
    let default_body = usize::try_from(body.body_bytes).unwrap_or(usize::MAX);
    Some(Config {
        file,
        agent_listeners: agent_listeners?,
        agent_keys: keys?,
        link_listen: link_listen?,
        link_hosts: link_hosts?,
        ops_listen: ops_listen?,
        ops_hosts: ops_hosts?,
        state_dir: state_dir?,
        vault: vault?,
        accounts: accounts.into_iter().collect::<Option<_>>()?,
        upstream: upstream?,
        memory: size_within(limits.memory, DEFAULT_MEMORY, LEAST_MEMORY..=usize::MAX, &limits_here.at("memory"))?,
        body_bytes: size_within(limits.body_bytes, default_body, 1..=usize::MAX, &limits_here.at("body_bytes"))? as u64,
        replay_bytes: size_within(
            limits.replay_bytes,
            body.replay_bytes,
            0..=MOST_REPLAYED,
            &limits_here.at("replay_bytes"),
        )?,
        io_threads: usize::from(limits.io_threads.unwrap_or(1)),
        limits: server_limits(limits),
        limit_network: raw.hardening.unwrap_or_default().network.unwrap_or(true),
        warnings: Vec::new(),
    })
}

fn account(name: &str, raw: &raw::Account, here: &Scope, root: &Node) -> Option<AccountConfig> {
    let parsed = AccountName::parse(name);
    if parsed.is_err() {
        here.at_key().report(format!("`{}` cannot be the name of an account; a name is {GRAMMAR}.", short(name)));
    }
    let provider = raw.provider.as_deref()?;
    let Some(mut merged) = profile_merge::shipped_node(provider, here.sink()) else {
        let names = shipped::PROFILES.map(|(name, _)| name);
        let hint = did_you_mean(provider, names.into_iter());
        let provider_here = here.at("provider");
        provider_here.report(format!(
            "`{}` is not a shipped provider; allowed here: {}.{hint}",
            provider_here.name(),
            names.join(", ")
        ));
        return None;
    };
    let entry = root.get("accounts").and_then(|accounts| accounts.node.get(name));
    // The changes are read from the tree, which has their positions. `profile:` without a value changes nothing.
    let changes = entry.and_then(|entry| entry.node.get("profile")).filter(|_| raw.profile.is_some());
    if let Some(changes) = changes {
        if changes.node.get("formerly").is_some() {
            here.at("profile").at("formerly").at_key().wrong(
                "is for shipped profiles; a login whose URLs change here is confirmed by a person, with `pixy link NAME --moved`",
            );
        }
        profile_merge::merge(&mut merged, &changes.node);
    }
    let base = ["accounts", name, "profile"].map(str::to_owned);
    let anchor = entry.map(|entry| &entry.span);
    let profile = profile_merge::build(&merged, provider, &Scope::within(here.sink(), &merged, &base, anchor));
    let mut profile = profile?;
    if changes.is_some_and(|changes| profile_merge::writes_a_url(&changes.node)) {
        profile.formerly.clear(); // it vouches for the shipped URLs alone
    }
    Some(AccountConfig {
        name: parsed.ok()?,
        profile: Arc::new(profile),
        accept_terms: raw.accept_terms.unwrap_or(false),
    })
}

/// Parses the name of an account that must exist.
fn account_name(name: &str, names: &[String], here: &Scope) -> Option<AccountName> {
    if !names.iter().any(|known| known == name)
        && !here.sink().has_fault_near(&["accounts".to_owned(), name.to_owned()])
    {
        let hint = did_you_mean(name, names.iter().map(String::as_str));
        let list =
            if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
        here.report(format!(
            "`{}` names the account `{}`, which is not below `accounts`; {list}.{hint}",
            here.name(),
            short(name)
        ));
        return None;
    }
    AccountName::parse(name).ok() // an invalid name is reported at the account itself
}

fn keys(
    raw: Option<Vec<raw::AgentKey>>,
    here: &Scope,
    env: &Env,
    known: &impl Fn(&str, &Scope) -> Option<AccountName>,
) -> Option<Vec<AgentKey>> {
    let raw = raw.unwrap_or_default();
    let count = raw.len();
    let mut keys: Vec<AgentKey> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let here = here.at(index);
        let Some(key) = agent_key::agent_key(raw, &here, env, known) else { continue };
        if let Some(other) = keys.iter().find(|other| other.name == key.name) {
            here.at("name").report(format!("two agents are called `{}`; give each its own name.", other.name));
        }
        if let Some(other) = keys.iter().find(|other| other.sha256 == key.sha256) {
            here.wrong(format!("has the same key as the agent `{}`; give each agent its own key", other.name));
        }
        keys.push(key);
    }
    (keys.len() == count).then_some(keys)
}

fn agent_listeners(
    raw: Option<raw::Listen>,
    here: &Scope,
    no_keys: bool,
    env: &Env,
    known: &impl Fn(&str, &Scope) -> Option<AccountName>,
) -> Option<Vec<AgentListener>> {
    let listener = |raw: raw::BoundListener, address_here: &Scope, here: &Scope| {
        let address = address_here.read(raw.address.as_deref()?, |text| value_parsers::address(text, env.home()));
        if no_keys && address.as_ref().is_some_and(|address| !address.is_local()) {
            address_here.wrong(
                "can be reached from other machines, but there are no `agent.keys`: any machine could use these logins. \
                 Listen on 127.0.0.1, [::1] or unix:/path, or give every agent a key",
            );
        }
        let access = access(raw.mode.as_deref(), address.as_ref(), &here.at("mode"), no_keys);
        let account = raw.account.map_or(Some(None), |name| known(&name, &here.at("account")).map(Some));
        let hosts = hosts(raw.hosts, address.as_ref(), &here.at("hosts"));
        Some(AgentListener { address: address?, account: account?, access: access?, hosts: hosts? })
    };
    let open = |address: String| raw::BoundListener { address: Some(address), account: None, mode: None, hosts: None };
    match raw {
        None => listener(open("127.0.0.1:8700".to_owned()), here, here).map(|one| vec![one]),
        Some(raw::Listen::One(text)) => listener(open(text), here, here).map(|one| vec![one]),
        Some(raw::Listen::Many(list)) => {
            if list.is_empty() && !here.has_fault_near() {
                here.wrong("is empty; name at least one address");
            }
            let read: Vec<_> = list
                .into_iter()
                .enumerate()
                .map(|(index, item)| {
                    let here = here.at(index);
                    match item {
                        raw::Listener::Open(text) => listener(open(text), &here, &here),
                        raw::Listener::Bound(raw) => listener(raw, &here.at("address"), &here),
                    }
                })
                .collect();
            read.into_iter().collect()
        }
    }
}

/// The names that `Host` may hold.
fn hosts(raw: Option<Vec<String>>, address: Option<&Address>, here: &Scope) -> Option<Vec<String>> {
    if raw.is_some() && matches!(address, Some(Address::Unix(_))) {
        here.wrong("is only for TCP; on a Unix socket no host is checked: remove it");
    }
    let names = raw.unwrap_or_default();
    names.iter().enumerate().map(|(index, name)| here.at(index).read(name, value_parsers::host_name)).collect()
}

/// Which users may connect to a listener's socket.
fn access(mode: Option<&str>, address: Option<&Address>, here: &Scope, no_keys: bool) -> Option<Access> {
    let Some(mode) = mode else { return Some(Access::Owner) };
    let access = here.read(mode, value_parsers::access)?;
    if let Some(Address::Tcp(_)) = address {
        here.wrong("is only for Unix sockets; remove it");
        return None;
    }
    // The members of a group were chosen. With 0666 the directory alone decides, which other containers may mount; loopback is
    // at least limited to this network namespace.
    if access == Access::Everybody && no_keys {
        here.wrong(
            "admits every user who can reach the directory, but there are no `agent.keys`. Write \"0660\" and add the \
             agents to the socket's group, or give every agent a key",
        );
    }
    Some(access)
}

/// Reports addresses that two surfaces share; the operating system would refuse only the second.
fn report_collisions(
    agent: Option<&[AgentListener]>,
    link: Option<&Option<Address>>,
    ops: Option<&Address>,
    here: &Scope,
) {
    let fixed = |address: &&Address| !matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
    let mut seen: HashSet<&Address> = HashSet::new();
    let surfaces = [
        ("agent", agent.into_iter().flatten().map(|listener| &listener.address).collect::<Vec<_>>()),
        ("link", link.into_iter().flatten().collect()),
        ("ops", ops.into_iter().collect()),
    ];
    for (surface, addresses) in surfaces {
        for address in addresses.into_iter().filter(fixed) {
            if !seen.insert(address) {
                let here = here.at(surface).at("listen");
                here.report(format!(
                    "`{}`: {address} is used twice; every listener needs its own address.",
                    here.name()
                ));
            }
        }
    }
}

fn vault(raw: raw::Vault, state_dir: Option<PathBuf>, here: &Scope, env: &Env) -> Option<VaultSettings> {
    if raw.key_file.is_some() && raw.passphrase_file.is_some() {
        here.wrong("contains both key_file and passphrase_file; keep one of them");
    }
    let directory = path_or(raw.dir, "~/.local/state/pixy/vault", &here.at("dir"), env);
    let mounted = env.mounted_key().filter(|_| raw.key_file.is_none());
    let key = match (raw.passphrase_file, mounted) {
        (Some(file), _) if raw.key_file.is_none() => {
            path_or(Some(file), "", &here.at("passphrase_file"), env).map(KeySettings::Passphrase)
        }
        (_, Some(mounted)) => Some(KeySettings::File(mounted)),
        _ => path_or(raw.key_file, "~/.config/pixy/key", &here.at("key_file"), env).map(KeySettings::File),
    };
    Some(VaultSettings { directory: directory?, key: key?, state_dir: state_dir? })
}

fn upstream(raw: raw::Upstream, here: &Scope, env: &Env) -> Option<UpstreamSettings> {
    let default = UpstreamSettings::default();
    let extra_ca_file = |file| path_or(Some(file), "", &here.at("extra_ca_file"), env).map(Some);
    Some(UpstreamSettings {
        extra_ca_file: raw.extra_ca_file.map_or(Some(None), extra_ca_file)?,
        allow_addresses: raw.allow_addresses.unwrap_or_default().into_iter().map(AddressRange::from).collect(),
        connect_timeout: raw.connect_timeout.map_or(default.connect_timeout, Duration::from),
        head_timeout: raw.head_timeout.map_or(default.head_timeout, Duration::from),
        idle_timeout: raw.idle_timeout.map_or(default.idle_timeout, Duration::from),
    })
}

fn server_limits(raw: raw::Intake) -> ServerLimits {
    let default = ServerLimits::default();
    ServerLimits {
        connections: size(raw.connections, default.connections),
        header_bytes: size(raw.header_bytes, default.header_bytes),
        header_fields: raw.header_fields.map_or(default.header_fields, usize::from),
        uri_bytes: raw.uri_bytes.map_or(default.uri_bytes, usize::from),
        header_time: raw.header_time.map_or(default.header_time, Duration::from),
        idle_time: raw.idle_time.map_or(default.idle_time, Duration::from),
        drain_time: raw.drain_time.map_or(default.drain_time, Duration::from),
    }
}

/// A number of bytes within a range, or its default.
fn size_within(raw: Option<Size>, default: usize, range: RangeInclusive<usize>, here: &Scope) -> Option<usize> {
    let Some(size) = raw else { return Some(default) };
    let bytes = usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    if !range.contains(&bytes) {
        let (least, most) = (value_parsers::size_text(*range.start()), value_parsers::size_text(*range.end()));
        let allowed =
            if *range.end() == usize::MAX { format!("{least} or more") } else { format!("from {least} to {most}") };
        here.wrong(format!("must be {allowed}"));
        return None;
    }
    Some(bytes)
}

fn size(raw: Option<u32>, default: usize) -> usize {
    raw.map_or(default, |size| usize::try_from(size).unwrap_or(default))
}

fn path_or(raw: Option<String>, default: &str, here: &Scope, env: &Env) -> Option<PathBuf> {
    match raw {
        Some(text) => here.read(&text, |text| value_parsers::path(text, env.home())),
        None => value_parsers::path(default, env.home())
            .map_err(|_| here.wrong(format!("is not given, and its default {default} needs HOME, which is not set")))
            .ok(),
    }
}
