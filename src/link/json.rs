//! What the page and the terminal are told of accounts: never a token.

use serde::Serialize;
use serde_json::Value;

use super::Linker;
use super::attempt::{Stage, Way};
use super::client_snippets::{self, AgentEndpoint};
use super::code_exchange::missing;
use super::usage_view::{self, QuotaJson, UsageJson};
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

/// An attempt, as the page and the terminal follow it.
#[derive(Debug, Serialize)]
struct AttemptJson {
    attempt: String,
    flow: &'static str,
    stage: &'static str,
    authorize_url: Option<String>,
    host: String,
    scopes: Vec<String>,
    expires_at: String,
    redirect: &'static str,
    notice: Option<String>,
    user_code: Option<String>,
    verification_url: Option<String>,
    verification_url_complete: Option<String>,
    exchanged: bool,
    identity: Option<Vec<String>>,
    granted: Option<Vec<String>>,
    missing_scopes: Vec<String>,
    replaces: Option<Vec<String>>,
    error: Option<AttemptErrorJson>,
}

#[derive(Debug, Serialize)]
struct AttemptErrorJson {
    r#type: String,
    title: String,
    detail: String,
}

/// What the answer to a begun attempt has of it.
const BEGUN: [&str; 10] = [
    "attempt",
    "flow",
    "authorize_url",
    "expires_at",
    "scopes",
    "redirect",
    "notice",
    "user_code",
    "verification_url",
    "verification_url_complete",
];

impl Linker {
    /// Every account, in the order of the configuration.
    pub fn accounts(&self, door: impl Fn(&Account) -> AgentEndpoint) -> Vec<AccountJson> {
        self.book.iter().map(|account| self.account_json(&account, &door(&account))).collect()
    }

    fn account_json(&self, account: &Account, door: &AgentEndpoint) -> AccountJson {
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
            quota: usage_view::quota(account),
            usage: usage_view::usage(account),
            base_url: client_snippets::root(account, door),
            attempt: self.attempt_json(account, is_linked.then_some(view.identity)),
        }
    }

    /// An attempt that was begun just now; `None` when a newer one took its place in the meantime.
    pub(super) fn begun_json(&self, name: &str, id: &str) -> Option<Value> {
        let account = self.book.find(name)?;
        let attempt = self.attempt_json(&account, None).filter(|attempt| attempt.attempt == id)?;
        let mut all = serde_json::to_value(attempt).ok()?;
        let members = all.as_object_mut()?;
        members.retain(|name, _| BEGUN.contains(&name.as_str()));
        Some(all)
    }

    fn attempt_json(&self, account: &Account, linked_as: Option<Vec<String>>) -> Option<AttemptJson> {
        self.with_attempt(account.name(), |attempt| {
            let (browser, device) = match &attempt.way {
                Way::Browser(browser) => (Some(browser), None),
                Way::Device(device) => (None, Some(device)),
            };
            let login = match &attempt.stage {
                Stage::Exchanged(login) => Some(login),
                Stage::Waiting | Stage::Exchanging | Stage::Failed(_) => None,
            };
            let failed = match &attempt.stage {
                Stage::Failed(failed) => Some(failed),
                Stage::Waiting | Stage::Exchanging | Stage::Exchanged(_) => None,
            };
            let profile = account.profile();
            let asked = &profile.link.scopes;
            let opened =
                browser.map(|browser| &browser.authorize_url).or(device.map(|device| &device.verification_url));
            AttemptJson {
                attempt: attempt.id().to_owned(),
                flow: attempt.flow().as_str(),
                stage: stage_json(&attempt.stage),
                authorize_url: browser.map(|browser| browser.authorize_url.to_string()),
                host: opened.and_then(|url| url.host_str()).unwrap_or_default().to_owned(),
                scopes: asked.clone(),
                expires_at: attempt.expires_at.to_rfc3339(),
                redirect: match browser {
                    None => "device",
                    Some(browser) if browser.comes_back => "loopback",
                    Some(_) => "paste",
                },
                notice: browser.and_then(|browser| browser.notice.clone()),
                user_code: device.map(|device| device.user_code.clone()),
                verification_url: device.map(|device| device.verification_url.to_string()),
                verification_url_complete: device
                    .and_then(|device| device.verification_url_complete.as_ref().map(ToString::to_string)),
                exchanged: login.is_some(),
                identity: login.map(|login| login.identity.clone()),
                granted: login.map(|login| login.scopes.clone()),
                missing_scopes: login
                    .map(|login| missing(asked, &login.scopes))
                    .or(failed.map(|failed| failed.missing_scopes.clone()))
                    .unwrap_or_default(),
                replaces: linked_as,
                error: failed.map(|failed| AttemptErrorJson {
                    r#type: failed.problem.kind.clone(),
                    title: failed.problem.title.clone(),
                    detail: failed.problem.detail.clone(),
                }),
            }
        })
    }
}

fn stage_json(stage: &Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting",
        Stage::Exchanging => "exchanging",
        Stage::Exchanged(_) => "to_confirm",
        Stage::Failed(_) => "failed",
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
