//! The authorization request that a person opens in a browser (RFC 6749 §4.1.1, with PKCE: RFC 7636).

use std::sync::Arc;

use url::Url;

use super::attempt_binding::AttemptBinding;
use super::problem::Problem;
use super::redirect_target::{CallbackListener, RedirectTarget};
use crate::oauth::pkce::Verifier;
use crate::oauth::profile::Profile;
use crate::secret::Secret;

/// An authorization request, with what its response is checked against.
pub struct AuthorizationRequest {
    /// The address that the person opens.
    pub authorize_url: Url,
    /// The exact string of authorization and token request (RFC 6749 §4.1.3).
    pub redirect_uri: Url,
    /// See [`RedirectTarget::reaches_pixy`].
    pub reaches_pixy: bool,
    /// See [`RedirectTarget::notice`].
    pub notice: Option<String>,
    /// Names this attempt in its response, and proves that the response belongs to it.
    pub state: Secret,
    /// The response issues the client id.
    pub issues_client_id: bool,
    /// Taken with the code: a second response finds none.
    pub verifier: Option<Verifier>,
    _listener: Option<Arc<CallbackListener>>,
}

impl AuthorizationRequest {
    /// Makes verifier and state, and the address to open.
    ///
    /// # Errors
    /// When the provider has no authorization endpoint.
    pub fn new(
        profile: &Profile,
        binding: &AttemptBinding,
        target: RedirectTarget,
        installation: &str,
    ) -> Result<Self, Problem> {
        let endpoint = binding.endpoints.authorize.clone().ok_or_else(|| Problem::no_endpoint("authorization"))?;
        let RedirectTarget { redirect_uri, reaches_pixy, notice, listener } = target;
        let (state, verifier) = (Secret::random(32), Verifier::generate());
        let query =
            Query { profile, binding, redirect_uri: &redirect_uri, state: &state, verifier: &verifier, installation };
        Ok(Self {
            authorize_url: query.append_to(endpoint),
            redirect_uri,
            reaches_pixy,
            notice,
            state,
            issues_client_id: profile.link.client_id_from_callback,
            verifier: Some(verifier),
            _listener: listener,
        })
    }
}

/// What the query of the request is made of.
struct Query<'a> {
    profile: &'a Profile,
    binding: &'a AttemptBinding,
    redirect_uri: &'a Url,
    state: &'a Secret,
    verifier: &'a Verifier,
    installation: &'a str,
}

impl Query<'_> {
    fn append_to(&self, mut url: Url) -> Url {
        let link = &self.profile.link;
        let mut parameters: Vec<(String, String)> = vec![
            ("response_type".into(), "code".into()),
            ("redirect_uri".into(), self.redirect_uri.to_string()),
            ("state".into(), self.state.expose().to_owned()),
            ("code_challenge".into(), self.verifier.challenge()),
            ("code_challenge_method".into(), "S256".into()),
        ];
        if let Some(client_id) = &self.binding.client_id {
            parameters.insert(1, ("client_id".into(), client_id.clone()));
        }
        if !link.scopes.is_empty() {
            parameters.push(("scope".into(), link.scopes.join(" ")));
        }
        if let Some(nonce) = &self.binding.nonce {
            parameters.push(("nonce".into(), nonce.expose().to_owned()));
        }
        for (name, value) in link.authorize_params.as_texts() {
            parameters.retain(|(present, _)| present != name);
            if let Some(value) = value {
                parameters.push((name.to_owned(), self.expand(value)));
            }
        }
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    /// Replaces the placeholders of a parameter's value.
    fn expand(&self, value: &str) -> String {
        let mut with_state = self.redirect_uri.clone();
        with_state.query_pairs_mut().append_pair("state", self.state.expose());
        value
            .replace("{redirect_uri_with_state}", with_state.as_str())
            .replace("{redirect_uri}", self.redirect_uri.as_str())
            .replace("{nonce}", self.binding.nonce.as_ref().map_or("", |nonce| nonce.expose()))
            .replace("{installation}", self.installation)
    }
}

/// The profile's parameters for a device authorization request, which has neither redirect nor nonce.
pub fn device_parameters(profile: &Profile, installation: &str) -> Vec<(String, Option<String>)> {
    let applicable =
        profile.link.authorize_params.as_texts().filter(|(_, value)| {
            value.is_none_or(|value| !value.contains("{redirect_uri") && !value.contains("{nonce}"))
        });
    applicable
        .map(|(name, value)| (name.to_owned(), value.map(|value| value.replace("{installation}", installation))))
        .collect()
}
