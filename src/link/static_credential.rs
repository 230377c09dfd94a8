//! Linking without a login: a static key, or a client's secret.

use std::sync::Arc;

use super::Linker;
use super::problem::Problem;
use crate::account::{Account, Login, RefreshCredential};
use crate::oauth::discovery;
use crate::oauth::profile::Flow;
use crate::oauth::token_endpoint::{self, OAuthGrant};
use crate::oauth::token_response::Tokens;
use crate::secret::Secret;

impl Linker {
    /// Takes a static key, or a client secret that is proved at once by asking for a token with it.
    pub async fn set_key(&self, name: &str, key: &str) -> Result<(), Problem> {
        let account = self.linkable(name)?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Problem::bad_body("That is not a key: keys are one word of visible ASCII characters."));
        }
        let key = Secret::new(key.to_owned());
        let login = match account.profile().link.flow {
            Flow::ApiKey => self.login(&account.profile(), None, None, static_tokens(key)),
            Flow::ClientCredentials => self.client_login(&account, key).await?,
            flow @ (Flow::AuthorizationCode | Flow::DeviceCode) => return Err(Problem::other_flow(flow)),
        };
        account.adopt(login).await.map_err(|error| Problem::not_stored(&error.to_string()))
    }

    async fn client_login(&self, account: &Arc<Account>, secret: Secret) -> Result<Login, Problem> {
        let profile = account.profile();
        let endpoints = discovery::endpoints(&self.upstream, &profile, Flow::ClientCredentials).await;
        let endpoints = endpoints.map_err(|error| Problem::discovery(&error.to_string()))?;
        let token_url = endpoints.token.clone().ok_or_else(|| Problem::no_endpoint("token"))?;
        let client_id = profile.link.client_id.as_deref().cloned();
        let grant = OAuthGrant::ClientSecret(&secret);
        let now = self.clock.wall();
        let tokens =
            token_endpoint::request_tokens(&self.upstream, &profile, &token_url, client_id.as_deref(), grant, now)
                .await
                .map_err(|failure| Problem::exchange(token_url.host_str().unwrap_or(&profile.title), &failure))?;
        let login = self.login(&profile, client_id, Some(&endpoints), tokens);
        Ok(Login { refresh_credential: RefreshCredential::ClientSecret { secret }, ..login })
    }
}

fn static_tokens(key: Secret) -> Tokens {
    Tokens {
        access_token: key,
        refresh_token: None,
        lifetime: None,
        not_before: None,
        scopes: None,
        id_token: None,
        identity: Vec::new(),
        claim_headers: Vec::new(),
    }
}
