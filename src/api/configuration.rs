//! Sessions, the page's address, the state of the configuration, and the description of the API itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::SecretText;

/// Opens a session on the page.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SetupCode {
    /// From the fragment of the address that `pixy url` prints; works once.
    pub setup_code: SecretText,
}

/// An open session.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// The bearer token of later calls.
    pub session: SecretText,
}

/// The session is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedSession {
    /// Always `closed`.
    pub state: Closed,
}

/// The word `closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// It opens nothing any more.
    Closed,
}

/// The page's address with a fresh setup code in its fragment, which browsers send to no server.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PageUrl {
    /// To open in a browser.
    pub url: SecretText,
}

/// Where the configuration is, and whether its last change was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationStatus {
    /// The file; null: the configuration is the built-in one.
    pub file: Option<String>,
    /// Why the last change was not applied.
    pub problem: Option<String>,
}

/// Server-sent events. Each `accounts` event carries the answer of `GET /api/accounts`: one at once, one after every change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventStream(pub String);

/// An OpenAPI 3.1 document.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OpenApiDocument(pub Map<String, Value>);
