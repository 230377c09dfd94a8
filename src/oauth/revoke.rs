//! Revocation (RFC 7009).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::profile::BodyKind;
use super::token_endpoint::{self, Fields};
use super::token_response;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// A person waits for it, and so may a refresh.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationResponse {
    /// The provider said yes (RFC 7009 §2.2: also for a token that it no longer knows).
    Revoked,
    /// The provider refused, and asking again would not help.
    Refused,
    /// The provider could not be asked; it should be tried again, after as long as it says (RFC 7009 §2.2.1).
    Unavailable(Option<Duration>),
}

/// What kind of token it is (RFC 7009 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenTypeHint {
    /// With it goes all that came of it.
    RefreshToken,
    /// Where there is nothing else.
    AccessToken,
}

/// Ends a grant at the provider. Never fails for the caller: unlinking goes on whatever the provider says.
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
    match token_endpoint::post_within(TIMEOUT, upstream, url, body, &fields).await {
        Ok(answer) if answer.status.is_success() => RevocationResponse::Revoked,
        Ok(answer) if answer.status.is_server_error() || matches!(answer.status.as_u16(), 408 | 429) => {
            RevocationResponse::Unavailable(token_response::retry_after(&answer.headers))
        }
        Ok(_) => RevocationResponse::Refused,
        Err(_) => RevocationResponse::Unavailable(None),
    }
}
