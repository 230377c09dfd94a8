//! Authorization server metadata (RFC 8414, OpenID Connect Discovery).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::identity;
use super::profile::{Flow, Profile, values};
use super::token_endpoint;
use crate::upstream::{Upstream, is_globally_reachable, is_loopback_host};

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
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    jwks_uri: Option<String>,
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
        Ok(metadata) => with_discovered(pinned, metadata, issuer),
        Err(DiscoveryError::Unavailable(_)) if suffices => Ok(pinned),
        Err(error) => Err(error),
    }
}

/// Adds the endpoints of the metadata that the profile does not name. Only those are checked.
fn with_discovered(pinned: Endpoints, metadata: Metadata, issuer: &Url) -> Result<Endpoints, DiscoveryError> {
    let choose = |pinned: Option<Url>, discovered: Option<String>, member: &str| {
        match (pinned, discovered) {
        (Some(pinned), _) => Ok(Some(pinned)),
        (None, None) => Ok(None),
        (None, Some(text)) => discovered_endpoint(&text, issuer).map(Some).map_err(|fault| {
            let (issuer, text) = (issuer.as_str(), identity::shown(&text));
            DiscoveryError::Invalid(format!(
                "the metadata of {issuer} names {text} as {member}, which {fault}; that is the authorization server's fault, \
                 and a profile may name the endpoint itself"
            ))
        }),
    }
    };
    Ok(Endpoints {
        authorize: choose(pinned.authorize, metadata.authorization_endpoint, "authorization_endpoint")?,
        token: choose(pinned.token, metadata.token_endpoint, "token_endpoint")?,
        revoke: choose(pinned.revoke, metadata.revocation_endpoint, "revocation_endpoint")?,
        device: choose(pinned.device, metadata.device_authorization_endpoint, "device_authorization_endpoint")?,
        jwks: choose(pinned.jwks, metadata.jwks_uri, "jwks_uri")?,
        sends_iss: metadata.authorization_response_iss_parameter_supported,
        issuer: pinned.issuer,
    })
}

/// How far a URL can be trusted to reach the host that it names, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// http, which profiles allow to loopback hosts alone.
    PlainLoopback,
    /// https to this machine.
    Loopback,
    /// https to an address that is not globally reachable.
    Private,
    /// https to a name, whose addresses `upstream` checks, or to an address that is globally reachable.
    Public,
}

impl Strength {
    fn of(url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        if url.scheme() != "https" {
            return Self::PlainLoopback;
        }
        if is_loopback_host(host) {
            return Self::Loopback;
        }
        match url.host() {
            Some(Host::Ipv4(address)) if !is_globally_reachable(address.into()) => Self::Private,
            Some(Host::Ipv6(address)) if !is_globally_reachable(address.into()) => Self::Private,
            Some(Host::Domain(name)) if is_local_name(name) => Self::Private,
            Some(_) | None => Self::Public,
        }
    }
}

/// Names that no public provider has: of this machine (RFC 6761 §6.3), of the local link (RFC 6762) and of the local network.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let ends_in = |zone: &str| name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'));
    ["localhost", "local", "internal", "home.arpa"].into_iter().any(ends_in)
}

/// A URL of the metadata, which is as strong as the issuer's or stronger. The error is the predicate of a sentence.
fn discovered_endpoint(text: &str, issuer: &Url) -> Result<Url, String> {
    // The rules for URLs of a profile: https or http to this machine, no user name, no fragment (RFC 6749 §3.1).
    let url = values::endpoint(text).map_err(|fault| fault.to_string())?;
    let (strength, needed) = (Strength::of(&url), Strength::of(issuer));
    if strength >= needed {
        return Ok(url);
    }
    Err(match strength {
        Strength::PlainLoopback if needed == Strength::Loopback => "is not https, although the issuer is".to_owned(),
        Strength::PlainLoopback | Strength::Loopback => "is on this machine, although the issuer is not".to_owned(),
        Strength::Private | Strength::Public => "is in a private network, although the issuer is public".to_owned(),
    })
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

/// Checks that the metadata names the configured issuer (RFC 8414 §3.3).
fn checked(metadata: Metadata, issuer: &Url) -> Result<Metadata, DiscoveryError> {
    if is_issuer(&metadata.issuer, issuer) {
        return Ok(metadata);
    }
    let named = identity::shown(&metadata.issuer);
    Err(DiscoveryError::Invalid(format!("the metadata of {issuer} names another issuer, {named}")))
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

    fn metadata(issuer: &str, token: &str) -> Metadata {
        Metadata {
            issuer: issuer.to_owned(),
            authorization_endpoint: None,
            token_endpoint: Some(token.to_owned()),
            revocation_endpoint: None,
            device_authorization_endpoint: None,
            jwks_uri: None,
            authorization_response_iss_parameter_supported: false,
        }
    }

    #[test]
    fn attack_61_metadata_of_another_issuer_is_refused() {
        let ours = Url::parse("https://a.example").unwrap();
        assert!(checked(metadata("https://a.example", "https://a.example/token"), &ours).is_ok());
        assert!(checked(metadata("https://b.example", "https://a.example/token"), &ours).is_err());
        assert!(checked(metadata("https://A.example", "https://a.example/token"), &ours).is_err());
    }

    #[test]
    fn attack_94_no_endpoint_is_weaker_than_its_issuer() {
        let judge = |issuer: &str, endpoint: &str| discovered_endpoint(endpoint, &Url::parse(issuer).unwrap());
        let (public, literal) = ("https://login.example.com", "https://8.8.8.8");
        for issuer in [public, literal] {
            for good in ["https://login.example.com/t", "https://oauth2.example.net/t?x=1", "https://8.8.4.4/t"] {
                assert!(judge(issuer, good).is_ok(), "{issuer} {good}");
            }
            for (weak, word) in [
                ("http://login.example.com/t", "unencrypted"),
                ("http://127.0.0.1/t", "on this machine"),
                ("http://localhost/t", "on this machine"),
                ("https://localhost/t", "on this machine"),
                ("https://[::1]/t", "on this machine"),
                ("https://127.0.0.1:8700/t", "on this machine"),
                ("https://10.1.2.3/t", "private"),
                ("https://0xa.1.2.3/t", "private"),
                ("https://167838211/t", "private"),
                ("https://192.168.0.1/t", "private"),
                ("https://169.254.169.254/t", "private"),
                ("https://100.64.0.1/t", "private"),
                ("https://[fd00::1]/t", "private"),
                ("https://[fe80::1]/t", "private"),
                ("https://[::ffff:10.0.0.1]/t", "private"),
                ("https://[64:ff9b::a00:1]/t", "private"),
                ("https://[2002:a00:1::1]/t", "private"),
                ("https://foo.localhost/t", "private"),
                ("https://localhost./t", "private"),
                ("https://metadata.google.internal/t", "private"),
                ("https://printer.local/t", "private"),
                ("https://me:pw@login.example.com/t", "user name"),
                ("https://login.example.com/t#f", "fragment"),
                ("https:\\\\login.example.com/t", "backslash"),
                ("ftp://login.example.com/t", "scheme"),
                ("file:///etc/passwd", "no host"),
                ("javascript:alert(1)", "no host"),
                ("/t", "not a URL"),
                ("", "not a URL"),
            ] {
                let fault = judge(issuer, weak).expect_err(weak);
                assert!(fault.contains(word), "{issuer} {weak}: {fault}");
            }
        }
        assert!(
            judge("https://10.0.0.1", "https://10.1.2.3/t").is_ok(),
            "a private issuer may name a private endpoint"
        );
        assert!(judge("https://10.0.0.1", "https://127.0.0.1/t").is_err());
        assert!(judge("https://127.0.0.1", "https://127.0.0.1:1/t").is_ok());
        assert!(judge("https://127.0.0.1", "http://127.0.0.1:1/t").unwrap_err().contains("not https"));
        assert!(judge("http://127.0.0.1", "http://localhost:1/t").is_ok());
        assert!(judge("http://127.0.0.1", "https://login.example.com/t").is_ok(), "a stronger one");
    }

    #[test]
    fn attack_94_only_what_is_used_is_judged() {
        let issuer = Url::parse("https://a.example").unwrap();
        let weak = || metadata("https://a.example", "http://10.0.0.1/\u{202e}token");
        let error = with_discovered(Endpoints::default(), weak(), &issuer).unwrap_err().to_string();
        assert!(error.contains("token_endpoint") && error.contains("the authorization server's fault"), "{error}");
        assert!(error.contains(r"\u{202e}"), "{error}");
        let token = Some(Url::parse("https://b.example/token").unwrap());
        let pinned = Endpoints { token: token.clone(), ..Endpoints::default() };
        assert_eq!(with_discovered(pinned, weak(), &issuer).unwrap().token, token);
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
