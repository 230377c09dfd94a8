//! Single values: text in, meaning out, or a sentence that says what is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use url::Url;

use crate::oauth::profile::{FieldPath, FieldSource, PathPattern, Rule};
use crate::server::Address;
use crate::upstream::is_loopback_host;

/// `500ms`, `90s`, `5m`, `8h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(millis @ 1..=31_536_000_000) => Ok(Duration::from_millis(millis)),
        _ => Err(format!(
            "\"{text}\" is not a duration; write it like 500ms, 90s, 5m or 8h (more than nothing, at most a year)."
        )),
    }
}

/// `127.0.0.1:8700`, `[::1]:8700` or `unix:/path`.
pub(super) fn address(text: &str, expand: impl Fn(&str) -> Result<PathBuf, String>) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = expand(path)?;
        return if path.is_absolute() {
            Ok(Address::Unix(path))
        } else {
            Err(format!("\"{text}\" needs an absolute path after `unix:`."))
        };
    }
    text.parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        format!("\"{text}\" is not an address; write it like 127.0.0.1:8700, [::1]:8700 or unix:/run/pixy/agent.sock.")
    })
}

/// A URL that may be called: https, or http on this machine.
pub(super) fn url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("this is not a URL ({error}); write it like https://host/path."))?;
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        _ if host.is_empty() => Err("this URL names no host.".to_owned()),
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("a URL must not hold a name or a password.".to_owned())
        }
        "https" => Ok(url),
        "http" if is_loopback_host(host) => Ok(url),
        "http" => {
            Err(format!("http is for hosts of this machine alone (127.0.0.1, ::1, localhost); write https://{host}…"))
        }
        scheme => Err(format!("\"{scheme}\" is not a scheme that Pixy speaks; use https.")),
    }
}

/// A URL to which paths are added.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let url = url(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("paths are added to this URL, so it must have no `?` and no `#`.".to_owned());
    }
    Ok(url)
}

/// A header's name.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    const OURS: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "upgrade"];
    match HeaderName::try_from(text) {
        Ok(name) if OURS.contains(&name.as_str()) => {
            Err(format!("`{text}` is set by HTTP itself and cannot be set here."))
        }
        Ok(name) => Ok(name),
        Err(_) => Err(format!("\"{text}\" is not the name of a header.")),
    }
}

/// A header's value: visible ASCII and spaces.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "this cannot stand in a header; visible ASCII characters can.".to_owned())
}

/// `POST /v1/messages`.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let parsed = text.split_once(' ').and_then(|(method, path)| {
        let method = METHODS.iter().find(|known| known.as_str() == method)?.clone();
        Some(Rule { method, path: PathPattern::parse(path)? })
    });
    parsed.ok_or_else(|| {
        format!("\"{text}\" is not a rule; write it like `POST /v1/messages` or `GET /v1/models/*` (a method, a space, a path; `*` is one segment).")
    })
}

/// A path on which a WebSocket may be opened.
pub(super) fn pattern(text: &str) -> Result<PathPattern, String> {
    PathPattern::parse(text).ok_or_else(|| format!("\"{text}\" is not a path; write it like /v1/responses."))
}

/// `[token, account, email]` or `[id_token, email]`.
pub(super) fn field_path(path: &[String]) -> Result<FieldPath, String> {
    let source = match path.first().map(String::as_str) {
        Some("token") => FieldSource::TokenReply,
        Some("id_token") => FieldSource::IdToken,
        _ => return Err("a path starts with `token` or `id_token`: [token, account, email].".to_owned()),
    };
    let members = path[1..].to_vec();
    if members.is_empty() {
        Err("a path needs a field after its start: [token, account, email].".to_owned())
    } else {
        Ok(FieldPath { source, members })
    }
}

/// 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "this is not a SHA-256; it has 64 hexadecimal digits (`printf %s KEY | sha256sum`).".to_owned();
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("8h"), Ok(Duration::from_hours(8)));
        for wrong in ["", "5", "5 m", "-5s", "5d", "m", "0s", "99999999999999999999h", "9999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for good in ["https://a.example/v1", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for wrong in ["http://a.example", "https://me:secret@a.example", "ftp://a.example", "a.example", "https://"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        assert!(base_url("https://a.example/?x").is_err());
    }

    #[test]
    fn rules_are_a_method_and_a_path() {
        assert!(rule("POST /v1/messages").is_ok());
        for wrong in ["/v1/messages", "post /v1", "CONNECT /x", "POST v1", "POST  /v1", "POST /v1/../x"] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn digests_are_read() {
        assert_eq!(sha256(&"0f".repeat(32)), Ok([15; 32]));
        for wrong in ["", &"g".repeat(64), &"é".repeat(32), "0f"] {
            assert!(sha256(wrong).is_err(), "{wrong}");
        }
    }
}
