//! Calls to the token endpoint (RFC 6749 §4.1.3, §4.4.2, §6).

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use url::Url;
use zeroize::Zeroizing;

use super::pkce::Verifier;
use super::profile::{BodyKind, Profile};
use super::token_response::{self, TokenError, TokenResponse};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::upstream::{FetchedResponse, SendError, Upstream};

/// The timeout of a token request.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest response, in bytes.
pub const LIMIT: usize = 256 * 1024;

/// The grant that a token request presents.
#[derive(Clone, Copy)]
pub enum OAuthGrant<'a> {
    /// An authorization code and its verifier.
    Code {
        /// The code.
        code: &'a Secret,
        /// The code verifier; used once, with the code.
        verifier: &'a Verifier,
        /// The same text as in the authorization request (RFC 6749 §4.1.3).
        redirect_uri: &'a str,
        /// Repeated if the profile says so.
        state: Option<&'a Secret>,
    },
    /// A device code (RFC 8628 §3.4).
    DeviceCode(&'a Secret),
    /// A refresh token.
    Refresh(&'a Secret),
    /// The client secret (RFC 6749 §4.4).
    ClientSecret(&'a Secret),
}

/// Calls the token endpoint once.
///
/// # Errors
/// [`TokenError`]. The code or refresh token must be considered used, unless [`TokenError::certainly_unspent`].
pub async fn request_tokens(
    upstream: &Upstream,
    profile: &Profile,
    token_url: &Url,
    client_id: Option<&str>,
    grant: OAuthGrant<'_>,
    now: Timestamp,
) -> Result<TokenResponse, TokenError> {
    let fields = fields(profile, client_id, grant);
    match post(upstream, token_url, profile.token.body, &fields, TIMEOUT).await {
        Ok(fetched) => token_response::classify(profile, &fetched, now),
        Err(error) => Err(TokenError::from_send_error(&error)),
    }
}

/// Posts fields in the encoding of the provider and reads a response of at most [`LIMIT`] bytes.
pub async fn post(
    upstream: &Upstream,
    url: &Url,
    kind: BodyKind,
    fields: &Fields,
    timeout: Duration,
) -> Result<FetchedResponse, SendError> {
    let (content_type, body) = match kind {
        BodyKind::Form => ("application/x-www-form-urlencoded", fields.as_form()),
        BodyKind::Json => ("application/json", fields.as_json()),
    };
    let request = Request::post(url.as_str()).header(CONTENT_TYPE, content_type);
    fetch(upstream, request, Bytes::copy_from_slice(body.as_bytes()), LIMIT, timeout).await
}

/// Fetches a JSON document of at most `limit` bytes.
pub async fn get(
    upstream: &Upstream,
    url: &Url,
    limit: usize,
    timeout: Duration,
) -> Result<FetchedResponse, SendError> {
    // A cache may still have the document of before a rotation.
    let request = Request::get(url.as_str()).header(CACHE_CONTROL, "no-cache");
    fetch(upstream, request, Bytes::new(), limit, timeout).await
}

async fn fetch(
    upstream: &Upstream,
    request: http::request::Builder,
    body: Bytes,
    limit: usize,
    timeout: Duration,
) -> Result<FetchedResponse, SendError> {
    let request = request
        .header(ACCEPT, "application/json")
        // Responses are not decompressed: this excludes decompression bombs.
        .header(ACCEPT_ENCODING, "identity")
        .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
        .map_err(|error| SendError::Unreachable(error.into()))?;
    upstream.fetch(request, limit, timeout).await
}

/// Fields of a request body, in order; each name once (RFC 6749 §3.2). Their memory is zeroed on drop.
#[derive(Default)]
pub struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    /// Adds a field, or replaces the one of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), Zeroizing::new(value.to_owned())));
    }

    /// Removes a field.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(present, _)| present != name);
    }

    /// Applies a profile's extra fields: `Some` sets a field, `None` removes it.
    pub fn apply<'a>(&mut self, extras: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) {
        for (name, value) in extras {
            match value {
                Some(value) => self.set(name, value),
                None => self.remove(name),
            }
        }
    }

    fn as_form(&self) -> Zeroizing<String> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(self.0.iter().map(|(name, value)| (name, value.as_str())));
        Zeroizing::new(form.finish())
    }

    fn as_json(&self) -> Zeroizing<String> {
        let members: serde_json::Map<_, _> =
            self.0.iter().map(|(name, value)| (name.clone(), serde_json::Value::from(value.as_str()))).collect();
        Zeroizing::new(serde_json::Value::from(members).to_string())
    }
}

fn fields(profile: &Profile, client_id: Option<&str>, grant: OAuthGrant<'_>) -> Fields {
    let mut fields = Fields::default();
    let extras = match grant {
        OAuthGrant::Code { code, verifier, redirect_uri, state } => {
            fields.set("grant_type", "authorization_code");
            fields.set("code", code.expose());
            fields.set("redirect_uri", redirect_uri);
            fields.set("code_verifier", verifier.expose());
            if let Some(state) = state.filter(|_| profile.token.send_state) {
                fields.set("state", state.expose());
            }
            &profile.token.exchange_extra
        }
        OAuthGrant::DeviceCode(device_code) => {
            fields.set("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
            fields.set("device_code", device_code.expose());
            &profile.token.exchange_extra
        }
        OAuthGrant::Refresh(token) => {
            fields.set("grant_type", "refresh_token");
            fields.set("refresh_token", token.expose());
            &profile.token.refresh_extra
        }
        OAuthGrant::ClientSecret(secret) => {
            fields.set("grant_type", "client_credentials");
            fields.set("client_secret", secret.expose());
            if !profile.link.scopes.is_empty() {
                fields.set("scope", &profile.link.scopes.join(" "));
            }
            &profile.token.exchange_extra
        }
    };
    if let Some(client_id) = client_id {
        fields.set("client_id", client_id);
    }
    fields.apply(extras.as_texts());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_appears_once_and_extras_override_it() {
        let mut fields = Fields::default();
        fields.set("grant_type", "authorization_code");
        fields.set("code", "a b&c");
        fields.set("code", "d=e");
        fields.apply([("grant_type", None), ("resource", Some("https://x/"))]);
        assert_eq!(fields.as_form().as_str(), "code=d%3De&resource=https%3A%2F%2Fx%2F");
        assert_eq!(fields.as_json().as_str(), r#"{"code":"d=e","resource":"https://x/"}"#);
    }
}
