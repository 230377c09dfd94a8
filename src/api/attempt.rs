//! Attempts to link an account.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretText, Time};
use crate::oauth::profile::Flow;

/// Begins an attempt. Without a body the flow of the account's profile is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptOptions {
    /// Instead of the profile's: `authorization_code` or `device_code`.
    #[schemars(with = "Option<Flow>")]
    pub flow: Option<String>,
}

/// An attempt that has just begun: what the person has to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartedAttempt {
    /// The attempt's id.
    pub attempt: String,
    /// The grant in use.
    pub flow: Flow,
    /// The address to open in a browser; null for a device code.
    pub authorize_url: Option<String>,
    /// The scopes that are requested.
    pub scopes: Vec<String>,
    /// When the attempt expires.
    pub expires_at: Time,
    /// How the authorization code reaches Pixy.
    pub redirect: AttemptRedirect,
    /// Why the code must be pasted where a redirect to loopback is usual, or why the redirect is to another port than usual.
    pub notice: Option<String>,
    /// The code to enter at the provider (RFC 8628).
    pub user_code: Option<String>,
    /// The page where it is entered.
    pub verification_url: Option<String>,
    /// The same page with the code filled in.
    pub verification_url_complete: Option<String>,
}

/// An attempt in progress, as `GET /api/accounts` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptStatus {
    /// As when it began.
    #[serde(flatten)]
    pub started: StartedAttempt,
    /// How far it is.
    pub stage: AttemptStage,
    /// The host of the provider's page.
    pub host: String,
    /// The code was exchanged for tokens, which are not stored before the attempt is confirmed.
    pub exchanged: bool,
    /// Whose account it is, once exchanged.
    pub identity: Option<Vec<String>>,
    /// The scopes that were granted, once exchanged.
    pub granted: Option<Vec<String>>,
    /// The scopes that were requested and not granted.
    pub missing_scopes: Vec<String>,
    /// Whose login it would replace.
    pub replaces: Option<Vec<String>>,
    /// Why it failed.
    pub error: Option<AttemptError>,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStage {
    /// Waits for the person.
    Waiting,
    /// The code is being exchanged.
    Exchanging,
    /// Waits for the person to confirm whose account it is.
    ToConfirm,
    /// It failed.
    Failed,
}

/// How the authorization code of an attempt reaches Pixy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptRedirect {
    /// It does not: the person enters a user code at the provider (RFC 8628).
    Device,
    /// By a redirect to the person's machine (RFC 8252 §7.3).
    Loopback,
    /// The person pastes it.
    Paste,
}

/// Why an attempt failed: type, title and detail of a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptError {
    /// Stable: `urn:pixy:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in a sentence.
    pub title: String,
    /// What to do.
    pub detail: String,
}

/// What the person copied from the provider's page or from the browser's address bar.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PastedAnswer {
    /// Holds the authorization code.
    pub text: SecretText,
}

/// What a person is asked to confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Identified {
    /// Whose account it is, as the provider reports it.
    pub identity: Vec<String>,
    /// The scopes that were granted.
    pub scopes: Vec<String>,
    /// The scopes that were requested and not granted.
    pub missing_scopes: Vec<String>,
    /// Whose login it replaces.
    pub replaces: Option<Vec<String>>,
}

/// The attempt was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelledAnswer {
    /// Always the same.
    pub state: Cancelled,
}

/// The state of an attempt that was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cancelled {
    /// Its grant, if there was one, is revoked.
    Cancelled,
}
