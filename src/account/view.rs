//! What a person may know of an account; never a token.

use super::state::{Record, Standing};
use crate::clock::{Tick, Timestamp};

/// What a person may know of an account; never a token.
#[derive(Clone, Debug)]
pub struct View {
    /// In a word.
    pub state: State,
    /// Whose it is.
    pub identity: Vec<String>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// When it came.
    pub refreshed_at: Option<Timestamp>,
    /// When the next refresh is due.
    pub next_refresh_at: Option<Timestamp>,
    /// What is wrong, in a sentence.
    pub error: Option<String>,
    /// The client id that the login belongs to; where the provider issued it, the next link asks with it.
    pub client_id: Option<String>,
    /// The same on the boot clock, for those who wait.
    pub(super) refresh_at: Option<Tick>,
}

/// The state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not read from the vault yet.
    Starting,
    /// No login.
    Unlinked,
    /// A login that is or can be made usable.
    Linked,
    /// A refresh is under way.
    Refreshing,
    /// A refresh token was sent and no answer heard; Pixy tries again.
    Uncertain,
    /// A person must link again.
    RelinkRequired,
}

impl View {
    pub(super) fn empty(state: State) -> Self {
        Self {
            state,
            identity: Vec::new(),
            scopes: Vec::new(),
            expires_at: None,
            refreshed_at: None,
            next_refresh_at: None,
            error: None,
            client_id: None,
            refresh_at: None,
        }
    }

    pub(super) fn of(record: &Record) -> Self {
        match &record.standing {
            Standing::Linked if record.unheard_since.is_some() => Self::empty(State::Uncertain),
            Standing::Linked => Self::empty(State::Linked),
            Standing::RelinkRequired { reason, .. } => {
                Self { error: Some(reason.clone()), ..Self::empty(State::RelinkRequired) }
            }
            Standing::RevocationPending { .. } => Self::empty(State::Unlinked),
        }
    }
}

impl State {
    /// As in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Unlinked => "unlinked",
            Self::Linked => "linked",
            Self::Refreshing => "refreshing",
            Self::Uncertain => "uncertain",
            Self::RelinkRequired => "relink_required",
        }
    }
}
