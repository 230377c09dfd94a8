//! The names of a profile's lists of what passes: each is validated when it is deserialized.

use serde::{Deserialize, Deserializer};

use super::pass_list::{self, PassList};
use super::values::{InvalidValue, header_pattern, list, parsed, valid};

parsed! {
    /// A field that may pass, folded, with an optional `*` at its end.
    PassField(String) = pass_field;
    /// A query key with an optional `*` at its end.
    PassKey(String) = pass_key;
}

/// Characters that a pattern has at least before its `*`, not counting `x-`.
const MIN_STEM: usize = 3;

/// A list of texts, each of which is valid as a `T`.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de> + Into<String>>(
    deserializer: D,
) -> Result<PassList, D::Error> {
    list::<D, T>(deserializer).map(PassList::new)
}

fn pass_field(text: &str) -> Result<String, InvalidValue> {
    let pattern = header_pattern(text)?.replace('_', "-");
    let (stem, star) = pattern.strip_suffix('*').map_or((&*pattern, ""), |stem| (stem, "*"));
    let stem = stem.trim_start_matches('-');
    valid(star == "*" || !stem.ends_with('-'), "ends in `-`; servers may ignore that, so remove it or add a `*`")?;
    let refused = "never passes: it carries a credential, belongs to the connection or Pixy, hides where a request goes, or chooses a \
                   response that cannot be searched; `api.headers.set` sets a field of yours";
    valid(!pass_list::never_passes(stem), refused)?;
    let is_narrow = stem.trim_start_matches("x-").len() >= MIN_STEM;
    valid(star.is_empty() || is_narrow, "is too broad; name the vendor at least, like x-vendor-*")?;
    Ok([stem, star].concat())
}

fn pass_key(text: &str) -> Result<String, InvalidValue> {
    let stem = text.strip_suffix('*').unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$[]:".contains(&byte);
    let is_key = !stem.is_empty() && stem.bytes().all(is_plain);
    valid(is_key, "is not a query key with an optional `*` at its end; use letters, digits and -_.~$[]:")?;
    let carries_key = pass_list::KEY_PARAMETERS.iter().any(|key| stem.eq_ignore_ascii_case(key));
    valid(!carries_key, "carries a credential and never passes")?;
    valid(stem.len() == text.len() || stem.len() >= MIN_STEM, "is too broad; write more of it before the `*`")?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_86_a_list_names_no_credential_and_is_narrow() {
        for (text, read) in [("X-Vendor_Thing", "x-vendor-thing"), ("X-Vendor-*", "x-vendor-*"), ("_x-a", "x-a")] {
            assert_eq!(pass_field(text).as_deref(), Ok(read), "{text}");
        }
        for invalid in [
            "*",
            "x-*",
            "x-a*",
            "Authorization",
            "X_Api_Key",
            "cookie",
            "Range",
            "sec-fetch-mode",
            "host",
            "x-a-",
            "grpc-*",
            "",
        ] {
            assert!(pass_field(invalid).is_err(), "{invalid}");
        }
        for valid in ["limit", "include[]", "$alt", "filter.*", "api-version"] {
            assert_eq!(pass_key(valid).as_deref(), Ok(valid));
        }
        for invalid in ["*", "a*", "", "Key", "access_token", "a;b", "a=b", "a&b", "a%20"] {
            assert!(pass_key(invalid).is_err(), "{invalid}");
        }
    }
}
