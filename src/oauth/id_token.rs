//! Verification of id_tokens (OpenID Connect Core §3.1.3.7): signed by a key of the issuer, for this client and this attempt.
//!
//! RS256 and ES256 and nothing else: `none` is no signature, and a key of HS256 would be one that a public client shares.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL};
use http_body_util::{BodyExt as _, Empty};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::discovery::is_issuer;
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::upstream::Upstream;

/// How far two clocks may be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// A key set is fetched within this.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Larger than any key set.
const LARGEST_KEY_SET: usize = 256 * 1024;

/// More keys than any server has.
const MOST_KEYS: usize = 100;

/// What an id_token must say.
pub struct ExpectedClaims<'a> {
    /// Who signs.
    pub issuer: &'a Url,
    /// Whom it is for: the client id that the grant belongs to.
    pub client_id: &'a str,
    /// What the authorization request named, if it did.
    pub nonce: Option<&'a Secret>,
    /// The time.
    pub now: Timestamp,
}

/// Why an id_token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidIdToken {
    /// No compact JWS with JSON in it, or one with members that must be understood and are not.
    Malformed,
    /// Signed in a way that proves nothing here.
    Algorithm,
    /// The issuer has no such key, also not after its keys were asked for again.
    UnknownKey,
    /// Not signed by that key.
    Signature,
    /// Of another issuer.
    Issuer,
    /// For another client.
    Audience,
    /// Of another attempt.
    Nonce,
    /// Over, or without an end.
    Expired,
    /// From the future, or from no time.
    IssuedAt,
    /// It names nobody.
    Subject,
}

/// Why it could not be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdTokenError {
    /// It is not to be believed.
    Invalid(InvalidIdToken),
    /// The issuer's keys could not be had; in words without a secret.
    NoKeys(String),
}

/// Fetches the issuer's keys and verifies. A key that is not among them is looked for once more, for keys rotate (OpenID
/// Connect Core §10.1.1).
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
struct KeySetDocument {
    keys: Vec<Value>,
}

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
    /// RFC 7515 §4.1.11: members that must be understood; none is.
    crit: Option<Value>,
}

#[derive(Clone, Copy)]
enum Algorithm {
    Rs256,
    Es256,
}

impl KeySet {
    /// Reads a key set; keys of a kind that is not known are left out (RFC 7517 §5).
    pub fn parse(json: &[u8]) -> Option<Self> {
        let set: KeySetDocument = serde_json::from_slice(json).ok()?;
        Some(Self(set.keys.into_iter().take(MOST_KEYS).filter_map(|key| serde_json::from_value(key).ok()).collect()))
    }

    /// The key that the header means. One without a `kid` means the only one that fits (OpenID Connect Core §10.1).
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

/// OpenID Connect Core §3.1.3.7, in its order.
fn claims(claims: &Map<String, Value>, expected: &ExpectedClaims<'_>) -> Result<(), InvalidIdToken> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if !text("iss").is_some_and(|issuer| is_issuer(issuer, expected.issuer)) {
        return Err(InvalidIdToken::Issuer);
    }
    let audiences: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return Err(InvalidIdToken::Audience),
    };
    let authorized_party = claims.get("azp");
    let party_is_wrong = authorized_party.is_some_and(|party| party.as_str() != Some(expected.client_id));
    // Others may be meant too, but then it must say that it was issued to this client.
    if !audiences.contains(&expected.client_id) || party_is_wrong || (audiences.len() > 1 && authorized_party.is_none())
    {
        return Err(InvalidIdToken::Audience);
    }
    let moment = |name: &str| claims.get(name).and_then(Value::as_f64).map(timestamp);
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

    /// `None` for a wrong signature, and for a key that is none. RSA keys under 2048 bits are none.
    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<()> {
        let part = |text: &Option<String>| decoded(text.as_deref()?);
        match algorithm {
            Algorithm::Rs256 => {
                let (n, e) = (part(&self.n)?, part(&self.e)?);
                // RFC 7518 §6.3.1.1 wants no leading zeros; some servers write one all the same.
                let n: Vec<u8> = n.into_iter().skip_while(|&byte| byte == 0).collect();
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).ok()
            }
            Algorithm::Es256 => {
                let (x, y) = (part(&self.x)?, part(&self.y)?);
                // RFC 7518 §6.2.1.2: always whole coordinates.
                let point = (x.len() == 32 && y.len() == 32).then(|| [&[4], x.as_slice(), y.as_slice()].concat())?;
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).ok()
            }
        }
    }
}

async fn fetch(upstream: &Upstream, jwks_url: &Url) -> Result<KeySet, IdTokenError> {
    let failed = |what: String| IdTokenError::NoKeys(format!("{jwks_url} {what}"));
    let request = Request::get(jwks_url.as_str())
        .header(ACCEPT, "application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(CACHE_CONTROL, "no-cache") // between here and there something may keep the keys before the rotation
        .body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync())
        .map_err(|error| failed(error.to_string()))?;
    match upstream.fetch(request, LARGEST_KEY_SET, TIMEOUT).await {
        Ok(answer) if answer.status.is_success() => {
            KeySet::parse(&answer.body).ok_or_else(|| failed("does not answer with a key set".to_owned()))
        }
        Ok(answer) => Err(failed(format!("answered {}", answer.status.as_u16()))),
        Err(error) => Err(failed(format!("was not heard: {error}"))),
    }
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, InvalidIdToken> {
    decoded(part).and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(InvalidIdToken::Malformed)
}

/// RFC 7519 §2 allows fractions.
fn timestamp(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and no real claim is beyond an i64")]
    Timestamp::from_seconds(seconds as i64)
}

impl fmt::Display for InvalidIdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it cannot be read",
            Self::Algorithm => "it is not signed with RS256 or ES256",
            Self::UnknownKey => "the key that signed it is not among the issuer's",
            Self::Signature => "its signature is wrong",
            Self::Issuer => "it is of another issuer",
            Self::Audience => "it is for another client",
            Self::Nonce => "it is of another attempt",
            Self::Expired => "it has expired, or this machine's clock is wrong",
            Self::IssuedAt => "it is from the future, or this machine's clock is wrong",
            Self::Subject => "it names nobody",
        })
    }
}

#[cfg(test)]
mod tests;
