//! What the page and the terminal are told of accounts: never a token.

use serde::Serialize;

use super::Linker;
use super::attempt::Stage;
use super::gauges::{self, QuotaJson, UsageJson};
use super::recipe::{self, Door};
use crate::account::{Account, State};
use crate::clock::Timestamp;
use crate::oauth::profile::Redirect;

/// One account of `GET /api/accounts`.
#[derive(Debug, Serialize)]
pub struct AccountJson {
    name: String,
    provider: String,
    title: String,
    terms: TermsJson,
    flow: &'static str,
    redirect: &'static str,
    state: &'static str,
    usable: bool,
    identity: Option<Vec<String>>,
    scopes: Vec<String>,
    expires_at: Option<String>,
    refreshed_at: Option<String>,
    next_refresh_at: Option<String>,
    error: Option<ErrorJson>,
    quota: Option<Vec<QuotaJson>>,
    usage: Option<UsageJson>,
    base_url: String,
    attempt: Option<AttemptJson>,
}

#[derive(Debug, Serialize)]
struct TermsJson {
    status: &'static str,
    says: String,
    url: Option<String>,
    accepted: bool,
}

#[derive(Debug, Serialize)]
struct ErrorJson {
    title: String,
    detail: &'static str,
}

#[derive(Debug, Serialize)]
struct AttemptJson {
    attempt: String,
    flow: &'static str,
    authorize_url: String,
    host: String,
    scopes: Vec<String>,
    expires_at: String,
    redirect: &'static str,
    exchanged: bool,
    identity: Option<Vec<String>>,
    granted: Option<Vec<String>>,
    replaces: Option<Vec<String>>,
}

impl Linker {
    /// Every account, in the order of the configuration.
    pub fn accounts(&self, door: impl Fn(&Account) -> Door) -> Vec<AccountJson> {
        self.book.iter().map(|account| self.account_json(account, &door(account))).collect()
    }

    fn account_json(&self, account: &Account, door: &Door) -> AccountJson {
        let (view, profile) = (account.view(), account.profile());
        let needs_terms = view.state == State::Unlinked && !account.terms_accepted();
        let rfc3339 = |moment: Option<Timestamp>| moment.map(Timestamp::to_rfc3339);
        let is_linked = view.state != State::Unlinked;
        AccountJson {
            name: account.name().as_str().to_owned(),
            provider: profile.provider.clone(),
            title: profile.title.clone(),
            terms: TermsJson {
                status: profile.terms.status.as_str(),
                says: profile.terms.says.clone(),
                url: profile.terms.url.as_ref().map(ToString::to_string),
                accepted: account.terms_accepted(),
            },
            flow: profile.link.flow.as_str(),
            redirect: redirect_json(&profile.link.redirect),
            state: if needs_terms { "needs_terms" } else { view.state.as_str() },
            usable: account.is_usable(),
            identity: is_linked.then(|| view.identity.clone()),
            scopes: view.scopes.clone(),
            expires_at: rfc3339(view.expires_at),
            refreshed_at: rfc3339(view.refreshed_at),
            next_refresh_at: rfc3339(view.next_refresh_at),
            error: view.error.map(|title| ErrorJson { title, detail: remedy(view.state) }),
            quota: gauges::quota(account),
            usage: gauges::usage(account),
            base_url: recipe::root(account, door),
            attempt: self.attempt_json(account, is_linked.then_some(view.identity)),
        }
    }

    fn attempt_json(&self, account: &Account, linked_as: Option<Vec<String>>) -> Option<AttemptJson> {
        self.with_attempt(account.name(), |attempt| AttemptJson {
            attempt: attempt.id.clone(),
            flow: account.profile().link.flow.as_str(),
            authorize_url: attempt.authorize_url.to_string(),
            host: attempt.authorize_url.host_str().unwrap_or_default().to_owned(),
            scopes: account.profile().link.scopes.clone(),
            expires_at: attempt.expires_at.to_rfc3339(),
            redirect: redirect_json(&account.profile().link.redirect),
            exchanged: Self::is_exchanged(attempt),
            identity: match &attempt.stage {
                Stage::Exchanged(login) => Some(login.identity.clone()),
                Stage::Waiting(_) | Stage::Exchanging => None,
            },
            granted: match &attempt.stage {
                Stage::Exchanged(login) => Some(login.scopes.clone()),
                Stage::Waiting(_) | Stage::Exchanging => None,
            },
            replaces: linked_as,
        })
    }
}

fn redirect_json(redirect: &Redirect) -> &'static str {
    match redirect {
        Redirect::Paste(_) => "paste",
        Redirect::Loopback { .. } => "loopback",
        Redirect::None => "none",
    }
}

fn remedy(state: State) -> &'static str {
    match state {
        State::RelinkRequired => "Link it again; until then agents are told so.",
        State::Linked | State::Refreshing | State::Uncertain => {
            "Nothing to do: Pixy goes on trying, and the current token serves until it ends."
        }
        State::Starting | State::Unlinked => "",
    }
}
