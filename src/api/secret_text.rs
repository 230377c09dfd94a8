//! The one place where a secret becomes JSON: requests and answers whose purpose is to carry it.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::Secret;

/// A secret of a request or an answer: an API key, a passphrase, a code. Its `Debug` is redacted as [`Secret`]'s is.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline, extend("format" = "password"))]
pub struct SecretText(#[schemars(with = "String")] pub Secret);

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}
