//! RFC 9457 problem details.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a call failed, and what a person can do about it (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Stable: `urn:pixy:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status, repeated (RFC 9457 §3.1.2).
    pub status: u16,
    /// What happened, in a sentence.
    pub title: String,
    /// What to do.
    pub detail: String,
}
