//! Revocation (RFC 7009).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::profile::BodyKind;
use super::token_endpoint::{self, Fields};
use super::token_response;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// Short, because a person or a refresh waits for the call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a revocation request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationResponse {
    /// The token is revoked, or was already invalid (RFC 7009 §2.2).
    Revoked,
    /// The provider refused; a retry would not help.
    Refused,
    /// The provider could not be reached or failed; retry after the delay that it asks for, if any (RFC 7009 §2.2.1).
    Unavailable(Option<Duration>),
}

/// The type of the token (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenTypeHint {
    /// Its revocation also revokes its access tokens.
    RefreshToken,
    /// For logins without a refresh token.
    AccessToken,
}

/// Revokes a token at the provider. Never an error for the caller: unlinking continues whatever the provider answers.
pub async fn revoke(
    upstream: &Upstream,
    url: &Url,
    body: BodyKind,
    client_id: Option<&str>,
    token: &Secret,
    hint: TokenTypeHint,
) -> RevocationResponse {
    let mut fields = Fields::default();
    fields.set("token", token.expose());
    let hint = match hint {
        TokenTypeHint::RefreshToken => "refresh_token",
        TokenTypeHint::AccessToken => "access_token",
    };
    fields.set("token_type_hint", hint);
    if let Some(client_id) = client_id {
        fields.set("client_id", client_id);
    }
    match token_endpoint::post(upstream, url, body, &fields, TIMEOUT).await {
        Ok(answer) if answer.status.is_success() => RevocationResponse::Revoked,
        Ok(answer) if answer.status.is_server_error() || matches!(answer.status.as_u16(), 408 | 429) => {
            RevocationResponse::Unavailable(token_response::retry_after(&answer.headers))
        }
        Ok(_) => RevocationResponse::Refused,
        Err(_) => RevocationResponse::Unavailable(None),
    }
}
