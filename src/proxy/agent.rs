//! Who is asking: browsers are refused, agents are known by their key, and each may use what it was granted.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::refusal::Refusal;
use super::strip::Stripped;
use crate::clock::{Clock, Tick};
use crate::name::{AccountName, AgentName};

/// An agent's key, as a digest: the key itself is never kept.
#[derive(Debug, Clone)]
pub struct AgentKey {
    /// Shown in logs and metrics.
    pub name: AgentName,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Where the key was read from, to tell a person what to put into the agent's environment.
    pub key_file: Option<PathBuf>,
    /// The accounts it may use.
    pub accounts: Vec<AccountName>,
    /// How much it may use them.
    pub limits: Limits,
}

/// Limits of one agent; absent means none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests started in any minute.
    pub requests_per_minute: Option<u32>,
    /// Requests and streams under way at once.
    pub concurrent: Option<u32>,
    /// Tokens of the model (in and out) in a calendar day, UTC.
    pub tokens_per_day: Option<u64>,
}

/// All agents that may ask.
pub struct Agents {
    known: ArcSwap<Vec<Known>>,
    clock: Clock,
}

/// Leave to use one account, held until the answer's last byte: made by [`Agents::authorize`] alone.
///
/// ```
/// fn needs(_: &pixy::proxy::agent::Grant) {}
/// ```
///
/// Nobody else can make one:
///
/// ```compile_fail
/// fn needs(_: &pixy::proxy::agent::Grant) {}
/// needs(&pixy::proxy::agent::Grant { agent: None, usage: None, counts_tokens: false });
/// ```
pub struct Grant {
    agent: Option<AgentName>,
    usage: Option<Arc<Mutex<Usage>>>,
    counts_tokens: bool,
}

struct Known {
    key: AgentKey,
    usage: Arc<Mutex<Usage>>,
}

#[derive(Default)]
struct Usage {
    under_way: u32,
    /// When the requests of the last minute were started.
    started: VecDeque<Tick>,
    /// The day (since 1970, UTC) that `tokens` counts.
    day: i64,
    tokens: u64,
}

const MINUTE: Duration = Duration::from_mins(1);

/// A page in a browser says where it comes from (Fetch standard): nothing else sends `Origin` or `Sec-Fetch-Site`. Node's
/// fetch sends `Sec-Fetch-Mode`, which is therefore no sign.
pub fn refuse_browser(headers: &HeaderMap) -> Result<(), Refusal> {
    static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    if headers.contains_key(ORIGIN) || headers.contains_key(&SEC_FETCH_SITE) {
        return Err(Refusal::BrowserRefused);
    }
    Ok(())
}

impl Agents {
    /// With no keys, every local program is an agent; `app` sees to it that this happens on local addresses alone.
    pub fn new(keys: Vec<AgentKey>, clock: Clock) -> Self {
        let known = keys.into_iter().map(|key| Known { key, usage: Arc::default() }).collect();
        Self { known: ArcSwap::from_pointee(known), clock }
    }

    /// Knows these from now on, and no others. What an agent of the same name has used up stays used up, and what it was
    /// granted before goes on to its end.
    pub fn replace(&self, keys: Vec<AgentKey>) {
        let before = self.known.load();
        let usage = |name: &AgentName| before.iter().find(|known| known.key.name == *name).map(|known| &known.usage);
        let known = keys.into_iter().map(|key| Known { usage: usage(&key.name).cloned().unwrap_or_default(), key });
        self.known.store(Arc::new(known.collect()));
    }

    /// Whether what the agent presented lets it use the account now.
    pub fn authorize(&self, stripped: &Stripped, account: &AccountName) -> Result<Grant, Refusal> {
        let known = self.known.load();
        if known.is_empty() {
            return Ok(Grant { agent: None, usage: None, counts_tokens: false });
        }
        if stripped.presented().is_empty() {
            return Err(Refusal::AgentKeyMissing);
        }
        let known = stripped
            .presented()
            .iter()
            .find_map(|key| holder_of(&known, key.expose()))
            .ok_or(Refusal::AgentKeyWrong)?;
        if !known.key.accounts.contains(account) {
            return Err(Refusal::AccountNotGranted(known.key.name.clone()));
        }
        self.admit(known)
    }

    fn admit(&self, known: &Known) -> Result<Grant, Refusal> {
        let limits = known.key.limits;
        let now = self.clock.tick();
        let mut usage = lock(&known.usage);
        let reached = |what, retry_after| Err(Refusal::LimitReached { what, retry_after });
        if limits.concurrent.is_some_and(|most| usage.under_way >= most) {
            return reached("requests at once", Duration::from_secs(1));
        }
        if let Some(most) = limits.tokens_per_day {
            let seconds = self.clock.wall().as_seconds();
            usage.turn_to(seconds.div_euclid(86_400));
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
        usage.under_way += 1;
        Ok(Grant {
            agent: Some(known.key.name.clone()),
            usage: Some(Arc::clone(&known.usage)),
            counts_tokens: limits.tokens_per_day.is_some(),
        })
    }
}

/// Compares with every key, so that the time taken tells nothing of which one matched.
fn holder_of<'a>(all: &'a [Known], presented: &str) -> Option<&'a Known> {
    let digest = Sha256::digest(presented);
    all.iter().fold(None, |found, known| {
        let same: bool = digest.as_slice().ct_eq(&known.key.sha256).into();
        if same { Some(known) } else { found }
    })
}

impl Grant {
    /// The agent's name, where agents have keys.
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

impl Drop for Grant {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            let mut usage = lock(usage);
            usage.under_way = usage.under_way.saturating_sub(1);
        }
    }
}

impl Usage {
    fn turn_to(&mut self, day: i64) {
        if self.day != day {
            self.day = day;
            self.tokens = 0;
        }
    }
}

/// A panic elsewhere leaves numbers that are still numbers.
fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}
