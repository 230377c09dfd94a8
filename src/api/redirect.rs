//! How an authorization code arrives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the authorization code of a profile reaches Pixy by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Redirect {
    /// The person pastes it.
    Paste,
    /// By a redirect to the person's machine (RFC 8252 §7.3).
    Loopback,
    /// The flow has no redirect.
    None,
}
