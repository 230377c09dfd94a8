//! Who is asking: agent keys and what each may use.

use crate::name::{AccountName, AgentName};

/// An agent's key, as a digest: the key itself is never kept.
#[derive(Debug, Clone)]
pub struct AgentKey {
    /// Shown in logs and metrics.
    pub name: AgentName,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Where the key was read from, to tell a person what to put into the agent's environment.
    pub key_file: Option<std::path::PathBuf>,
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
