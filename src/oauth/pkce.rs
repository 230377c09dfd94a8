//! Proof key for code exchange (RFC 7636), S256 only: `plain` is not implemented, so that no fallback to it is possible.

use sha2::{Digest as _, Sha256};

use crate::secret::{Secret, base64_url};

/// A code verifier (RFC 7636 §4.1): 256 random bits, 43 unreserved characters. Not `Clone`: it is used once, with its code.
pub struct Verifier(Secret);

impl Verifier {
    /// Generates a verifier for one attempt.
    pub fn generate() -> Self {
        Self(Secret::random(32))
    }

    /// A verifier that the server generated (some device flows); `None` when it is not valid.
    pub fn from_server(text: &str) -> Option<Self> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(unreserved);
        fits.then(|| Self(Secret::new(text.to_owned())))
    }

    /// The S256 code challenge (RFC 7636 §4.2).
    pub fn challenge(&self) -> String {
        base64_url(&Sha256::digest(self.0.expose()))
    }

    /// The text, for the token request.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_rfc_7636_appendix_b() {
        let verifier = Verifier(Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned()));
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifiers_are_long_and_fresh() {
        let verifier = Verifier::generate();
        assert_eq!(verifier.expose().len(), 43);
        assert_ne!(verifier.expose(), Verifier::generate().expose());
    }
}
