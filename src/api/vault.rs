//! The vault as a whole: key rotation, export, import.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretText;

/// What a key rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRotation {
    /// A new key was made. False where the key file is read-only and lists several keys: its first one is used.
    pub new_key: bool,
    /// How many records were sealed with the new key.
    pub resealed: usize,
    /// Accounts whose record no key opens; it was not changed.
    pub untouched: Vec<String>,
}

/// Exports every login.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ExportRequest {
    /// Seals the export.
    pub passphrase: SecretText,
}

/// Every login, sealed to a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SealedExport {
    /// base64url without padding (RFC 4648 §5).
    pub sealed: String,
}

/// Imports the logins of an export. The answer lists their accounts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ImportRequest {
    /// base64url without padding (RFC 4648 §5).
    pub sealed: String,
    /// The passphrase of the export.
    pub passphrase: SecretText,
    /// Also replaces logins that are stored already.
    pub replace: bool,
}
