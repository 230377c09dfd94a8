//! How an account is linked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The grant by which an account is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Authorization code with PKCE (RFC 6749 §4.1, RFC 7636).
    AuthorizationCode,
    /// Device code (RFC 8628).
    DeviceCode,
    /// Client credentials (RFC 6749 §4.4).
    ClientCredentials,
    /// A static API key.
    ApiKey,
}

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
