//! From an authorization code to a login: redeems the code, verifies the tokens and keeps the login for the person to confirm.
//! Stores nothing.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{AttemptFailure, CodeRedemption};
use super::attempt_binding::AttemptBinding;
use super::attempts::Attempts;
use super::problem::Problem;
use crate::account::{Account, Accounts, Bound, Login, RefreshCredential, RevocationOutcome, State};
use crate::api::Identified;
use crate::clock::{Clock, Timestamp};
use crate::oauth::discovery::Endpoints;
use crate::oauth::id_token::{self, ExpectedClaims};
use crate::oauth::profile::Profile;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::TokenResponse;
use crate::upstream::Upstream;

/// Seconds between the tries to revoke a login that is stored nowhere.
const REVOKE_PAUSES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Exchanges codes for logins.
pub struct CodeExchange {
    /// The accounts.
    pub accounts: Accounts,
    /// For the providers' endpoints.
    pub upstream: Upstream,
    /// The time.
    pub clock: Clock,
    /// Where logins are kept for the person to confirm.
    pub attempts: Arc<Attempts>,
}

impl CodeExchange {
    /// Redeems the code, once, whatever the outcome (RFC 6749 §4.1.2).
    ///
    /// Runs in a task of its own: a page that is closed now must not lose a code that was already sent.
    pub async fn redeem(self: &Arc<Self>, redemption: CodeRedemption) -> Result<Identified, Problem> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.redeem_now(redemption).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn redeem_now(&self, redemption: CodeRedemption) -> Result<Identified, Problem> {
        let CodeRedemption { binding, client_id, code, verifier, redirect_uri, state } = redemption;
        let profile = &binding.profile;
        let tokens = match (&binding.endpoints.token, self.check_served(&binding)) {
            (_, Err(problem)) => Err(problem),
            (None, _) => Err(Problem::no_endpoint("token")),
            (Some(token_url), Ok(())) => {
                let (redirect_uri, state) = (redirect_uri.as_str(), state.as_ref());
                let grant = OAuthGrant::Code { code: &code, verifier: &verifier, redirect_uri, state };
                let now = self.clock.wall();
                token_endpoint::request_tokens(&self.upstream, profile, token_url, client_id.as_deref(), grant, now)
                    .await
                    .map_err(|error| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &error))
            }
        };
        match tokens {
            Ok(tokens) => self.keep_tokens(&binding, client_id, tokens).await,
            Err(problem) => Err(self.fail(&binding, problem.into())),
        }
    }

    /// Verifies the tokens of an attempt and keeps them for the person to confirm; revokes what it does not keep.
    pub async fn keep_tokens(
        &self,
        binding: &AttemptBinding,
        client_id: Option<String>,
        tokens: TokenResponse,
    ) -> Result<Identified, Problem> {
        let profile = &binding.profile;
        let verified = self.verify_id_token(binding, client_id.as_deref(), &tokens).await;
        let login = new_login(profile, client_id, Some(&binding.endpoints), tokens, self.clock.wall());
        // A reload may have removed the account since the attempt began: its login can still be revoked.
        let Some(account) = self.accounts.known(&binding.account) else {
            return Err(self.fail(binding, Problem::no_account(binding.account.as_str()).into()));
        };
        let missing_scopes = missing(&profile.link.required_scopes, &login.scopes);
        let failure = match verified.and_then(|()| self.check_served(binding)) {
            Err(problem) => problem.into(),
            Ok(()) if missing_scopes.is_empty() => return self.keep_to_confirm(&account, binding, login),
            Ok(()) => AttemptFailure { problem: Problem::missing_scopes(&missing_scopes), missing_scopes },
        };
        revoke_unconfirmed(&account, login);
        Err(self.fail(binding, failure))
    }

    /// Verifies the id_token, where there is an issuer to verify it by (OpenID Connect Core §3.1.3.7).
    async fn verify_id_token(
        &self,
        binding: &AttemptBinding,
        client_id: Option<&str>,
        tokens: &TokenResponse,
    ) -> Result<(), Problem> {
        let AttemptBinding { endpoints, nonce, .. } = binding;
        let Some(issuer) = &endpoints.issuer else { return Ok(()) };
        let Some(token) = &tokens.id_token else {
            // A server that did not grant `openid` sends none; one that did, and got a nonce, must.
            let is_required = tokens.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope == "openid"));
            return if nonce.is_some() && is_required { Err(Problem::no_id_token()) } else { Ok(()) };
        };
        let jwks_url = endpoints.jwks.as_ref().ok_or_else(Problem::no_keys)?;
        let client_id = client_id.unwrap_or_default();
        let expected = ExpectedClaims { issuer, client_id, nonce: nonce.as_ref(), now: self.clock.wall() };
        let checked = id_token::check(&self.upstream, jwks_url, token, &expected).await;
        checked.map_err(|error| Problem::id_token(&error))
    }

    fn keep_to_confirm(
        &self,
        account: &Arc<Account>,
        binding: &AttemptBinding,
        login: Login,
    ) -> Result<Identified, Problem> {
        let current = account.view();
        let is_linked = !matches!(current.state, State::Unlinked | State::Starting);
        let identified = Identified {
            identity: login.identity.clone(),
            scopes: login.scopes.clone(),
            missing_scopes: missing(&binding.profile.link.scopes, &login.scopes),
            replaces: is_linked.then_some(current.identity),
        };
        if self.attempts.keep_to_confirm(&binding.id, login.clone()) {
            return Ok(identified);
        }
        revoke_unconfirmed(account, login); // the attempt was cancelled or replaced during the exchange
        Err(Problem::no_attempt())
    }

    fn fail(&self, binding: &AttemptBinding, failure: AttemptFailure) -> Problem {
        let problem = failure.problem.clone();
        self.attempts.fail(&binding.id, failure);
        problem
    }

    fn check_served(&self, binding: &AttemptBinding) -> Result<(), Problem> {
        let name = binding.account.as_str();
        self.accounts.find(name).map(drop).ok_or_else(|| Problem::no_account(name))
    }
}

/// Revokes a login that was never confirmed, retrying while the provider cannot be reached.
pub(super) fn revoke_unconfirmed(account: &Arc<Account>, login: Login) {
    // Weak: a provider that does not answer must not keep a stopped Pixy, and the lock of its vault, alive.
    let account = Arc::downgrade(account);
    tokio::spawn(async move {
        for pause in REVOKE_PAUSES {
            let Some(account) = account.upgrade() else { return };
            if account.discard(&login).await != RevocationOutcome::Pending {
                return;
            }
            drop(account);
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
    });
}

/// A login from the tokens of a grant that began now.
pub(super) fn new_login(
    profile: &Profile,
    client_id: Option<String>,
    endpoints: Option<&Endpoints>,
    tokens: TokenResponse,
    now: Timestamp,
) -> Login {
    let refresh_credential =
        tokens.refresh_token.map_or(RefreshCredential::None, |token| RefreshCredential::RefreshToken { token });
    Login {
        access_token: tokens.access_token,
        refresh_credential,
        obtained_at: now,
        lifetime: tokens.lifetime,
        not_before: tokens.not_before,
        serial: 0,
        client_id,
        token_url: endpoints.and_then(|endpoints| endpoints.token.clone()),
        revoke_url: endpoints.and_then(|endpoints| endpoints.revoke.clone()),
        // RFC 6749 §5.1: a response without `scope` grants what was asked for.
        scopes: tokens.scopes.unwrap_or_else(|| profile.link.scopes.clone()),
        subject: tokens.subject,
        identity: tokens.identity,
        claim_headers: tokens.claim_headers,
        bound: Some(Bound::to(profile, endpoints.and_then(|endpoints| endpoints.revoke.as_ref()))),
    }
}

/// The scopes in `wanted` that are not in `granted`.
pub(super) fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect()
}
