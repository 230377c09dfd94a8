//! The meaning of single values. Each function answers with the predicate of a sentence when there is none: "is not …; write …".

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use url::{Host, Url};

use crate::oauth::profile::{FieldPath, FieldSource, PathPattern, Rule};
use crate::server::{Access, Address};

/// `90s`, `5m`, `8h`, `10m`, `500ms`; a day at most, so that no deadline overflows.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const WRONG: &str = "is not a duration; write a whole number with ms, s, m or h, like 90s or 5m, at most 24h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(WRONG.to_owned()),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    milliseconds.filter(|&ms| ms <= 24 * 3_600_000).map(Duration::from_millis).ok_or_else(|| WRONG.to_owned())
}

/// As [`duration`], but not nothing.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| {
        if time.is_zero() { Err("is no time at all; write at least 1ms".to_owned()) } else { Ok(time) }
    })
}

/// An endpoint: https, or http to this machine, without a user name or fragment.
pub(super) fn endpoint(text: &str) -> Result<Url, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("is not a URL: it holds a space, a control character or a backslash".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); write https://host/path"))?;
    let Some(host) = url.host() else {
        return Err("has no host; write https://host/path".to_owned());
    };
    let here = match host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => {
            return Err(
                "would send credentials in the clear; use https (http is for 127.0.0.1, [::1] and localhost alone)"
                    .to_owned(),
            );
        }
        _ => return Err("has a scheme that Pixy does not speak; use https".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password; a URL must not".to_owned());
    }
    if url.fragment().is_some() {
        return Err("holds a fragment (`#…`); take it away".to_owned());
    }
    Ok(url)
}

/// An [`endpoint`] without a query, to which paths are added.
pub(super) fn base_url(text: &str) -> Result<Url, String> {
    let mut url = endpoint(text)?;
    if url.query().is_some() {
        return Err("holds a query (`?…`); paths are added to it, so take the query away".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// `127.0.0.1:8700`, `[::1]:8700` or `unix:/path`.
pub(super) fn address(text: &str, home: Option<&Path>) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return self::path(path, home).map(Address::Unix);
    }
    text.parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        let hint = if text.starts_with("localhost:") { " (names are not looked up: write 127.0.0.1)" } else { "" };
        format!("is not an address; write 127.0.0.1:8700, [::1]:8700 or unix:/path{hint}")
    })
}

/// `0600`, `0660` or `0666`. Other modes say nothing more about a socket: to connect is to write, and Pixy itself connects, to see
/// whether another program answers there.
pub(super) fn access(text: &str) -> Result<Access, String> {
    match text.strip_prefix('0').unwrap_or(text) {
        "600" => Ok(Access::Owner),
        "660" => Ok(Access::Group),
        "666" => Ok(Access::Everybody),
        _ => Err("is not a mode that a socket may have; write \"0600\" (Pixy's own user), \"0660\" (its group too) or \"0666\" \
                  (everybody who reaches its directory)"
            .to_owned()),
    }
}

/// An authorization server's identifier (RFC 8414 §2), kept as written: it is compared, not extended.
pub(super) fn issuer(text: &str) -> Result<Url, String> {
    let url = endpoint(text)?;
    if url.query().is_some() { Err("holds a query (`?…`), which an issuer never has".to_owned()) } else { Ok(url) }
}

/// An absolute path, `~` being the home directory.
pub(super) fn path(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let full = match text.strip_prefix('~') {
        Some("") => home.map(Path::to_path_buf),
        Some(rest) if rest.starts_with('/') => home.map(|home| home.join(rest.trim_start_matches('/'))),
        Some(_) => return Err("starts with the home directory of somebody; only `~/` is understood".to_owned()),
        None => Some(PathBuf::from(text)),
    };
    match full {
        None => Err("starts with `~`, but HOME is not set; set HOME or write an absolute path".to_owned()),
        Some(full) if text.contains('\0') || !full.is_absolute() => {
            Err("is not an absolute path; start it with `/` or `~/`".to_owned())
        }
        Some(full) => Ok(full),
    }
}

/// 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    // The text is not repeated: it may be a key that was pasted by mistake.
    let wrong =
        || "is not a SHA-256 digest; write the 64 hexadecimal digits that `sha256sum` prints for the key".to_owned();
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(wrong()),
        }
    }
    Ok(digest)
}

/// A header that a profile may send: not one that frames the message or names the connection.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    const OURS: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "is not a header name; letters, digits and `-` make one".to_owned())?;
    if OURS.contains(&name.as_str()) {
        return Err("belongs to the connection itself and cannot be set".to_owned());
    }
    Ok(name)
}

/// As [`header_name`], but none that carries a credential: those are attached, never configured.
pub(super) fn plain_header_name(text: &str) -> Result<HeaderName, String> {
    const CREDENTIALS: [&str; 6] = ["authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "set-cookie"];
    let name = header_name(text)?;
    if CREDENTIALS.contains(&name.as_str()) {
        return Err("carries a credential; link the account instead, `api.attach` names the header".to_owned());
    }
    Ok(name)
}

/// Visible ASCII and spaces.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    let plain = !text.is_empty() && text.trim() == text && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let wrong = || "is not a header value; visible ASCII characters make one".to_owned();
    if plain { HeaderValue::from_str(text).map_err(|_| wrong()) } else { Err(wrong()) }
}

/// One member of a comma list.
pub(super) fn list_member(text: &str) -> Result<String, String> {
    header_value(text)?;
    if text.contains(',') {
        Err("holds a comma; write its parts as separate items".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// A header name, in small letters, with an optional `*` at its end.
pub(super) fn header_pattern(text: &str) -> Result<String, String> {
    let stem = text.strip_suffix('*').unwrap_or(text).trim_end_matches('-');
    match HeaderName::from_bytes(stem.as_bytes()) {
        Ok(_) if !stem.contains('*') => Ok(text.to_ascii_lowercase()),
        _ => Err("is not a header name with an optional `*` at its end".to_owned()),
    }
}

/// `POST /v1/messages`
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    let (method, path) = text.split_once(' ').ok_or("is not a rule; write METHOD /path, like POST /v1/messages")?;
    if !METHODS.contains(&method) {
        return Err(format!("has a method that is not allowed; use one of {}", METHODS.join(", ")));
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "has a method that is none".to_owned())?;
    Ok(Rule { method, path: pattern(path.trim_start_matches(' '))? })
}

/// `/v1/models/*`
pub(super) fn pattern(text: &str) -> Result<PathPattern, String> {
    let wrong = || "has a path that is not allowed; write /one/two, where `*` may only begin a segment".to_owned();
    PathPattern::parse(text).filter(|_| !text.contains(['%', '?', '#', '\\'])).ok_or_else(wrong)
}

/// A path into the token reply or the id_token.
pub(super) fn field_path(steps: &[String]) -> Result<FieldPath, String> {
    let source = match steps.first().map(String::as_str) {
        Some("token") => FieldSource::TokenReply,
        Some("id_token") => FieldSource::IdToken,
        _ => return Err("must start with token or id_token".to_owned()),
    };
    match &steps[1..] {
        members @ [_, ..] => Ok(FieldPath { source, members: members.to_vec() }),
        [] => Err("names no member; write [token, account, email_address]".to_owned()),
    }
}

/// A scope (RFC 6749 §3.3) or another word that must hold no space.
pub(super) fn word(text: &str) -> Result<String, String> {
    let fine = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
    if fine { Ok(text.to_owned()) } else { Err("is not one word of visible ASCII characters".to_owned()) }
}

/// A value of a request parameter; only known placeholders may stand in it.
pub(super) fn parameter(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 4] = ["redirect_uri", "redirect_uri_with_state", "nonce", "installation"];
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let inside = after.split('}').next().unwrap_or_default();
        if !KNOWN.contains(&inside) || !after.contains('}') {
            return Err(format!("holds a placeholder that does not exist; there are {{{}}}", KNOWN.join("}, {")));
        }
        rest = after;
    }
    Ok(text.to_owned())
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
        assert!(timeout("0s").is_err());
    }

    #[test]
    fn urls_are_https_or_stay_on_this_machine() {
        for fine in [
            "https://a.example",
            "https://a.example:8443/x?y=1",
            "http://127.0.0.9:1/x",
            "http://[::1]:2",
            "http://localhost",
        ] {
            assert!(endpoint(fine).is_ok(), "{fine}");
        }
        for wrong in [
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
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
        assert_eq!(base_url("https://a.example/v1/").unwrap().as_str(), "https://a.example/v1");
        assert!(base_url("https://a.example/v1?x").is_err());
    }

    #[test]
    fn addresses_and_paths() {
        let home = Some(Path::new("/home/me"));
        assert_eq!(address("unix:~/a.sock", home), Ok(Address::Unix("/home/me/a.sock".into())));
        assert_eq!(address("[::1]:1", home).unwrap().to_string(), "[::1]:1");
        assert!(address("localhost:1", home).unwrap_err().contains("127.0.0.1"));
        assert!(path("~/x", None).unwrap_err().contains("HOME"));
        for wrong in ["x", "./x", "~you/x", "", "/a\0b"] {
            assert!(path(wrong, home).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn headers_that_frame_or_authenticate_are_not_configured() {
        assert_eq!(plain_header_name("ChatGPT-Account-ID").unwrap(), "chatgpt-account-id");
        for wrong in ["Host", "Content-Length", "authorization", "x y", ""] {
            assert!(plain_header_name(wrong).is_err(), "{wrong}");
        }
        assert!(header_name("authorization").is_ok());
        assert!(header_value("a\nb").is_err());
        assert!(header_pattern("x-codex-*").is_ok() && header_pattern("x-*-y").is_err());
    }

    #[test]
    fn rules_digests_and_parameters() {
        assert_eq!(rule("POST /v1/messages").unwrap().path.as_text(), "/v1/messages");
        for wrong in ["/v1", "post /v1", "CONNECT /x", "POST v1", "POST /a%2fb", "POST /a?b", "POST  "] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
        assert_eq!(sha256(&"0f".repeat(32)), Ok([15; 32]));
        assert!(sha256(&"é".repeat(32)).is_err() && sha256(&"+f".repeat(32)).is_err());
        assert!(parameter("{nonce}").is_ok() && parameter("{state}").is_err() && parameter("{nonce").is_err());
    }
}
