//! What an attempt is bound to.

use std::sync::Arc;

use crate::name::AccountName;
use crate::oauth::discovery::Endpoints;
use crate::oauth::profile::{Flow, Profile};
use crate::secret::{Secret, base64_url, fill_random};

/// What every later step is bound to, as it was when the attempt began: a code goes to no other endpoint (RFC 9700 §4.4).
pub struct AttemptBinding {
    /// Names the attempt in the API; not a secret.
    pub id: String,
    /// The account to link.
    pub account: AccountName,
    /// The account's profile: a reload changes no open attempt.
    pub profile: Arc<Profile>,
    /// The provider's endpoints.
    pub endpoints: Endpoints,
    /// The client id of the first request.
    pub client_id: Option<String>,
    /// The provider issued the client id at an earlier link.
    pub client_id_was_issued: bool,
    /// The id_token must repeat it.
    pub nonce: Option<Secret>,
}

impl AttemptBinding {
    /// Binds an attempt that begins now. `issued_client_id` is from an earlier link of this account.
    pub fn new(
        account: AccountName,
        profile: Arc<Profile>,
        flow: Flow,
        endpoints: Endpoints,
        issued_client_id: Option<String>,
    ) -> Self {
        let issued = issued_client_id.filter(|_| profile.link.client_id_from_callback);
        let client_id_was_issued = issued.is_some();
        // A device authorization request has no nonce (RFC 8628 §3.1).
        let nonce = (flow == Flow::AuthorizationCode && needs_nonce(&profile)).then(|| Secret::random(16));
        let client_id = issued.or_else(|| profile.link.client_id.as_deref().cloned());
        Self { id: random_id(), account, profile, endpoints, client_id, client_id_was_issued, nonce }
    }
}

/// Whether the request has a nonce: where the profile has a placeholder for it; else with every OpenID Connect login whose
/// id_token will be verified, unless the profile removes the parameter.
fn needs_nonce(profile: &Profile) -> bool {
    let link = &profile.link;
    if link.authorize_params.as_texts().any(|(_, value)| value.is_some_and(|value| value.contains("{nonce}"))) {
        return true;
    }
    let is_overridden = link.authorize_params.as_texts().any(|(name, _)| name == "nonce");
    link.issuer.is_some() && !is_overridden && link.scopes.iter().any(|scope| scope == "openid")
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    base64_url(&bytes)
}
