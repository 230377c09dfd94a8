//! Authorization server metadata (RFC 8414, OpenID Connect Discovery).

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::ACCEPT;
use http_body_util::{BodyExt as _, Empty};
use serde::Deserialize;
use url::Url;

use super::profile::Profile;
use crate::upstream::Upstream;

/// Endpoints of one authorization server, from the profile or discovered.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// RFC 6749 §3.1.
    pub authorize: Option<Url>,
    /// RFC 6749 §3.2.
    pub token: Option<Url>,
    /// RFC 7009.
    pub revoke: Option<Url>,
    /// The server promises `iss` in every authorization response (RFC 9207 §3).
    pub sends_iss: bool,
}

/// Why discovery failed, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryError(pub String);

/// The members of the metadata that are used (RFC 8414 §2).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<Url>,
    token_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// The profile's own endpoints; what it leaves out is asked of its issuer.
pub async fn endpoints(upstream: &Upstream, profile: &Profile) -> Result<Endpoints, DiscoveryError> {
    let pinned = Endpoints {
        authorize: profile.link.authorize_url.clone(),
        token: profile.token.url.clone(),
        revoke: profile.revoke.as_ref().map(|revoke| revoke.url.clone()),
        sends_iss: false,
    };
    let Some(issuer) = &profile.link.issuer else { return Ok(pinned) };
    if pinned.authorize.is_some() && pinned.token.is_some() {
        return Ok(pinned); // pinned endpoints beat discovered ones (THREATS O9)
    }
    let metadata = discover(upstream, issuer).await?;
    Ok(Endpoints {
        authorize: pinned.authorize.or(metadata.authorization_endpoint),
        token: pinned.token.or(metadata.token_endpoint),
        revoke: pinned.revoke.or(metadata.revocation_endpoint),
        sends_iss: metadata.authorization_response_iss_parameter_supported,
    })
}

async fn discover(upstream: &Upstream, issuer: &Url) -> Result<Metadata, DiscoveryError> {
    let mut last = String::new();
    for place in well_known(issuer) {
        let request = Request::get(place.as_str())
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| DiscoveryError(error.to_string()))?;
        match upstream.fetch(request, 1 << 20, Duration::from_secs(15)).await {
            Ok(answer) if answer.status.is_success() => match serde_json::from_slice::<Metadata>(&answer.body) {
                Ok(metadata) => return checked(metadata, issuer),
                Err(_) => last = format!("{place} does not answer with authorization server metadata"),
            },
            Ok(answer) => last = format!("{place} answered {}", answer.status.as_u16()),
            Err(error) => last = format!("{place}: {error}"),
        }
    }
    Err(DiscoveryError(last))
}

/// The metadata's issuer must be the configured one, character for character (RFC 8414 §3.3), and its endpoints must be
/// fit to be called.
fn checked(metadata: Metadata, issuer: &Url) -> Result<Metadata, DiscoveryError> {
    // `Url` writes an empty path as "/": that slash alone is not a difference.
    if metadata.issuer != issuer.as_str() && Some(metadata.issuer.as_str()) != issuer.as_str().strip_suffix('/') {
        return Err(DiscoveryError(format!("the metadata of {issuer} names another issuer")));
    }
    let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.revocation_endpoint];
    for url in endpoints.into_iter().flatten() {
        let plain_loopback = url.scheme() == "http" && url.host_str().is_some_and(crate::upstream::is_loopback_host);
        if url.scheme() != "https" && !plain_loopback {
            return Err(DiscoveryError(format!("the metadata of {issuer} names {url}, which is not https")));
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
    fn the_well_known_part_stands_where_each_standard_puts_it() {
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
            authorization_response_iss_parameter_supported: false,
        };
        let ours = Url::parse("https://a.example").unwrap();
        assert!(checked(metadata("https://a.example", "https://a.example/token"), &ours).is_ok());
        assert!(checked(metadata("https://b.example", "https://a.example/token"), &ours).is_err());
        assert!(checked(metadata("https://a.example", "http://a.example/token"), &ours).is_err());
        assert!(checked(metadata("https://A.example", "https://a.example/token"), &ours).is_err());
    }
}
