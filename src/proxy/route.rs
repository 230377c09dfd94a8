//! Finds the account of a request and checks method and path against the exact lists of its profile.

use std::sync::Arc;

use http::{Method, Uri};

use super::refusal::Refusal;
use crate::account::{Account, Accounts};
use crate::name::AccountName;
use crate::oauth::profile::Profile;

/// A request that an account's profile allows. Made by [`find`] and [`find_websocket`] alone.
pub struct Route {
    account: Arc<Account>,
    profile: Arc<Profile>,
    path: String,
    query: Option<String>,
    purpose: Purpose,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is forwarded.
    Forward,
    /// A connectivity probe, answered locally: `GET` or `HEAD` of the account's root, and `HEAD /api/hello` of Claude Code.
    ConnectivityProbe,
}

impl Route {
    /// The account whose token will be attached.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The profile that the request was checked against; a later configuration applies to later requests.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The path below the account's base URL: the string that was checked.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query as received.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Whether it is forwarded.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// The account that the path names, or the listener's own: before any check, so that refusals have its error shape.
pub fn account(accounts: &Accounts, bound: Option<&AccountName>, uri: &Uri) -> Option<Arc<Account>> {
    match bound {
        Some(name) => accounts.find(name.as_str()),
        None => accounts.find(uri.path().strip_prefix('/')?.split('/').next()?),
    }
}

/// Checks method and path against the account's list.
pub fn find(account: &Arc<Account>, bound: bool, method: &Method, uri: &Uri) -> Result<Route, Refusal> {
    let path = below_account(uri, bound)?;
    let query = uri.query().map(str::to_owned);
    let profile = account.profile();
    let rules = &profile.api.allow;
    let route = |path: &str, purpose| {
        let (account, profile) = (Arc::clone(account), Arc::clone(&profile));
        Route { account, profile, path: path.to_owned(), query, purpose }
    };
    let is_probe = matches!((method, path), (&Method::GET | &Method::HEAD, "" | "/") | (&Method::HEAD, "/api/hello"));
    if is_probe {
        return Ok(route("/", Purpose::ConnectivityProbe));
    }
    check_path(path).map_err(Refusal::BadRequest)?;
    if rules.iter().any(|rule| rule.method == *method && rule.path.matches(path)) {
        return Ok(route(path, Purpose::Forward));
    }
    let others = rules.iter().filter(|rule| rule.path.matches(path)).map(|rule| rule.method.as_str());
    let allow = others.collect::<Vec<_>>().join(", ");
    Err(if allow.is_empty() { Refusal::PathNotAllowed } else { Refusal::MethodNotAllowed { allow } })
}

/// As [`find`], for a request that asks for a WebSocket: profiles list those paths separately.
pub fn find_websocket(account: &Arc<Account>, bound: bool, method: &Method, uri: &Uri) -> Result<Route, Refusal> {
    let path = below_account(uri, bound)?;
    check_path(path).map_err(Refusal::BadRequest)?;
    let profile = account.profile();
    let is_listed = profile.api.websocket.iter().any(|pattern| pattern.matches(path));
    if !is_listed || method != Method::GET {
        return Err(Refusal::NoWebSocket);
    }
    let query = uri.query().map(str::to_owned);
    Ok(Route { account: Arc::clone(account), profile, path: path.to_owned(), query, purpose: Purpose::Forward })
}

fn below_account(uri: &Uri, bound: bool) -> Result<&str, Refusal> {
    if uri.authority().is_some() || uri.scheme().is_some() {
        // Origin-form alone (RFC 9112 §3.2.1): a request never chooses the upstream.
        return Err(Refusal::BadRequest("the request target must be a path"));
    }
    if bound {
        return Ok(uri.path());
    }
    let rest = uri.path().strip_prefix('/').unwrap_or(uri.path());
    Ok(rest.find('/').map_or("", |slash| &rest[slash..]))
}

/// Refuses a path that two parsers could read differently. Others are compared and sent unchanged: the path that was checked is
/// the path that is sent.
fn check_path(path: &str) -> Result<(), &'static str> {
    let Some(segments) = path.strip_prefix('/') else { return Err("the path must start with '/'") };
    for segment in segments.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err("the path must not hold empty or dot segments");
        }
        check_segment(segment)?;
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => char::from_u32(high * 16 + low),
                _ => return Err("the path holds a '%' that is no escape"),
            }
        } else {
            Some(char::from(byte))
        };
        let is_safe = decoded.is_some_and(|character| match byte {
            // An escape must not decode to a character that has a meaning in a path, here or after a second decoding.
            b'%' => !character.is_ascii_control() && !matches!(character, '/' | '\\' | '.' | '%' | ';' | '?' | '#'),
            // RFC 3986 §3.3 pchar, without ';' (path parameters).
            _ => matches!(character,
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~'
                | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | '=' | ':' | '@'),
        });
        if !is_safe {
            return Err("the path holds an encoded or unsafe character");
        }
    }
    // Lenient decoders read overlong forms as `.` or `/`.
    if segment.contains('%') && percent_encoding::percent_decode_str(segment).decode_utf8().is_err() {
        return Err("the path holds escapes that are not UTF-8");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_17_ambiguous_paths_are_refused() {
        for path in [
            "/v1/..%2fadmin",
            "/v1/%2e%2e/admin",
            "/v1/..;/admin",
            "/v1//messages",
            "/v1/messages/",
            "/v1\\messages",
            "/v1/%5cmessages",
            "/v1/%252e%252e/admin",
            "/v1/%00",
            "/v1/%",
            "/v1/%zz",
            "/v1/../admin",
            "/./v1",
            "/v1/a;b=c",
            "/v1/%3bx",
            "/v1/%0d%0a",
            "/v1/%c0%ae%c0%ae%c0%afadmin",
            "/v1/%ed%a0%80",
            "/v1/a%ff",
            "v1",
            "",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
        for path in
            ["/v1/messages", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", "/v1/models/a%20b", "/a/%c3%a9"]
        {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn the_account_is_the_first_segment() {
        for (path, bound, below) in [
            ("/claude/v1/messages", false, "/v1/messages"),
            ("/claude", false, ""),
            ("/claude/", false, "/"),
            ("/v1/messages", true, "/v1/messages"),
        ] {
            assert_eq!(below_account(&Uri::from_static(path), bound), Ok(below));
        }
        assert!(below_account(&Uri::from_static("http://api.example.com/claude/v1"), false).is_err());
    }
}
