//! Authorization server metadata (RFC 8414, OpenID Connect Discovery).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::profile::{Flow, Profile};
use super::token_endpoint;
use crate::upstream::Upstream;

/// The timeout when the profile has all endpoints that the flow needs: discovery only adds optional ones.
const WAIT_WHEN_PINNED: Duration = Duration::from_secs(5);

/// The timeout when the flow needs a discovered endpoint.
const WAIT: Duration = Duration::from_secs(15);

/// Endpoints of one authorization server, from the profile or discovered.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// The issuer, if the profile names it.
    pub issuer: Option<Url>,
    /// The authorization endpoint (RFC 6749 §3.1).
    pub authorize: Option<Url>,
    /// The token endpoint (RFC 6749 §3.2).
    pub token: Option<Url>,
    /// The revocation endpoint (RFC 7009).
    pub revoke: Option<Url>,
    /// The device authorization endpoint (RFC 8628 §3.1).
    pub device: Option<Url>,
    /// The keys of id_tokens (RFC 7517).
    pub jwks: Option<Url>,
    /// The server promises `iss` in every authorization response (RFC 9207 §3).
    pub sends_iss: bool,
}

/// Why the endpoints of an authorization server are unknown; the text is for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryError {
    /// No metadata could be fetched.
    Unavailable(String),
    /// The metadata must not be used.
    Invalid(String),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unavailable(text) | Self::Invalid(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for DiscoveryError {}

/// The members of the metadata that are used (RFC 8414 §2, RFC 8628 §4).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    device_authorization_endpoint: Option<Url>,
    jwks_uri: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The endpoints that `flow` needs. Those of the profile take precedence over discovered ones; those that it leaves out are
/// discovered at its issuer.
///
/// # Errors
/// When an endpoint that the flow needs could not be discovered, or when the metadata is invalid.
pub async fn endpoints(upstream: &Upstream, profile: &Profile, flow: Flow) -> Result<Endpoints, DiscoveryError> {
    let device = profile.link.device.as_ref();
    let pinned = Endpoints {
        issuer: profile.link.issuer.as_deref().cloned(),
        authorize: profile.link.authorize_url.as_deref().cloned(),
        token: profile.token.url.as_deref().cloned(),
        revoke: profile.revoke.as_ref().map(|revoke| Url::clone(&revoke.url)),
        device: device.and_then(|device| device.url.as_deref().cloned()),
        jwks: profile.link.jwks_url.as_deref().cloned(),
        sends_iss: false,
    };
    let Some(issuer) = &profile.link.issuer else { return Ok(pinned) };
    let suffices = pinned.token.is_some()
        && match flow {
            Flow::AuthorizationCode => pinned.authorize.is_some(),
            Flow::DeviceCode => pinned.device.is_some(),
            Flow::ClientCredentials | Flow::ApiKey => return Ok(pinned), // neither a redirect nor an id_token
        };
    match discover(upstream, issuer, if suffices { WAIT_WHEN_PINNED } else { WAIT }).await {
        Ok(metadata) => Ok(Endpoints {
            issuer: pinned.issuer,
            authorize: pinned.authorize.or(metadata.authorization_endpoint),
            token: pinned.token.or(metadata.token_endpoint),
            revoke: pinned.revoke.or(metadata.revocation_endpoint),
            device: pinned.device.or(metadata.device_authorization_endpoint),
            jwks: pinned.jwks.or(metadata.jwks_uri),
            sends_iss: metadata.authorization_response_iss_parameter_supported,
        }),
        Err(DiscoveryError::Unavailable(_)) if suffices => Ok(pinned),
        Err(error) => Err(error),
    }
}

/// Whether an issuer is the configured one, compared as text (RFC 8414 §3.3, RFC 9207 §2.4). `Url` writes an empty path as "/":
/// only that slash is ignored.
pub fn is_issuer(given: &str, issuer: &Url) -> bool {
    let configured = issuer.as_str();
    given == configured || (issuer.path() == "/" && Some(given) == configured.strip_suffix('/'))
}

async fn discover(upstream: &Upstream, issuer: &Url, wait: Duration) -> Result<Metadata, DiscoveryError> {
    let mut last = String::new();
    for place in well_known(issuer) {
        match token_endpoint::get(upstream, &place, 1 << 20, wait).await {
            Ok(answer) if answer.status.is_success() => match serde_json::from_slice::<Metadata>(&answer.body) {
                Ok(metadata) => return checked(metadata, issuer),
                Err(_) => last = format!("{place} does not answer with authorization server metadata"),
            },
            Ok(answer) => last = format!("{place} answered {}", answer.status.as_u16()),
            Err(error) => last = format!("{place}: {error}"),
        }
    }
    Err(DiscoveryError::Unavailable(last))
}

/// Checks that the metadata names the configured issuer (RFC 8414 §3.3) and that its endpoints use https, or http to this machine.
fn checked(metadata: Metadata, issuer: &Url) -> Result<Metadata, DiscoveryError> {
    if !is_issuer(&metadata.issuer, issuer) {
        return Err(DiscoveryError::Invalid(format!("the metadata of {issuer} names another issuer")));
    }
    let endpoints = [
        &metadata.authorization_endpoint,
        &metadata.token_endpoint,
        &metadata.revocation_endpoint,
        &metadata.device_authorization_endpoint,
        &metadata.jwks_uri,
    ];
    for url in endpoints.into_iter().flatten() {
        let plain_loopback = url.scheme() == "http" && url.host_str().is_some_and(crate::upstream::is_loopback_host);
        if url.scheme() != "https" && !plain_loopback {
            return Err(DiscoveryError::Invalid(format!("the metadata of {issuer} names {url}, which is not https")));
        }
    }
    Ok(metadata)
}

/// RFC 8414 §3.1 puts the well-known part between host and path; OpenID Connect puts it at the end.
fn well_known(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    [
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_urls_follow_both_standards() {
        let at = |issuer: &str| well_known(&Url::parse(issuer).unwrap()).map(|url| url.to_string());
        assert_eq!(
            at("https://login.example.com/tenant"),
            [
                "https://login.example.com/.well-known/oauth-authorization-server/tenant",
                "https://login.example.com/tenant/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            at("https://login.example.com"),
            [
                "https://login.example.com/.well-known/oauth-authorization-server",
                "https://login.example.com/.well-known/openid-configuration",
            ]
        );
    }

    #[test]
    fn attack_61_metadata_of_another_issuer_is_refused() {
        let metadata = |issuer: &str, token: &str| Metadata {
            issuer: issuer.to_owned(),
            authorization_endpoint: None,
            token_endpoint: Some(Url::parse(token).unwrap()),
            revocation_endpoint: None,
            device_authorization_endpoint: None,
            jwks_uri: None,
            authorization_response_iss_parameter_supported: false,
        };
        let ours = Url::parse("https://a.example").unwrap();
        assert!(checked(metadata("https://a.example", "https://a.example/token"), &ours).is_ok());
        assert!(checked(metadata("https://b.example", "https://a.example/token"), &ours).is_err());
        assert!(checked(metadata("https://a.example", "http://a.example/token"), &ours).is_err());
        assert!(checked(metadata("https://A.example", "https://a.example/token"), &ours).is_err());
    }

    #[test]
    fn attack_61_issuers_are_compared_as_texts() {
        let is = |given: &str, configured: &str| is_issuer(given, &Url::parse(configured).unwrap());
        assert!(is("https://a.example", "https://a.example") && is("https://a.example/", "https://a.example"));
        assert!(is("https://a.example/t", "https://a.example/t"));
        for (given, configured) in [
            ("https://a.example/t/", "https://a.example/t"),
            ("https://a.example/t", "https://a.example/t/"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example/T", "https://a.example/t"),
            ("https://a.example.evil.example", "https://a.example"),
            ("", "https://a.example"),
        ] {
            assert!(!is(given, configured), "{given} {configured}");
        }
    }
}
