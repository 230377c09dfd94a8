//! The status of accounts and attempts, as the API reports it: never a token.

use super::Linker;
use super::attempt::{Attempt, AttemptFlow, Stage};
use super::client_snippets::{self, AgentEndpoint};
use super::code_exchange::missing;
use crate::account::{Account, State, View};
use crate::api::{
    AccountError, AccountState, AccountStatus, AttemptError, AttemptRedirect, AttemptStage, AttemptStatus, ErrorReason,
    QuotaLimit, Redirect, StartedAttempt, Terms, Time, UsageHistory, UsageHour,
};
use crate::name::AccountName;
use crate::oauth::profile;

impl Linker {
    /// Every account, in the order of the configuration.
    pub fn account_statuses(&self, endpoint: impl Fn(&Account) -> AgentEndpoint) -> Vec<AccountStatus> {
        self.accounts.iter().map(|account| self.account_status(&account, &endpoint(&account))).collect()
    }

    fn account_status(&self, account: &Account, endpoint: &AgentEndpoint) -> AccountStatus {
        let (view, profile) = (account.view(), account.profile());
        let is_linked = view.state != State::Unlinked;
        AccountStatus {
            name: account.name().as_str().to_owned(),
            provider: profile.provider.clone(),
            title: profile.title.clone(),
            terms: terms(&profile.terms, account.terms_accepted()),
            flow: profile.link.flow,
            redirect: redirect(&profile.link.redirect),
            state: match view.state {
                State::Unlinked if !account.terms_accepted() => AccountState::NeedsTerms,
                other => state(other),
            },
            usable: account.is_usable(),
            identity: is_linked.then(|| view.identity.clone()),
            scopes: view.scopes.clone(),
            expires_at: view.expires_at.map(Time),
            refreshed_at: view.refreshed_at.map(Time),
            next_refresh_at: view.next_refresh_at.map(Time),
            token_refused: view.refusal.is_some(),
            error: error(account.name(), &view),
            quota: quota(account),
            usage: usage(account),
            base_url: client_snippets::base_url(account, endpoint),
            attempt: self.attempt_status(account, is_linked.then(|| view.identity.clone())),
        }
    }

    /// An attempt that has just begun; `None` when a newer one replaced it in the meantime.
    pub(super) fn started_attempt(&self, name: &str, id: &str) -> Option<StartedAttempt> {
        let account = self.accounts.find(name)?;
        let status = self.attempt_status(&account, None).filter(|status| status.started.attempt == id)?;
        Some(status.started)
    }

    fn attempt_status(&self, account: &Account, linked_as: Option<Vec<String>>) -> Option<AttemptStatus> {
        self.attempts.of_account(account.name(), |attempt| attempt_status(attempt, linked_as))
    }
}

fn attempt_status(attempt: &Attempt, linked_as: Option<Vec<String>>) -> AttemptStatus {
    let (browser, device) = match &attempt.flow {
        AttemptFlow::AuthorizationCode(browser) => (Some(browser), None),
        AttemptFlow::DeviceCode(device) => (None, Some(device)),
    };
    let (stage, login, failed) = match &attempt.stage {
        Stage::Waiting => (AttemptStage::Waiting, None, None),
        Stage::Exchanging => (AttemptStage::Exchanging, None, None),
        Stage::ToConfirm(login) => (AttemptStage::ToConfirm, Some(login), None),
        Stage::Failed(failed) => (AttemptStage::Failed, None, Some(failed)),
    };
    let requested = &attempt.binding.profile.link.scopes;
    let page = browser.map(|browser| &browser.authorize_url).or(device.map(|device| &device.verification_url));
    let started = StartedAttempt {
        attempt: attempt.id().to_owned(),
        flow: attempt.flow.kind(),
        authorize_url: browser.map(|browser| browser.authorize_url.to_string()),
        scopes: requested.clone(),
        expires_at: Time(attempt.expires_at),
        redirect: match browser {
            None => AttemptRedirect::Device,
            Some(browser) if browser.reaches_pixy => AttemptRedirect::Loopback,
            Some(_) => AttemptRedirect::Paste,
        },
        notice: browser.and_then(|browser| browser.notice.clone()),
        user_code: device.map(|device| device.user_code.clone()),
        verification_url: device.map(|device| device.verification_url.to_string()),
        verification_url_complete: device
            .and_then(|device| device.verification_url_complete.as_ref().map(ToString::to_string)),
    };
    AttemptStatus {
        started,
        stage,
        host: page.and_then(|url| url.host_str()).unwrap_or_default().to_owned(),
        exchanged: login.is_some(),
        identity: login.map(|login| login.identity.clone()),
        granted: login.map(|login| login.scopes.clone()),
        missing_scopes: login
            .map(|login| missing(requested, &login.scopes))
            .or(failed.map(|failed| failed.missing_scopes.clone()))
            .unwrap_or_default(),
        replaces: linked_as,
        error: failed.map(|failed| AttemptError {
            kind: failed.problem.kind.clone(),
            title: failed.problem.title.clone(),
            detail: failed.problem.detail.clone(),
        }),
    }
}

fn terms(terms: &profile::Terms, accepted: bool) -> Terms {
    Terms {
        status: terms.status,
        says: terms.says.clone(),
        url: terms.url.as_deref().map(ToString::to_string),
        accepted,
    }
}

fn redirect(redirect: &profile::Redirect) -> Redirect {
    match redirect {
        profile::Redirect::Paste(_) => Redirect::Paste,
        profile::Redirect::Loopback(_) => Redirect::Loopback,
        profile::Redirect::None => Redirect::None,
    }
}

/// The state in the API.
pub(super) fn state(state: State) -> AccountState {
    match state {
        State::Starting => AccountState::Starting,
        State::Unlinked => AccountState::Unlinked,
        State::Linked => AccountState::Linked,
        State::Refreshing => AccountState::Refreshing,
        State::Uncertain => AccountState::Uncertain,
        State::RelinkRequired => AccountState::RelinkRequired,
    }
}

fn error(name: &AccountName, view: &View) -> Option<AccountError> {
    if view.moved {
        let detail = format!(
            "If you trust the new address, confirm it on the page or with `pixy link {name} --moved`, or link the account again. \
             Until then this login is sent nowhere, and agents get an error that says so."
        );
        return Some(AccountError { title: view.error.clone()?, detail, reason: Some(ErrorReason::Moved) });
    }
    if let (None, Some(refusal)) = (&view.error, &view.refusal) {
        let detail = "Agents get the provider's answer. Pixy tries a fresh token again after a growing pause of up to an hour. If the \
                      account at the provider is in order, link it again.";
        return Some(AccountError { title: refusal.clone(), detail: detail.to_owned(), reason: None });
    }
    let detail = match view.state {
        State::RelinkRequired => "Link it again; until then agents get an error that says so.",
        State::Linked | State::Refreshing | State::Uncertain => {
            "Nothing to do: Pixy retries, and the current token is used until it expires."
        }
        State::Starting | State::Unlinked => "",
    };
    Some(AccountError { title: view.error.clone()?, detail: detail.to_owned(), reason: None })
}

/// `None` before the provider has reported a limit.
fn quota(account: &Account) -> Option<Vec<QuotaLimit>> {
    let limits = account.quota().into_iter().map(|quota| QuotaLimit {
        name: quota.name,
        used: quota.used,
        limit: quota.limit,
        remaining: quota.remaining,
        resets_at: quota.resets_at.map(Time),
    });
    Some(limits.collect::<Vec<_>>()).filter(|limits| !limits.is_empty())
}

/// `None` before the first request.
fn usage(account: &Account) -> Option<UsageHistory> {
    let hours = account.usage()?.into_iter().map(|hour| UsageHour {
        from: Time(hour.from),
        requests: hour.requests,
        input_tokens: hour.tokens.input,
        output_tokens: hour.tokens.output,
    });
    Some(UsageHistory { hours: hours.collect() })
}
