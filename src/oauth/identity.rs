//! The identity of an account, from a token response and its id_token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::profile::values::PlainHeader;
use super::profile::{Entries, FieldPath, FieldSource};

/// The claims of a JWT.
#[derive(Deserialize)]
pub struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// Reads the claims without verifying the signature. Sufficient for a token that was received from the token endpoint over
    /// TLS (OpenID Connect Core §3.1.3.7, item 6), but never for an authorization decision.
    pub fn read_unverified(token: &str) -> Option<Self> {
        let payload = token.split('.').nth(1)?;
        let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// A claim in whole seconds; RFC 7519 §2 allows fractions.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let number = self.0.get(name)?;
        #[allow(clippy::cast_possible_truncation, reason = "`as` saturates, and no real claim is beyond an i64")]
        number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64))
    }
}

/// The texts to show a person, in the order of the profile, without duplicates.
pub fn find(paths: &[FieldPath], reply: &Map<String, Value>, claims: Option<&Claims>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in paths.iter().filter_map(|path| look_up(path, reply, claims)) {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

/// Headers whose values are claims. Claims that are absent or not valid in a header are left out.
pub fn claim_headers(
    wanted: &Entries<PlainHeader, FieldPath>,
    reply: &Map<String, Value>,
    claims: Option<&Claims>,
) -> Vec<(String, String)> {
    wanted
        .given()
        .filter_map(|(name, path)| Some((name.as_str().to_owned(), look_up(path, reply, claims)?)))
        .filter(|(_, value)| HeaderValue::from_str(value).is_ok())
        .collect()
}

fn look_up(path: &FieldPath, reply: &Map<String, Value>, claims: Option<&Claims>) -> Option<String> {
    let start = match path.source {
        FieldSource::TokenResponse => reply,
        FieldSource::IdToken => &claims?.0,
    };
    let (first, rest) = path.members.split_first()?;
    let value = rest.iter().try_fold(start.get(first)?, |value, member| value.get(member))?;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    // The text is shown to a person: no control characters, at most one line.
    let shown: String = text.chars().filter(|character| !character.is_control()).take(200).collect();
    (!shown.trim().is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(source: FieldSource, members: &[&str]) -> FieldPath {
        FieldPath { source, members: members.iter().map(|&member| member.to_owned()).collect() }
    }

    #[test]
    fn identity_comes_from_the_reply_and_the_id_token() {
        let id_token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(json!({"email": "a@b.c", "exp": 5}).to_string()));
        let claims = Claims::read_unverified(&id_token).unwrap();
        let reply = json!({"account": {"email_address": "a@b.c"}, "organization": {"name": "Ac\u{7}me"}, "n": 7});
        let paths = [
            path(FieldSource::TokenResponse, &["account", "email_address"]),
            path(FieldSource::IdToken, &["email"]),
            path(FieldSource::TokenResponse, &["organization", "name"]),
            path(FieldSource::TokenResponse, &["absent", "name"]),
            path(FieldSource::TokenResponse, &["n"]),
        ];
        assert_eq!(find(&paths, reply.as_object().unwrap(), Some(&claims)), ["a@b.c", "Acme", "7"]);
        assert_eq!(claims.seconds("exp"), Some(5));
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for text in ["", "a", "a.b", "a.!!!.c", "a.W10.c", "sk-ant-oat01-x"] {
            assert!(Claims::read_unverified(text).is_none(), "{text}");
        }
    }
}
