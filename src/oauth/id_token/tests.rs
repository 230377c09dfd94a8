use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::json;

use super::*;
use crate::secret::base64_url;

const ISSUER: &str = "https://login.example.com";
const NOW: i64 = 1_790_000_000;

enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                // RSAPublicKey of RFC 8017 A.1.1, as DER writes one of 2048 bits with the exponent 65537.
                let der = pair.public_key().as_ref();
                let (n, e) = (&der[9..265], &der[der.len() - 3..]);
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": base64_url(n), "e": base64_url(e) })
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "kid": kid, "crv": "P-256", "x": base64_url(&point[1..33]), "y": base64_url(&point[33..]) })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64_url(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{message}.{}", base64_url(&signature))
    }
}

fn keys(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn good() -> Value {
    json!({ "iss": ISSUER, "aud": "pixy", "sub": "anna", "nonce": "n-once", "iat": NOW - 250, "exp": NOW + 3600 })
}

fn judge(token: &str, keys: &KeySet) -> Result<(), InvalidIdToken> {
    let (issuer, nonce) = (Url::parse(ISSUER).unwrap(), Secret::new("n-once".to_owned()));
    let expected =
        ExpectedClaims { issuer: &issuer, client_id: "pixy", nonce: Some(&nonce), now: Timestamp::from_seconds(NOW) };
    verify(token, keys, &expected)
}

#[test]
fn both_algorithms_verify_and_another_key_does_not() {
    for (signer, other, alg) in [(Signer::rsa(), Signer::rsa(), "RS256"), (Signer::ec(), Signer::ec(), "ES256")] {
        let token = signer.sign(&json!({ "alg": alg, "kid": "1" }), &good());
        assert_eq!(judge(&token, &keys(&[signer.jwk("1")])), Ok(()), "{alg}");
        assert_eq!(judge(&token, &keys(&[other.jwk("1")])), Err(InvalidIdToken::Signature));
        assert_eq!(
            judge(&token, &keys(&[other.jwk("1"), signer.jwk("2")])),
            Err(InvalidIdToken::Signature),
            "the kid decides"
        );
        assert_eq!(judge(&token, &keys(&[signer.jwk("2")])), Err(InvalidIdToken::UnknownKey));
        assert_eq!(judge(&token, &keys(&[])), Err(InvalidIdToken::UnknownKey));
        let nameless = signer.sign(&json!({ "alg": alg }), &good());
        assert_eq!(judge(&nameless, &keys(&[signer.jwk("1")])), Ok(()));
        assert_eq!(
            judge(&nameless, &keys(&[signer.jwk("1"), other.jwk("2")])),
            Err(InvalidIdToken::UnknownKey),
            "which one?"
        );
        let mut encrypts = signer.jwk("1");
        encrypts["use"] = json!("enc");
        assert_eq!(judge(&token, &keys(&[encrypts])), Err(InvalidIdToken::UnknownKey));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let mut claims = good();
        claims["sub"] = json!("mallory");
        let forged = format!("{header}.{}.{signature}", base64_url(claims.to_string().as_bytes()));
        assert_eq!(judge(&forged, &keys(&[signer.jwk("1")])), Err(InvalidIdToken::Signature));
    }
}

#[test]
fn other_algorithms_are_refused_before_the_key_lookup() {
    let signer = Signer::ec();
    let keys = keys(&[signer.jwk("1")]);
    for alg in ["none", "None", "HS256", "HS512", "RS1", "ES384", "PS256", "EdDSA", ""] {
        assert_eq!(
            judge(&signer.sign(&json!({ "alg": alg, "kid": "1" }), &good()), &keys),
            Err(InvalidIdToken::Algorithm),
            "{alg}"
        );
    }
    let unsigned = format!("{}.{}.", base64_url(br#"{"alg":"none"}"#), base64_url(good().to_string().as_bytes()));
    assert_eq!(judge(&unsigned, &keys), Err(InvalidIdToken::Algorithm));
    // RS256 in the header and an EC key under that kid, and the other way round.
    assert_eq!(
        judge(&signer.sign(&json!({ "alg": "RS256", "kid": "1" }), &good()), &keys),
        Err(InvalidIdToken::UnknownKey)
    );
    let critical = json!({ "alg": "ES256", "kid": "1", "crit": ["b64"], "b64": false });
    assert_eq!(judge(&signer.sign(&critical, &good()), &keys), Err(InvalidIdToken::Malformed));
    for text in ["", "a", "a.b", "..", "e30.e30.e30", "!.!.!", "e30=.e30=.e30="] {
        assert!(matches!(judge(text, &keys), Err(InvalidIdToken::Malformed)), "{text}");
    }
    let fine = signer.sign(&json!({ "alg": "ES256", "kid": "1" }), &good());
    let (message, signature) = fine.rsplit_once('.').unwrap();
    assert_eq!(judge(&format!("{message}.{}", &signature[..4]), &keys), Err(InvalidIdToken::Signature));
    assert_eq!(judge(&format!("{fine}.x"), &keys), Err(InvalidIdToken::Malformed));
}

#[test]
fn claims_that_differ_from_those_expected_are_refused() {
    let signer = Signer::ec();
    let keys = keys(&[signer.jwk("1")]);
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        judge(&signer.sign(&json!({ "alg": "ES256", "kid": "1" }), &claims), &keys)
    };
    for (name, value) in [
        ("aud", json!(["pixy"])),
        ("azp", json!("pixy")),
        ("exp", json!(NOW - 200)),
        ("iat", json!(NOW + 200)),
        ("iat", json!(f64::from(7) + 0.5)),
        ("iss", json!("https://login.example.com/")),
    ] {
        assert_eq!(with(name, value.clone()), Ok(()), "{name}: {value}");
    }
    for (name, value, fault) in [
        ("iss", json!("https://evil.example"), InvalidIdToken::Issuer),
        ("iss", json!("https://LOGIN.example.com"), InvalidIdToken::Issuer),
        ("iss", json!(null), InvalidIdToken::Issuer),
        ("aud", json!("other"), InvalidIdToken::Audience),
        ("aud", json!(["other"]), InvalidIdToken::Audience),
        ("aud", json!(["other", "pixy"]), InvalidIdToken::Audience),
        ("aud", json!([]), InvalidIdToken::Audience),
        ("aud", json!({ "pixy": 1 }), InvalidIdToken::Audience),
        ("azp", json!("other"), InvalidIdToken::Audience),
        ("azp", json!(["pixy"]), InvalidIdToken::Audience),
        ("exp", json!(NOW - 301), InvalidIdToken::Expired),
        ("exp", json!("soon"), InvalidIdToken::Expired),
        ("exp", json!(null), InvalidIdToken::Expired),
        ("iat", json!(NOW + 301), InvalidIdToken::IssuedAt),
        ("iat", json!(NOW + 4000), InvalidIdToken::IssuedAt),
        ("iat", json!(null), InvalidIdToken::IssuedAt),
        ("nonce", json!("N-once"), InvalidIdToken::Nonce),
        ("nonce", json!(null), InvalidIdToken::Nonce),
        ("sub", json!(""), InvalidIdToken::Subject),
        ("sub", json!(7), InvalidIdToken::Subject),
    ] {
        assert_eq!(with(name, value.clone()), Err(fault), "{name}: {value}");
    }
    let mut several = good();
    several["aud"] = json!(["pixy", "llm-api"]);
    several["azp"] = json!("pixy");
    assert_eq!(judge(&signer.sign(&json!({ "alg": "ES256", "kid": "1" }), &several), &keys), Ok(()));
}

#[test]
fn unknown_keys_of_a_set_are_ignored() {
    let signer = Signer::ec();
    let odd = [json!({ "kty": "OKP", "kid": "1" }), json!("no key"), json!({ "kid": 7 }), signer.jwk("1")];
    let token = signer.sign(&json!({ "alg": "ES256", "kid": "1" }), &good());
    assert_eq!(judge(&token, &keys(&odd)), Ok(()));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
    }
}
