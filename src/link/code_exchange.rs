//! What becomes of a code: tokens, checked and kept for the person to confirm. Nothing here is stored.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Bound, Failed, Spending, Stage};
use super::problem::Problem;
use super::{Identified, Linker};
use crate::account::{Account, Login, RefreshCredential, RevocationOutcome, State};
use crate::oauth::id_token::{self, ExpectedClaims};
use crate::oauth::profile::Profile;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::Tokens;
use crate::secret::Secret;

/// Seconds between the tries to give back a login that is stored nowhere.
const GIVE_BACK_AGAIN: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Whose exchange it is.
pub(super) struct Exchange {
    pub bound: Arc<Bound>,
    /// The client id that the grant belongs to; the provider may have issued it just now.
    pub client_id: Option<String>,
}

impl Linker {
    /// Spends the code, once, whatever happens (RFC 6749 §4.1.2).
    pub(super) async fn spend(
        self: &Arc<Self>,
        exchange: Exchange,
        code: Secret,
        spending: Spending,
    ) -> Result<Identified, Problem> {
        let account = self.account(exchange.bound.account.as_str())?;
        let profile = account.profile();
        let tokens = match &exchange.bound.endpoints.token {
            None => Err(Problem::no_endpoint("token")),
            Some(token_url) => {
                let grant = OAuthGrant::Code {
                    code: &code,
                    verifier: &spending.verifier,
                    redirect_uri: spending.redirect_uri.as_str(),
                    state: spending.state.as_ref(),
                };
                let now = self.clock.wall();
                token_endpoint::request_tokens(
                    &self.upstream,
                    &profile,
                    token_url,
                    exchange.client_id.as_deref(),
                    grant,
                    now,
                )
                .await
                .map_err(|failure| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &failure))
            }
        };
        self.keep_tokens(exchange, tokens).await
    }

    /// Checks tokens that came for an attempt and keeps them for the person to confirm. A login that is not kept is given back.
    pub(super) async fn keep_tokens(
        self: &Arc<Self>,
        exchange: Exchange,
        tokens: Result<Tokens, Problem>,
    ) -> Result<Identified, Problem> {
        let account = self.account(exchange.bound.account.as_str())?;
        let profile = account.profile();
        let failed = match tokens {
            Ok(tokens) => {
                let proven = self.prove(&exchange, &tokens).await;
                let login = self.login(&profile, exchange.client_id.clone(), Some(&exchange.bound.endpoints), tokens);
                let lacking = missing(&profile.link.required_scopes, &login.scopes);
                let failed = match proven {
                    Err(problem) => Failed::because(problem),
                    Ok(()) if lacking.is_empty() => {
                        return self.keep_for_confirming(&account, &exchange.bound.id, login);
                    }
                    Ok(()) => Failed { problem: Problem::missing_scopes(&lacking), missing_scopes: lacking },
                };
                Self::give_back(&account, login);
                failed
            }
            Err(problem) => Failed::because(problem),
        };
        let problem = failed.problem.clone();
        self.fail(&exchange.bound.id, failed);
        Err(problem)
    }

    /// The id_token, where there is an issuer to verify it by (OpenID Connect Core §3.1.3.7).
    async fn prove(&self, exchange: &Exchange, tokens: &Tokens) -> Result<(), Problem> {
        let Bound { endpoints, nonce, .. } = &*exchange.bound;
        let Some(issuer) = &endpoints.issuer else { return Ok(()) };
        let Some(token) = &tokens.id_token else {
            // A server that grants no `openid` has none to give; one that does, and was told a nonce, owes it.
            let owed = tokens.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|scope| scope == "openid"));
            return if nonce.is_some() && owed { Err(Problem::no_id_token()) } else { Ok(()) };
        };
        let jwks_url = endpoints.jwks.as_ref().ok_or_else(Problem::no_keys)?;
        let client_id = exchange.client_id.as_deref().unwrap_or_default();
        let expected = ExpectedClaims { issuer, client_id, nonce: nonce.as_ref(), now: self.clock.wall() };
        let checked = id_token::check(&self.upstream, jwks_url, token, &expected).await;
        checked.map_err(|unproven| Problem::id_token(&unproven))
    }

    fn keep_for_confirming(&self, account: &Arc<Account>, id: &str, login: Login) -> Result<Identified, Problem> {
        let before = account.view();
        let is_linked = !matches!(before.state, State::Unlinked | State::Starting);
        let identified = Identified {
            identity: login.identity.clone(),
            scopes: login.scopes.clone(),
            missing_scopes: missing(&account.profile().link.scopes, &login.scopes),
            replaces: is_linked.then_some(before.identity),
        };
        let kept = match self.attempts().values_mut().find(|attempt| attempt.id() == id) {
            Some(attempt) => {
                attempt.stage = Stage::Exchanged(Box::new(login.clone()));
                true
            }
            None => false,
        };
        self.changed();
        if kept {
            return Ok(identified);
        }
        Self::give_back(account, login); // cancelled, or replaced by a newer attempt, in the meantime
        Err(Problem::no_attempt())
    }

    /// A grant that nobody confirmed must not live on at the provider.
    pub(super) fn give_back(account: &Arc<Account>, login: Login) {
        // Weak: a Pixy that has gone down must not be kept alive by a provider that does not answer.
        let account = Arc::downgrade(account);
        tokio::spawn(async move {
            for pause in GIVE_BACK_AGAIN {
                let Some(account) = account.upgrade() else { return };
                if account.discard(&login).await != RevocationOutcome::Pending {
                    return;
                }
                drop(account);
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
        });
    }

    pub(super) fn login(
        &self,
        profile: &Profile,
        client_id: Option<String>,
        endpoints: Option<&crate::oauth::discovery::Endpoints>,
        tokens: Tokens,
    ) -> Login {
        let refresh_credential =
            tokens.refresh_token.map_or(RefreshCredential::None, |token| RefreshCredential::RefreshToken { token });
        Login {
            access_token: tokens.access_token,
            refresh_credential,
            obtained_at: self.clock.wall(),
            lifetime: tokens.lifetime,
            not_before: tokens.not_before,
            serial: 0,
            client_id,
            token_url: endpoints.and_then(|endpoints| endpoints.token.clone()),
            revoke_url: endpoints.and_then(|endpoints| endpoints.revoke.clone()),
            // RFC 6749 §5.1: a reply without `scope` grants what was asked for.
            scopes: tokens.scopes.unwrap_or_else(|| profile.link.scopes.clone()),
            identity: tokens.identity,
            claim_headers: tokens.claim_headers,
        }
    }
}

impl Failed {
    /// For this reason, and no scope is to blame.
    pub(super) fn because(problem: Problem) -> Self {
        Self { problem, missing_scopes: Vec::new() }
    }
}

/// What was wanted and not granted.
pub(super) fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    wanted.iter().filter(|scope| !granted.contains(scope)).cloned().collect()
}
