//! Values of a profile: each type validates its text when it is deserialized.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Deserializer, de::Error as _};
use url::{Host, Url};

use super::{FieldPath, FieldSource, PathPattern, Rule};

/// Why a value is not valid: the predicate of a sentence without a period, "is not …; write …". `config` adds the key and its
/// position.
pub type InvalidValue = Cow<'static, str>;

/// Declares a type that is deserialized from a text by a parser, which returns the inner value.
macro_rules! parsed {
    ($($(#[$doc:meta])* $name:ident($inner:ty) = $parse:path;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, schemars::JsonSchema)]
        #[schemars(inline)]
        pub struct $name(#[schemars(with = "String")] $inner);

        impl std::ops::Deref for $name {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl From<$name> for $inner {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::oauth::profile::values::parse(deserializer, $parse).map(Self)
            }
        }
    )*};
}
pub(crate) use parsed;

parsed! {
    /// A URL with https, or http to this machine, without a user name or fragment.
    Endpoint(Url) = endpoint;
    /// An [`Endpoint`] without a query, to which paths are added.
    BaseUrl(Url) = base_url;
    /// An authorization server's identifier (RFC 8414 §2), kept as written: it is compared, not extended.
    Issuer(Url) = issuer;
    /// The id of a public client (RFC 6749 §2.2); not empty.
    ClientId(String) = client_id;
    /// A scope (RFC 6749 §3.3) or another word of visible ASCII characters.
    Word(String) = word;
    /// The value of a request parameter; it may contain known placeholders.
    ParameterValue(String) = parameter_value;
    /// The path of a redirect URI.
    CallbackPath(String) = callback_path;
    /// How long before its end a token is refreshed.
    Lead(Duration) = duration;
    /// A header that a profile may name for the credential.
    CredentialHeader(HeaderName) = header_name;
    /// A header that a profile may set: none that carries a credential.
    PlainHeader(HeaderName) = plain_header_name;
    /// A header value of visible ASCII characters and spaces.
    PlainValue(HeaderValue) = header_value;
    /// One member of a comma-separated header value.
    ListMember(String) = list_member;
    /// A header name in lower case, with an optional `*` at its end.
    HeaderPattern(String) = header_pattern;
}

impl Default for CallbackPath {
    fn default() -> Self {
        Self("/callback".to_owned())
    }
}

impl Default for Lead {
    fn default() -> Self {
        Self(Duration::from_mins(10))
    }
}

impl Default for CredentialHeader {
    fn default() -> Self {
        Self(http::header::AUTHORIZATION)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse(deserializer, rule)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse(deserializer, pattern)
    }
}

impl TryFrom<Vec<String>> for FieldPath {
    type Error = InvalidValue;

    fn try_from(steps: Vec<String>) -> Result<Self, InvalidValue> {
        let (source, members) = match steps.split_first() {
            Some((first, members)) if first == "token" => (FieldSource::TokenResponse, members),
            Some((first, members)) if first == "id_token" => (FieldSource::IdToken, members),
            _ => return Err("must start with token or id_token".into()),
        };
        valid(!members.is_empty(), "names no member; write [token, account, email_address]")?;
        Ok(Self { source, members: members.to_vec() })
    }
}

/// A list of texts, each of which is valid as a `T`.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de> + Into<String>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<T>::deserialize(deserializer)?.into_iter().map(Into::into).collect())
}

/// Deserializes a text and parses it.
pub fn parse<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parser: fn(&str) -> Result<T, InvalidValue>,
) -> Result<T, D::Error> {
    parser(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

pub(super) fn valid(is_valid: bool, predicate: &'static str) -> Result<(), InvalidValue> {
    if is_valid { Ok(()) } else { Err(predicate.into()) }
}

/// `90s`, `5m`, `8h`, `500ms`; 24 hours at most, so that no deadline overflows.
pub fn duration(text: &str) -> Result<Duration, InvalidValue> {
    const INVALID: &str = "is not a duration; write a whole number with ms, s, m or h, like 90s or 5m, at most 24h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(INVALID.into()),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    Ok(milliseconds.filter(|&ms| ms <= 24 * 3_600_000).map(Duration::from_millis).ok_or(INVALID)?)
}

/// A duration, for editors that read the schema; [`duration`] reports more about an invalid one.
pub const DURATION_PATTERN: &str = "^[0-9]+(ms|s|m|h|d)$";

/// A URL with https, or http to this machine, without a user name or fragment.
pub fn endpoint(text: &str) -> Result<Url, InvalidValue> {
    let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\');
    valid(is_plain, "is not a URL: it contains a space, a control character or a backslash")?;
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); write https://host/path"))?;
    let is_loopback = match url.host().ok_or("has no host; write https://host/path")? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    valid(matches!(url.scheme(), "https" | "http"), "has a scheme that Pixy does not support; use https")?;
    valid(
        url.scheme() == "https" || is_loopback,
        "would send credentials unencrypted; use https (http is only for 127.0.0.1, [::1] and localhost)",
    )?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    valid(!has_user, "contains a user name or a password; remove it")?;
    valid(url.fragment().is_none(), "contains a fragment (`#…`); remove it")?;
    Ok(url)
}

fn base_url(text: &str) -> Result<Url, InvalidValue> {
    let mut url = endpoint(text)?;
    valid(url.query().is_none(), "contains a query (`?…`); paths are added to it, so remove the query")?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn issuer(text: &str) -> Result<Url, InvalidValue> {
    let url = endpoint(text)?;
    valid(url.query().is_none(), "contains a query (`?…`), which an issuer never has; remove it")?;
    Ok(url)
}

fn client_id(text: &str) -> Result<String, InvalidValue> {
    valid(!text.trim().is_empty(), "is empty")?;
    Ok(text.to_owned())
}

fn word(text: &str) -> Result<String, InvalidValue> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    valid(is_word, "is not one word of visible ASCII characters")?;
    Ok(text.to_owned())
}

fn parameter_value(text: &str) -> Result<String, InvalidValue> {
    const KNOWN: [&str; 4] = ["redirect_uri", "redirect_uri_with_state", "nonce", "installation"];
    let names = text.split('{').skip(1).map(|after| after.split_once('}').map(|(name, _)| name));
    if !names.into_iter().all(|name| name.is_some_and(|name| KNOWN.contains(&name))) {
        return Err(format!("contains an unknown placeholder; allowed here: {{{}}}", KNOWN.join("}, {")).into());
    }
    Ok(text.to_owned())
}

fn callback_path(text: &str) -> Result<String, InvalidValue> {
    valid(pattern(text).is_ok() && !text.contains('*'), "is not a plain path; write /callback")?;
    Ok(text.to_owned())
}

/// Refuses headers that frame the message or name the connection.
fn header_name(text: &str) -> Result<HeaderName, InvalidValue> {
    const CONNECTION: &str = "connection content-length expect host keep-alive proxy-authenticate proxy-authorization \
                              proxy-connection te trailer transfer-encoding upgrade";
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    let name = name.ok_or("is not a header name; use letters, digits and `-`")?;
    let is_free = CONNECTION.split(' ').all(|known| known != name.as_str());
    valid(is_free, "belongs to the connection itself and cannot be set")?;
    Ok(name)
}

/// Refuses headers that carry a credential too: those are attached, never configured.
fn plain_header_name(text: &str) -> Result<HeaderName, InvalidValue> {
    const CREDENTIALS: [&str; 6] = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie"];
    let name = header_name(text)?;
    let is_plain = !CREDENTIALS.contains(&name.as_str());
    valid(is_plain, "carries a credential; link the account instead, `api.attach` names the header")?;
    Ok(name)
}

fn header_value(text: &str) -> Result<HeaderValue, InvalidValue> {
    let is_plain = !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = HeaderValue::from_str(text).ok().filter(|_| is_plain);
    Ok(value.ok_or("is not a header value; use visible ASCII characters")?)
}

fn list_member(text: &str) -> Result<String, InvalidValue> {
    header_value(text)?;
    valid(!text.contains(','), "contains a comma; write its parts as separate items")?;
    Ok(text.to_owned())
}

pub(super) fn header_pattern(text: &str) -> Result<String, InvalidValue> {
    let stem = text.strip_suffix('*').unwrap_or(text).trim_end_matches('-');
    let is_pattern = HeaderName::from_bytes(stem.as_bytes()).is_ok() && !stem.contains('*');
    valid(is_pattern, "is not a header name with an optional `*` at its end")?;
    Ok(text.to_ascii_lowercase())
}

fn rule(text: &str) -> Result<Rule, InvalidValue> {
    const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let (method, path) = text.split_once(' ').ok_or("is not a rule; write METHOD /path, like POST /v1/messages")?;
    let method = METHODS.into_iter().find(|known| known.as_str() == method);
    let method = method.ok_or("has a method that is not allowed; use GET, HEAD, POST, PUT, PATCH or DELETE")?;
    Ok(Rule { method, path: pattern(path.trim_start_matches(' '))? })
}

fn pattern(text: &str) -> Result<PathPattern, InvalidValue> {
    let pattern = PathPattern::parse(text).filter(|_| !text.contains(['%', '?', '#', '\\']));
    Ok(pattern.ok_or("has a path that is not allowed; write /one/two, where `*` may only begin a segment")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("90s", 90_000), ("5m", 300_000), ("8h", 28_800_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "m", "-5m", "5 m", "1.5h", "5M", "25h", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_https_or_stay_on_this_machine() {
        for valid in [
            "https://a.example",
            "https://a.example:8443/x?y=1",
            "http://127.0.0.9:1/x",
            "http://[::1]:2",
            "http://localhost",
        ] {
            assert!(endpoint(valid).is_ok(), "{valid}");
        }
        for invalid in [
            "http://a.example",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "ftp://a.example",
            "a.example",
            "https://",
            "https://me@a.example",
            "https://me:pw@a.example",
            "https://a.example/#x",
            "https://a.example\\@b",
            " https://a.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "file:///etc/passwd",
            "unix:/x",
        ] {
            assert!(endpoint(invalid).is_err(), "{invalid}");
        }
        assert_eq!(base_url("https://a.example/v1/").unwrap().as_str(), "https://a.example/v1");
        assert!(base_url("https://a.example/v1?x").is_err());
        assert!(issuer("https://a.example/v1?x").is_err());
    }

    #[test]
    fn framing_and_credential_headers_are_refused() {
        assert_eq!(plain_header_name("ChatGPT-Account-ID").unwrap(), "chatgpt-account-id");
        for invalid in ["Host", "Content-Length", "authorization", "x y", ""] {
            assert!(plain_header_name(invalid).is_err(), "{invalid}");
        }
        assert!(header_name("authorization").is_ok());
        assert!(header_value("a\nb").is_err());
        assert!(header_pattern("x-codex-*").is_ok() && header_pattern("x-*-y").is_err());
    }

    #[test]
    fn rules_and_parameters() {
        assert_eq!(rule("POST /v1/messages").unwrap().path.as_str(), "/v1/messages");
        for invalid in ["/v1", "post /v1", "CONNECT /x", "POST v1", "POST /a%2fb", "POST /a?b", "POST  "] {
            assert!(rule(invalid).is_err(), "{invalid}");
        }
        for (text, is_valid) in [("{nonce}", true), ("a{nonce}b{nonce}", true), ("{state}", false), ("{nonce}{", false)]
        {
            assert_eq!(parameter_value(text).is_ok(), is_valid, "{text}");
        }
    }
}
