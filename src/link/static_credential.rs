//! Logins without a person's consent at a provider: an API key, or a client secret (RFC 6749 §4.4).

use super::code_exchange::new_login;
use super::problem::Problem;
use crate::account::{Account, Login, RefreshCredential};
use crate::clock::Clock;
use crate::oauth::discovery;
use crate::oauth::profile::Flow;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::TokenResponse;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// Makes a login of an API key, or of a client secret with which it requests a first token.
///
/// # Errors
/// When `key` is not one word of visible ASCII, the account links by another flow, or the provider issues no token.
pub(super) async fn login(account: &Account, key: &str, upstream: &Upstream, clock: &Clock) -> Result<Login, Problem> {
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::bad_body("That is not a key: keys are one word of visible ASCII characters."));
    }
    let key = Secret::new(key.to_owned());
    match account.profile().link.flow {
        Flow::ApiKey => Ok(new_login(&account.profile(), None, None, static_tokens(key), clock.wall())),
        Flow::ClientCredentials => client_login(account, key, upstream, clock).await,
        flow @ (Flow::AuthorizationCode | Flow::DeviceCode) => Err(Problem::other_flow(flow)),
    }
}

async fn client_login(account: &Account, secret: Secret, upstream: &Upstream, clock: &Clock) -> Result<Login, Problem> {
    let profile = account.profile();
    let endpoints = discovery::endpoints(upstream, &profile, Flow::ClientCredentials).await;
    let endpoints = endpoints.map_err(|error| Problem::discovery(&error.to_string()))?;
    let token_url = endpoints.token.clone().ok_or_else(|| Problem::no_endpoint("token"))?;
    let client_id = profile.link.client_id.as_deref().cloned();
    let (grant, now) = (OAuthGrant::ClientSecret(&secret), clock.wall());
    let tokens = token_endpoint::request_tokens(upstream, &profile, &token_url, client_id.as_deref(), grant, now)
        .await
        .map_err(|error| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &error))?;
    let login = new_login(&profile, client_id, Some(&endpoints), tokens, clock.wall());
    Ok(Login { refresh_credential: RefreshCredential::ClientSecret { secret }, ..login })
}

fn static_tokens(key: Secret) -> TokenResponse {
    TokenResponse {
        access_token: key,
        refresh_token: None,
        lifetime: None,
        not_before: None,
        scopes: None,
        id_token: None,
        subject: None,
        identity: Vec::new(),
        claim_headers: Vec::new(),
    }
}
