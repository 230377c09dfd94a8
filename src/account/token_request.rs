//! The call of the token endpoint that refreshes a login.

use super::login::{Login, RefreshCredential};
use super::services::AccountServices;
use super::state::Record;
use crate::name::AccountName;
use crate::oauth::discovery;
use crate::oauth::profile::Profile;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::{TokenError, TokenErrorKind, TokenResponse};

/// Requests new tokens for `login`, once.
pub(super) async fn send(
    services: &AccountServices,
    profile: &Profile,
    login: &Login,
) -> Result<TokenResponse, TokenError> {
    let token_url = match profile.token.url.as_deref().cloned().or_else(|| login.token_url.clone()) {
        Some(url) => url,
        None => discover(services, profile).await?,
    };
    let grant = match &login.refresh_credential {
        RefreshCredential::RefreshToken { token } => OAuthGrant::Refresh(token),
        RefreshCredential::ClientSecret { secret } => OAuthGrant::ClientSecret(secret),
        RefreshCredential::None => return Err(TokenError::no_refresh_token()),
    };
    let client_id = login.client_id.as_deref();
    token_endpoint::request_tokens(&services.upstream, profile, &token_url, client_id, grant, services.clock.wall())
        .await
}

async fn discover(services: &AccountServices, profile: &Profile) -> Result<url::Url, TokenError> {
    let endpoints = discovery::endpoints(&services.upstream, profile, profile.link.flow).await;
    endpoints.ok().and_then(|endpoints| endpoints.token).ok_or_else(TokenError::not_discovered)
}

/// Counts and logs the outcome of a request, after which the record is `next`; `error` is `None` for a success.
pub(super) fn report(services: &AccountServices, account: &AccountName, next: &Record, error: Option<&TokenError>) {
    let outcome = match error.map(|error| error.kind) {
        None if next.withheld.is_some() => "withheld",
        None => "renewed",
        Some(TokenErrorKind::Terminal) => "terminal",
        Some(TokenErrorKind::Transient) => "transient",
        Some(TokenErrorKind::NoResponse) => "unheard",
        Some(TokenErrorKind::Unknown) => "unknown",
    };
    services.metrics.record_refresh(account, outcome);
    match error {
        None if next.withheld.is_some() => {
            tracing::warn!(%account, outcome, "the refresh does not continue the login, a person must decide");
        }
        None => tracing::info!(%account, "refreshed"),
        Some(error) => tracing::warn!(%account, outcome, what = error.what, "refresh failed"),
    }
}
