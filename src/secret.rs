//! Secrets that cannot be printed, are compared in constant time, and are zeroed on drop.

use std::fmt;

use rand::TryRng as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Text that must reach neither a log nor an agent: a token, a verifier, a key.
///
/// It has no `Display` and no `Serialize`, its `Debug` is redacted, and its memory is zeroed on drop. [`Secret::expose`] is
/// the one way to the text; search for it to see every place where a secret is used.
///
/// ```
/// let secret = pixy::secret::Secret::new("sk-secret".to_owned());
/// assert_eq!(format!("{secret:?}"), "[secret]");
/// assert_eq!(serde_json::to_string("text").unwrap(), "\"text\"");
/// ```
///
/// Neither of these compiles:
///
/// ```compile_fail
/// let secret = pixy::secret::Secret::new("sk-secret".to_owned());
/// format!("{secret}");
/// ```
///
/// ```compile_fail
/// let secret = pixy::secret::Secret::new("sk-secret".to_owned());
/// serde_json::to_string(&secret).unwrap();
/// ```
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// `bytes` random bytes of the operating system as base64url without padding (RFC 4648 §5).
    ///
    /// # Panics
    /// If the operating system provides no random bytes: nothing is safe without them.
    pub fn random(bytes: usize) -> Self {
        let mut raw = Zeroizing::new(vec![0_u8; bytes]);
        fill_random(&mut raw);
        Self::new(base64_url(&raw))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time; the length may leak.
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Fills `buffer` from the operating system's random source.
///
/// # Panics
/// If the operating system provides no random bytes: nothing is safe without them.
pub fn fill_random(buffer: &mut [u8]) {
    rand::rngs::SysRng.try_fill_bytes(buffer).expect("the operating system provides random bytes");
}

/// base64url without padding (RFC 4648 §5).
pub fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Serde for the one document that may hold secrets: the plaintext of a vault record, which is sealed before it leaves memory.
///
/// Used as `#[serde(with = "crate::secret::in_vault_record")]`, so that a search finds every such field.
pub mod in_vault_record {
    use super::Secret;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes the text; the caller seals the output.
    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    /// Reads the text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }

    /// For a field that may be absent.
    pub mod option {
        use super::super::Secret;
        use serde::{Deserialize as _, Deserializer, Serializer};

        /// Writes the text or null.
        #[allow(clippy::ref_option)] // serde's `with` asks for this signature
        pub fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
            match secret {
                Some(secret) => serializer.serialize_some(secret.expose()),
                None => serializer.serialize_none(),
            }
        }

        /// Reads the text or null.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
            Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = Secret::new("sk-canary".to_owned());
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert!(secret.matches("sk-canary"));
        assert!(!secret.matches("sk-canarY"));
    }

    #[test]
    fn random_text_is_unreserved_and_fresh() {
        let one = Secret::random(32);
        assert_eq!(one.expose().len(), 43);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        assert!(!one.matches(Secret::random(32).expose()));
    }
}
