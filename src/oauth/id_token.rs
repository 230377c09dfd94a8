//! Verification of id_tokens (OpenID Connect Core §3.1.3.7): signed by a key of the issuer, for this client and this attempt.
//!
//! Only RS256 and ES256: `none` is no signature, and HS256 needs a secret that a public client does not have.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::discovery::is_issuer;
use super::identity::Claims;
use super::token_endpoint;
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// The tolerated difference between two clocks.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// The timeout for fetching a key set.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest key set, in bytes.
const LARGEST_KEY_SET: usize = 256 * 1024;

/// Further keys of a set are ignored.
const MOST_KEYS: usize = 100;

/// The claims that an id_token must have.
pub struct ExpectedClaims<'a> {
    /// `iss`.
    pub issuer: &'a Url,
    /// `aud`: the client id of the grant.
    pub client_id: &'a str,
    /// The nonce of the authorization request, if it had one.
    pub nonce: Option<&'a Secret>,
    /// The current time.
    pub now: Timestamp,
}

/// Why an id_token is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidIdToken {
    /// Not a compact JWS with JSON, or with critical header members that are not supported.
    Malformed,
    /// Signed with an algorithm that is not accepted.
    Algorithm,
    /// The issuer has no such key, even after its keys were fetched again.
    UnknownKey,
    /// The signature is wrong.
    Signature,
    /// Issued by another issuer.
    Issuer,
    /// Issued for another client.
    Audience,
    /// Issued for another attempt.
    Nonce,
    /// Expired, or without an expiry.
    Expired,
    /// Issued in the future, or without a time.
    IssuedAt,
    /// Without a subject.
    Subject,
}

/// Why an id_token could not be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdTokenError {
    /// The id_token is invalid.
    Invalid(InvalidIdToken),
    /// The issuer's keys could not be fetched; the text contains no secret.
    NoKeys(String),
}

/// Fetches the issuer's keys and verifies. If the key is unknown, they are fetched once more, because keys rotate (OpenID Connect
/// Core §10.1.1).
pub async fn check(
    upstream: &Upstream,
    jwks_url: &Url,
    token: &Secret,
    expected: &ExpectedClaims<'_>,
) -> Result<(), IdTokenError> {
    let verified = verify(token.expose(), &fetch(upstream, jwks_url).await?, expected);
    let verified = match verified {
        Err(InvalidIdToken::UnknownKey) => verify(token.expose(), &fetch(upstream, jwks_url).await?, expected),
        verified => verified,
    };
    verified.map_err(IdTokenError::Invalid)
}

/// The keys of an issuer (RFC 7517) that can verify an id_token.
pub struct KeySet(Vec<Jwk>);

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Critical members (RFC 7515 §4.1.11); none is supported.
    crit: Option<Value>,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Rs256,
    Es256,
}

impl KeySet {
    /// Parses a key set; keys of unknown types are ignored (RFC 7517 §5).
    pub fn parse(json: &[u8]) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?.iter().take(MOST_KEYS);
        Some(Self(keys.filter_map(|key| Jwk::deserialize(key).ok()).collect()))
    }

    /// The key that the header names. Without a `kid`, exactly one key must fit (OpenID Connect Core §10.1).
    fn find(&self, header: &Header, algorithm: Algorithm) -> Result<&Jwk, InvalidIdToken> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| key.fits(algorithm, &header.alg) && (header.kid.is_none() || key.kid == header.kid));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            _ => Err(InvalidIdToken::UnknownKey),
        }
    }
}

/// Verifies signature and claims.
pub fn verify(token: &str, keys: &KeySet, expected: &ExpectedClaims<'_>) -> Result<(), InvalidIdToken> {
    let (message, signature) = token.rsplit_once('.').ok_or(InvalidIdToken::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(InvalidIdToken::Malformed)?;
    let header: Header = json(header)?;
    if header.crit.is_some() {
        return Err(InvalidIdToken::Malformed);
    }
    let algorithm = match header.alg.as_str() {
        "RS256" => Algorithm::Rs256,
        "ES256" => Algorithm::Es256,
        _ => return Err(InvalidIdToken::Algorithm),
    };
    let signature = decoded(signature).ok_or(InvalidIdToken::Malformed)?;
    keys.find(&header, algorithm)?
        .verify(algorithm, message.as_bytes(), &signature)
        .ok_or(InvalidIdToken::Signature)?;
    claims(&json(payload)?, expected)
}

/// Checks the claims in the order of OpenID Connect Core §3.1.3.7.
fn claims(claims: &Claims, expected: &ExpectedClaims<'_>) -> Result<(), InvalidIdToken> {
    let text = |name: &str| claims.0.get(name).and_then(Value::as_str);
    if !text("iss").is_some_and(|issuer| is_issuer(issuer, expected.issuer)) {
        return Err(InvalidIdToken::Issuer);
    }
    let audiences: Vec<&str> = match claims.0.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Err(InvalidIdToken::Audience),
    };
    let authorized_party = claims.0.get("azp");
    let party_is_wrong = authorized_party.is_some_and(|party| party.as_str() != Some(expected.client_id));
    // With several audiences, `azp` must name this client.
    if !audiences.contains(&expected.client_id) || party_is_wrong || (audiences.len() > 1 && authorized_party.is_none())
    {
        return Err(InvalidIdToken::Audience);
    }
    let moment = |name: &str| claims.seconds(name).map(Timestamp::from_seconds);
    let (expires, issued) =
        (moment("exp").ok_or(InvalidIdToken::Expired)?, moment("iat").ok_or(InvalidIdToken::IssuedAt)?);
    if expires.after(CLOCK_TOLERANCE) <= expected.now {
        return Err(InvalidIdToken::Expired);
    }
    if issued > expected.now.after(CLOCK_TOLERANCE) || issued > expires {
        return Err(InvalidIdToken::IssuedAt);
    }
    if let Some(nonce) = expected.nonce
        && !text("nonce").is_some_and(|given| nonce.matches(given))
    {
        return Err(InvalidIdToken::Nonce);
    }
    text("sub").filter(|subject| !subject.is_empty()).map(|_| ()).ok_or(InvalidIdToken::Subject)
}

impl Jwk {
    fn fits(&self, algorithm: Algorithm, name: &str) -> bool {
        let kind = match algorithm {
            Algorithm::Rs256 => self.kty == "RSA",
            Algorithm::Es256 => self.kty == "EC" && self.crv.as_deref() == Some("P-256"),
        };
        kind && self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.alg.as_deref().is_none_or(|alg| alg == name)
    }

    /// `None` for a wrong signature and for an invalid key. RSA keys under 2048 bits are invalid.
    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<()> {
        let part = |text: &Option<String>| decoded(text.as_deref()?);
        match algorithm {
            Algorithm::Rs256 => {
                let (n, e) = (part(&self.n)?, part(&self.e)?);
                // RFC 7518 §6.3.1.1 forbids leading zeros, but some servers write one.
                let n: Vec<u8> = n.into_iter().skip_while(|&byte| byte == 0).collect();
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).ok()
            }
            Algorithm::Es256 => {
                let (x, y) = (part(&self.x)?, part(&self.y)?);
                // RFC 7518 §6.2.1.2: coordinates have their full length.
                let point = (x.len() == 32 && y.len() == 32).then(|| [&[4], x.as_slice(), y.as_slice()].concat())?;
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).ok()
            }
        }
    }
}

async fn fetch(upstream: &Upstream, jwks_url: &Url) -> Result<KeySet, IdTokenError> {
    let failed = |what: String| IdTokenError::NoKeys(format!("{jwks_url} {what}"));
    match token_endpoint::get(upstream, jwks_url, LARGEST_KEY_SET, TIMEOUT).await {
        Ok(answer) if answer.status.is_success() => {
            KeySet::parse(&answer.body).ok_or_else(|| failed("does not answer with a key set".to_owned()))
        }
        Ok(answer) => Err(failed(format!("answered {}", answer.status.as_u16()))),
        Err(error) => Err(failed(format!("did not answer: {error}"))),
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, InvalidIdToken> {
    decoded(part).and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(InvalidIdToken::Malformed)
}

impl fmt::Display for InvalidIdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is malformed",
            Self::Algorithm => "it is not signed with RS256 or ES256",
            Self::UnknownKey => "the key that signed it is not among the issuer's",
            Self::Signature => "its signature is wrong",
            Self::Issuer => "it was issued by another issuer",
            Self::Audience => "it was issued for another client",
            Self::Nonce => "it belongs to another attempt",
            Self::Expired => "it has expired, or the clock of this machine is wrong",
            Self::IssuedAt => "it was issued in the future, or the clock of this machine is wrong",
            Self::Subject => "it has no subject",
        })
    }
}

#[cfg(test)]
mod tests;
