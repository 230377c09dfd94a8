//! Which responses of the API mean that it refuses the token.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::InvalidValue;

/// A response that means that the API refuses the token: 401, or another status together with what its body says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "RefusedAnswerKeys")]
pub struct RefusedAnswer {
    /// The status.
    pub status: u16,
    /// The type or code of the error in the body, exactly.
    pub error: Option<String>,
    /// A part of the error's message.
    pub message: Option<String>,
}

/// A response that means that the API refuses the token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RefusedAnswer")]
struct RefusedAnswerKeys {
    /// From 400 to 499. Any but 401 needs error or message.
    status: u16,
    /// The type or code of the error in the body, exactly: permission_error.
    error: Option<String>,
    /// A part of the error's message.
    message: Option<String>,
}

impl RefusedAnswer {
    /// Every 401 (RFC 6750 §3.1): the default.
    pub fn every_401() -> Vec<Self> {
        vec![Self { status: 401, error: None, message: None }]
    }

    /// Whether a response with this status may be meant, depending on its body.
    pub fn has_status(&self, status: u16) -> bool {
        self.status == status
    }

    /// Whether the body decides.
    pub fn needs_body(&self) -> bool {
        self.error.is_some() || self.message.is_some()
    }

    /// Whether the error in a body is meant: its type and codes, and its message.
    pub fn fits(&self, codes: &[&str], message: &str) -> bool {
        self.error.as_deref().is_none_or(|error| codes.contains(&error))
            && self.message.as_deref().is_none_or(|part| message.contains(part))
    }
}

impl TryFrom<RefusedAnswerKeys> for RefusedAnswer {
    type Error = InvalidValue;

    fn try_from(keys: RefusedAnswerKeys) -> Result<Self, InvalidValue> {
        let RefusedAnswerKeys { status, error, message } = keys;
        if !(400..500).contains(&status) {
            return Err("has a status that refuses no token; write 401, or another one from 400 to 499".into());
        }
        if [&error, &message].into_iter().flatten().any(|text| text.trim().is_empty()) {
            return Err("has an empty error or message; leave it out".into());
        }
        let answer = Self { status, error, message };
        if status != 401 && !answer.needs_body() {
            // An ordinary 403 would cause a refresh each time.
            return Err(
                "needs error or message: without one, every response with this status would cause a refresh".into()
            );
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_status_but_401_needs_a_condition() {
        let parse = |text: &str| serde_yaml::from_str::<RefusedAnswer>(text);
        assert_eq!(parse("{ status: 401 }").unwrap(), RefusedAnswer::every_401()[0]);
        assert!(parse("{ status: 403, error: permission_error }").unwrap().needs_body());
        for wrong in [
            "{ status: 403 }",
            "{ status: 200, error: x }",
            "{ status: 500, message: x }",
            "{ status: 403, error: \"\" }",
            "{ error: x }",
            "{ status: 401, says: x }",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_conditions_must_hold() {
        let answer = RefusedAnswer {
            status: 403,
            error: Some("permission_error".to_owned()),
            message: Some("token has been revoked".to_owned()),
        };
        assert!(answer.fits(&["permission_error"], "OAuth token has been revoked. Please run /login"));
        assert!(!answer.fits(&["permission_error"], "You may not use this model"));
        assert!(!answer.fits(&["other"], "OAuth token has been revoked."));
        assert!(!answer.fits(&[], ""));
    }
}
