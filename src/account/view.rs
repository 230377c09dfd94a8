//! The state of an account to show to a person. Holds no token.

use super::state::{Record, RecordStatus};
use crate::clock::{Tick, Timestamp};
use crate::oauth::identity::shown;

/// The state of an account to show to a person. Holds no token.
#[derive(Clone, Debug)]
pub struct View {
    /// The state in one word.
    pub state: State,
    /// Whose account it is.
    pub identity: Vec<String>,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// When it was issued.
    pub refreshed_at: Option<Timestamp>,
    /// When the next refresh is due.
    pub next_refresh_at: Option<Timestamp>,
    /// The error, in a sentence.
    pub error: Option<String>,
    /// The configuration moved the login to origins that it is not bound to; a person may confirm that.
    pub moved: bool,
    /// That the provider refuses the token although it has not expired, in a sentence.
    pub refusal: Option<String>,
    /// The client id that the login belongs to; one that the provider issued is used again for the next link.
    pub client_id: Option<String>,
    /// [`View::next_refresh_at`] on the boot clock, for requests that wait for a token.
    pub(super) refresh_at: Option<Tick>,
}

/// The state of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet read from the vault.
    Starting,
    /// No login.
    Unlinked,
    /// A login that is usable or can be refreshed.
    Linked,
    /// A refresh is in progress.
    Refreshing,
    /// A refresh token was sent and no response received; Pixy retries.
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
            moved: false,
            refusal: None,
            client_id: None,
            refresh_at: None,
        }
    }

    /// The refresh is tried again at `refresh_at`, because of `reason`.
    pub(super) fn postpone(&mut self, refresh_at: Tick, next_refresh_at: Option<Timestamp>, reason: &str) {
        if self.state == State::Refreshing {
            self.state = State::Linked;
        }
        self.refresh_at = Some(refresh_at);
        self.next_refresh_at = next_refresh_at;
        self.error = Some(reason.to_owned());
    }

    /// Of a stored record, without the schedule of its refresh.
    pub(super) fn of(record: &Record) -> Self {
        let (state, error) = match &record.status {
            RecordStatus::Linked if record.unheard_since.is_some() => (State::Uncertain, None),
            RecordStatus::Linked => (State::Linked, None),
            RecordStatus::RelinkRequired { reason, .. } => (State::RelinkRequired, Some(reason.clone())),
            RecordStatus::RevocationPending { .. } => return Self::empty(State::Unlinked),
        };
        let login = &record.login;
        Self {
            // Records of earlier versions hold the provider's texts as they were sent.
            identity: login.identity.iter().map(|text| shown(text)).collect(),
            scopes: login.scopes.iter().map(|text| shown(text)).collect(),
            client_id: login.client_id.clone(),
            expires_at: login.expires_at(),
            refreshed_at: Some(login.obtained_at),
            error,
            ..Self::empty(state)
        }
    }

    /// Of a stored record that the configuration moved, as `sentence` says. One that ended anyway is reported as ended.
    pub(super) fn moved(record: &Record, sentence: String) -> Self {
        let view = Self::of(record);
        if view.state == State::RelinkRequired {
            return view;
        }
        Self { state: State::RelinkRequired, error: Some(sentence), moved: true, ..view }
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
