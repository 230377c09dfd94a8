//! Authenticates agents by their keys, authorizes them for accounts and enforces their limits; refuses browsers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::refusal::Refusal;
use super::strip::Stripped;
use crate::clock::{Clock, Tick};
use crate::lock::lock;
use crate::name::{AccountName, AgentName};
use crate::server::ConnectionLimit;

/// An agent's key, as a digest: the key itself is never kept.
#[derive(Debug, Clone)]
pub struct AgentKey {
    /// Shown in logs and metrics.
    pub name: AgentName,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The file that the key was read from, for the snippets that configure a client.
    pub key_file: Option<PathBuf>,
    /// The accounts it may use.
    pub accounts: Vec<AccountName>,
    /// Its limits.
    pub limits: AgentLimits,
}

/// Limits of one agent.
// As in the configuration; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub struct AgentLimits {
    /// Requests started in any minute.
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u32>,
    /// Concurrent requests and streams.
    #[schemars(range(min = 1))]
    pub concurrent: Option<u32>,
    /// Model tokens, input and output, in a calendar day (UTC).
    #[schemars(range(min = 1))]
    pub tokens_per_day: Option<u64>,
}

/// All agents that have a key.
///
/// Each has a share of the connections: half of them are divided evenly, and the others are free for all. So a request of an agent
/// that has not used up its share is always admitted, whatever the other agents do.
pub struct Agents {
    registered: ArcSwap<Vec<Registered>>,
    clock: Clock,
    connections: ConnectionLimit,
    /// Requests in progress beyond the shares of their agents.
    beyond_shares: Arc<AtomicUsize>,
}

/// Permission to use one account, held until the last byte of the response; made by [`Agents::authorize`] alone.
///
/// ```
/// fn needs(_: &pixy::proxy::agent::AgentGrant) {}
/// ```
///
/// No other code can make one:
///
/// ```compile_fail
/// fn needs(_: &pixy::proxy::agent::AgentGrant) {}
/// needs(&pixy::proxy::agent::AgentGrant { agent: None, usage: None, counts_tokens: false, _beyond_share: None });
/// ```
pub struct AgentGrant {
    agent: Option<AgentName>,
    usage: Option<Arc<Mutex<AgentUsage>>>,
    counts_tokens: bool,
    _beyond_share: Option<BeyondShare>,
}

/// Counts a request beyond the share of its agent.
struct BeyondShare(Arc<AtomicUsize>);

struct Registered {
    key: AgentKey,
    usage: Arc<Mutex<AgentUsage>>,
}

/// What an agent has used of its limits.
#[derive(Default)]
struct AgentUsage {
    /// Requests and streams in progress.
    in_progress: u32,
    /// When the requests of the last minute were started.
    started: VecDeque<Tick>,
    /// The day (since 1970, UTC) of `tokens`.
    day: i64,
    tokens: u64,
}

const MINUTE: Duration = Duration::from_mins(1);

/// Refuses what a browser sends on behalf of a page: nothing else sends `Origin` or `Sec-Fetch-Site` (Fetch standard). Node's
/// fetch sends `Sec-Fetch-Mode`, which is therefore no evidence.
pub fn refuse_browser(headers: &HeaderMap) -> Result<(), Refusal> {
    static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if headers.contains_key(ORIGIN) || headers.contains_key(&SEC_FETCH_SITE) {
        return Err(Refusal::BrowserRefused);
    }
    Ok(())
}

impl Agents {
    /// With no keys, every local program is an agent; `app` ensures that this is so on local addresses alone.
    /// `connections` is the limit that all agent listeners share.
    pub fn new(keys: Vec<AgentKey>, clock: Clock, connections: ConnectionLimit) -> Self {
        let registered = keys.into_iter().map(|key| Registered { key, usage: Arc::default() }).collect();
        Self { registered: ArcSwap::from_pointee(registered), clock, connections, beyond_shares: Arc::default() }
    }

    /// Replaces all agents. An agent of the same name keeps its usage; grants in use remain valid to their end.
    pub fn replace(&self, keys: Vec<AgentKey>) {
        let before = self.registered.load();
        let usage = |name: &AgentName| before.iter().find(|agent| agent.key.name == *name).map(|agent| &agent.usage);
        let registered =
            keys.into_iter().map(|key| Registered { usage: usage(&key.name).cloned().unwrap_or_default(), key });
        self.registered.store(Arc::new(registered.collect()));
    }

    /// Authenticates the agent by the presented keys, and grants it the account if its accounts and limits allow.
    pub fn authorize(&self, stripped: &Stripped, account: &AccountName) -> Result<AgentGrant, Refusal> {
        let registered = self.registered.load();
        if registered.is_empty() {
            return Ok(AgentGrant { agent: None, usage: None, counts_tokens: false, _beyond_share: None });
        }
        if stripped.presented().is_empty() {
            return Err(Refusal::AgentKeyMissing);
        }
        let agent = stripped
            .presented()
            .iter()
            .find_map(|key| holder_of(&registered, key.expose()))
            .ok_or(Refusal::AgentKeyWrong)?;
        if !agent.key.accounts.contains(account) {
            return Err(Refusal::AccountNotGranted(agent.key.name.clone()));
        }
        self.admit(agent, registered.len())
    }

    /// Checks the limits and counts the request, of one of so many agents.
    fn admit(&self, agent: &Registered, agents: usize) -> Result<AgentGrant, Refusal> {
        let limits = agent.key.limits;
        let now = self.clock.tick();
        let mut usage = lock(&agent.usage);
        let reached = |what, retry_after| Err(Refusal::LimitReached { what, retry_after });
        if limits.concurrent.is_some_and(|most| usage.in_progress >= most) {
            return reached("requests at once", Duration::from_secs(1));
        }
        let beyond_share = self.check_share(usage.in_progress as usize, agents)?;
        if let Some(most) = limits.tokens_per_day {
            let seconds = self.clock.wall().as_seconds();
            let day = seconds.div_euclid(86_400);
            if usage.day != day {
                (usage.day, usage.tokens) = (day, 0);
            }
            if usage.tokens >= most {
                let left = 86_400 - seconds.rem_euclid(86_400);
                return reached("tokens a day", Duration::from_secs(left.unsigned_abs()));
            }
        }
        if let Some(most) = limits.requests_per_minute {
            while usage.started.front().is_some_and(|&at| now.since(at) >= MINUTE) {
                usage.started.pop_front();
            }
            if usage.started.len() >= most as usize {
                let oldest = usage.started.front().map_or(MINUTE, |&at| MINUTE.saturating_sub(now.since(at)));
                return reached("requests a minute", oldest);
            }
            usage.started.push_back(now);
        }
        usage.in_progress += 1;
        Ok(AgentGrant {
            agent: Some(agent.key.name.clone()),
            usage: Some(Arc::clone(&agent.usage)),
            counts_tokens: limits.tokens_per_day.is_some(),
            _beyond_share: beyond_share,
        })
    }

    /// Whether an agent with so many requests in progress may have another: within its share always, beyond it only while no
    /// connection waits and the free half is not used up.
    fn check_share(&self, in_progress: usize, agents: usize) -> Result<Option<BeyondShare>, Refusal> {
        // Each request in progress holds a connection.
        if in_progress == 0 {
            return Ok(None);
        }
        let max = self.connections.max();
        let free = max / 2;
        if in_progress < ((max - free) / agents).max(1) {
            return Ok(None);
        }
        if self.connections.is_contended() || self.beyond_shares.load(Ordering::Relaxed) >= free {
            let what = "connections, its share of `limits.connections`";
            return Err(Refusal::LimitReached { what, retry_after: Duration::from_secs(1) });
        }
        self.beyond_shares.fetch_add(1, Ordering::Relaxed);
        Ok(Some(BeyondShare(Arc::clone(&self.beyond_shares))))
    }
}

/// Compares with every key in constant time, so that the duration does not reveal which one matched.
fn holder_of<'a>(all: &'a [Registered], presented: &str) -> Option<&'a Registered> {
    let digest = Sha256::digest(presented);
    all.iter().fold(None, |found, agent| {
        let same: bool = digest.as_slice().ct_eq(&agent.key.sha256).into();
        if same { Some(agent) } else { found }
    })
}

impl AgentGrant {
    /// The agent's name; `None` where agents need no keys.
    pub fn agent(&self) -> Option<&AgentName> {
        self.agent.as_ref()
    }

    /// Counts tokens of the model against the agent's day, if it has a limit of them.
    pub fn count_tokens(&self, tokens: u64) {
        if let Some(usage) = self.usage.as_ref().filter(|_| self.counts_tokens) {
            let mut usage = lock(usage);
            usage.tokens = usage.tokens.saturating_add(tokens);
        }
    }
}

impl Drop for BeyondShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for AgentGrant {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            let mut usage = lock(usage);
            usage.in_progress = usage.in_progress.saturating_sub(1);
        }
    }
}
