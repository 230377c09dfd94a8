//! Accounts: their state, usage and limits, and what agents need to use them. Never a token.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttemptStatus, Redirect, SecretText, Time};
use crate::oauth::profile::{Flow, TermsStatus};

/// One account of `GET /api/accounts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccountStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The provider profile.
    pub provider: String,
    /// The provider's name for people.
    pub title: String,
    /// What the provider's terms say of this use.
    pub terms: Terms,
    /// The grant by which it is linked.
    pub flow: Flow,
    /// How the authorization code reaches Pixy by default.
    pub redirect: Redirect,
    /// Its state.
    pub state: AccountState,
    /// Requests of agents can be served now.
    pub usable: bool,
    /// Whose login it is; null while it is not linked.
    pub identity: Option<Vec<String>>,
    /// The scopes that were granted.
    pub scopes: Vec<String>,
    /// When the access token expires.
    pub expires_at: Option<Time>,
    /// When the access token was issued.
    pub refreshed_at: Option<Time>,
    /// When the next refresh is due.
    pub next_refresh_at: Option<Time>,
    /// The provider refuses the login's token although it has not expired; `error` says what it answers.
    #[serde(default)]
    pub token_refused: bool,
    /// What is wrong.
    pub error: Option<AccountError>,
    /// The provider's rate limits, as it reported them last.
    pub quota: Option<Vec<QuotaLimit>>,
    /// The last 24 hours; null before the first request.
    pub usage: Option<UsageHistory>,
    /// The base URL for agents.
    pub base_url: String,
    /// The attempt to link it that is in progress.
    pub attempt: Option<AttemptStatus>,
}

/// The state of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Not linked, and the configuration does not accept the provider's terms.
    NeedsTerms,
    /// Not read from the vault yet.
    Starting,
    /// No login.
    Unlinked,
    /// A login that is or can be made usable.
    Linked,
    /// A refresh is in progress.
    Refreshing,
    /// A refresh token was sent and no answer received; Pixy retries.
    Uncertain,
    /// A person must link it again.
    RelinkRequired,
}

impl AccountState {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeedsTerms => "needs_terms",
            Self::Starting => "starting",
            Self::Unlinked => "unlinked",
            Self::Linked => "linked",
            Self::Refreshing => "refreshing",
            Self::Uncertain => "uncertain",
            Self::RelinkRequired => "relink_required",
        }
    }
}

/// What the provider's terms say of this use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// In a word.
    pub status: TermsStatus,
    /// In a sentence.
    pub says: String,
    /// Where they are.
    pub url: Option<String>,
    /// The configuration accepts them, or they need no acceptance.
    pub accepted: bool,
}

/// What is wrong with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountError {
    /// What happened, in a sentence.
    pub title: String,
    /// What to do.
    pub detail: String,
    /// The same for programs, where there is a word for it.
    pub reason: Option<ErrorReason>,
}

/// Confirms that a login may be sent to where the configuration has moved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MovedConfirmation {
    /// The `title` of the error that the person saw. When the configuration has changed since, nothing is confirmed.
    pub seen: Option<String>,
}

/// What is wrong with an account, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorReason {
    /// The configuration sends the login to another origin than it was linked for; a person may confirm that.
    Moved,
}

/// One rate limit, as the provider reported it last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QuotaLimit {
    /// `5 hours`, `requests`, `input tokens`.
    pub name: String,
    /// The used share, 0 to 1.
    pub used: Option<f64>,
    /// The limit.
    pub limit: Option<u64>,
    /// What remains of it.
    pub remaining: Option<u64>,
    /// When it is reset.
    pub resets_at: Option<Time>,
}

/// The last 24 hours of an account, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageHistory {
    /// 24 of them.
    pub hours: Vec<UsageHour>,
}

/// One hour of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageHour {
    /// When it began.
    pub from: Time,
    /// Requests that the provider answered.
    pub requests: u64,
    /// The model's input tokens.
    pub input_tokens: u64,
    /// The model's output tokens.
    pub output_tokens: u64,
}

/// Links an account without a login.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StaticCredential {
    /// An API key, or the secret of a client that uses client credentials.
    pub key: SecretText,
}

/// The state of an account after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountStateAnswer {
    /// Its state.
    pub state: AccountState,
}

/// What unlinking an account did at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevocationAnswer {
    /// Whether the login was revoked.
    pub revoked: Revocation,
}

/// Whether a login was revoked at the provider: `true`, `false` (the provider has no way to) or `"pending"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Revocation {
    /// Revoked, or not revoked because the provider offers no revocation.
    Done(bool),
    /// The provider was not reached; Pixy retries.
    Pending(PendingRevocation),
}

/// The word for a revocation that is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PendingRevocation {
    /// The provider was not reached; Pixy retries.
    Pending,
}

/// The names of what requests of an account lost because no list names it, each once and cut, the last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedNames {
    /// Header fields; `accept;charset` stands for the charset parameters of `Accept`.
    pub fields: Vec<String>,
    /// Query keys, as they were sent.
    pub query_keys: Vec<String>,
}

/// What agents of one kind need to use an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClientSnippet {
    /// As in `pixy env NAME --for …`.
    pub client: String,
    /// The client's name for people.
    pub title: String,
    /// To be pasted, whole.
    pub lines: Vec<String>,
    /// The environment variables among them, for `pixy run`.
    pub variables: Vec<Variable>,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, unless it is in a file.
    pub value: String,
    /// The file whose content is the value.
    pub file: Option<PathBuf>,
}
