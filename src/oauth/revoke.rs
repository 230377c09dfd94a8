//! Revocation (RFC 7009).

use super::exchange::{self, Fields};
use super::profile::Revoke;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// The provider said yes (RFC 7009 §2.2: also for a token that it no longer knows).
    Yes,
    /// The provider refused, and asking again would not help.
    Refused,
    /// The provider could not be asked; it should be tried again (RFC 7009 §2.2.1).
    NotNow,
}

/// Ends a grant at the provider. Never fails for the caller: unlinking goes on whatever the provider says.
pub async fn revoke(
    upstream: &Upstream,
    settings: &Revoke,
    client_id: Option<&str>,
    refresh_token: &Secret,
) -> Revoked {
    let mut fields = Fields::default();
    fields.set("token", refresh_token.expose());
    fields.set("token_type_hint", "refresh_token");
    if let Some(client_id) = client_id {
        fields.set("client_id", client_id);
    }
    match exchange::post(upstream, &settings.url, settings.body, &fields).await {
        Ok(answer) if answer.status.is_success() => Revoked::Yes,
        Ok(answer) if answer.status.is_server_error() || answer.status.as_u16() == 429 => Revoked::NotNow,
        Ok(_) => Revoked::Refused,
        Err(_) => Revoked::NotNow,
    }
}
