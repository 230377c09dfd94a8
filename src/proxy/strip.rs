//! Removes from a request what must not reach the upstream. A new header list is built from the fields that pass; none is edited in
//! place. What passes is listed (`oauth::profile::pass_list`, and the profile's own lists); everything else is dropped.

use http::header::{ACCEPT, CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::comma_lists::list_members;
use super::route::Route;
use crate::account::Account;
use crate::oauth::profile::pass_list::{self, KEY_PARAMETERS};
use crate::oauth::profile::{Api, PassList};
use crate::secret::Secret;

/// A request's headers and query without anything that is not listed; and the keys that the agent presented. Made by [`strip`]
/// alone.
pub struct Stripped {
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<String>,
    presented: Vec<Secret>,
    dropped: Dropped,
}

/// The names that were dropped because no list has them, or because Pixy writes the field itself. Neither the agent's keys nor what
/// belongs to its connection.
#[derive(Debug, Default, PartialEq, Eq)]
struct Dropped {
    /// In lower case; `accept;charset` is a parameter.
    fields: Vec<String>,
    /// As they were sent.
    query_keys: Vec<String>,
}

/// What is done with a field, decided by its name alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldAction {
    Forward,
    /// Its values may be the agent's key to Pixy.
    TakeKey,
    /// It belongs to the agent's connection: Pixy writes its own.
    Replace,
    /// It is not listed, or Pixy writes it.
    Drop,
}

impl Stripped {
    /// The fields that are forwarded, in their order.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The query keys that are forwarded, with their values, as they were sent.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The keys that the agent presented, in header fields or the query.
    pub fn presented(&self) -> &[Secret] {
        &self.presented
    }

    /// Of an empty request.
    #[cfg(test)]
    pub(super) fn of_nothing() -> Self {
        Self { headers: Vec::new(), query: None, presented: Vec::new(), dropped: Dropped::default() }
    }

    /// Counts what was dropped and keeps its names for the person.
    pub fn report_dropped(&self, account: &Account) {
        let Dropped { fields, query_keys } = &self.dropped;
        if !fields.is_empty() || !query_keys.is_empty() {
            account.record_dropped(fields.iter().map(String::as_str), query_keys.iter().map(String::as_str));
        }
    }
}

/// Removes what must not reach the upstream. Consumes `headers`: later steps cannot read them.
pub fn strip(headers: HeaderMap, route: &Route) -> Stripped {
    let api = &route.profile().api;
    let named: Vec<String> = list_members(&headers, &CONNECTION).collect();
    let mut presented = Vec::new();
    let mut dropped = Dropped::default();
    let mut forwarded: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(headers.len());
    let (mut action, mut is_accept) = (FieldAction::Drop, false);
    for (name, value) in headers {
        // A repeated field yields its name with the first value only.
        if let Some(name) = &name {
            action = decide(name.as_str(), api, &named);
            is_accept = name == ACCEPT;
            if action == FieldAction::Drop {
                dropped.fields.push(name.as_str().to_owned());
            }
        }
        match action {
            FieldAction::TakeKey => presented.extend(key_of(&value)),
            FieldAction::Replace | FieldAction::Drop => {}
            FieldAction::Forward if is_accept => {
                forwarded.extend(without_charset(value, &mut dropped).map(|value| (ACCEPT, value)));
            }
            FieldAction::Forward => {
                if let Some(name) = name.or_else(|| forwarded.last().map(|(name, _)| name.clone())) {
                    forwarded.push((name, value));
                }
            }
        }
    }
    let query = route.query().and_then(|query| strip_query(query, &api.pass_query, &mut presented, &mut dropped));
    Stripped { headers: forwarded, query, presented, dropped }
}

/// Decides by the name, which is in lower case.
fn decide(name: &str, api: &Api, named: &[String]) -> FieldAction {
    let folded = pass_list::fold(name);
    if pass_list::carries_key(&folded) || api.attaches(&folded) {
        return FieldAction::TakeKey;
    }
    if named.iter().any(|field| *field == name || **field == *folded) {
        return FieldAction::Replace;
    }
    if api.writes(&folded) {
        return FieldAction::Drop;
    }
    // Listed in exactly this spelling. Servers may read another spelling as the same field.
    if pass_list::passes_always(name) || api.adds_to(name) {
        return FieldAction::Forward;
    }
    if pass_list::is_of_connection(&folded) {
        return FieldAction::Replace;
    }
    let passes = api.pass_headers.contains(&folded) && !pass_list::never_passes(&folded) && !api.adds_to(&folded);
    if passes { FieldAction::Forward } else { FieldAction::Drop }
}

/// Whether the request has exactly one Host (RFC 9112 §3.2): otherwise it is ambiguous.
pub fn has_one_host(headers: &HeaderMap) -> bool {
    headers.get_all(HOST).iter().count() == 1
}

/// The key in a credential field, with or without the scheme `Bearer`.
fn key_of(value: &HeaderValue) -> Option<Secret> {
    let text = value.to_str().ok()?.trim();
    let key = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        _ => text,
    };
    (!key.is_empty()).then(|| Secret::new(key.to_owned()))
}

/// A value of `Accept` without its charset parameters: a response in another charset could not be searched. `None` where nothing
/// remains, or where a quoted string hides what a parameter is.
fn without_charset(value: HeaderValue, dropped: &mut Dropped) -> Option<HeaderValue> {
    if !value.as_bytes().contains(&b';') {
        return Some(value); // the usual case
    }
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let is_charset = |parameter: &&str| {
        let start = parameter.trim_start().as_bytes().first_chunk::<7>();
        start.is_some_and(|start| start.eq_ignore_ascii_case(b"charset"))
    };
    if !text.split([';', ',']).any(|parameter| is_charset(&parameter)) {
        return Some(value);
    }
    dropped.fields.push("accept;charset".to_owned());
    if text.contains('"') {
        return None;
    }
    let member = |member: &str| member.split(';').filter(|part| !is_charset(part)).collect::<Vec<_>>().join(";");
    HeaderValue::try_from(text.split(',').map(member).collect::<Vec<_>>().join(",")).ok()
}

/// Moves key parameters to `presented` and keeps the listed ones as they were sent.
fn strip_query(query: &str, listed: &PassList, presented: &mut Vec<Secret>, dropped: &mut Dropped) -> Option<String> {
    let mut kept = String::with_capacity(query.len());
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        if KEY_PARAMETERS.iter().any(|key| decoded.eq_ignore_ascii_case(key)) {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            presented.push(Secret::new(value.into_owned()));
            continue;
        }
        // Some servers read `;` as `&`.
        let passes =
            (pass_list::query_key_passes_always(&decoded) || listed.contains(&decoded)) && !parameter.contains(';');
        if passes {
            if !kept.is_empty() {
                kept.push('&');
            }
            kept.push_str(parameter);
        } else if !parameter.is_empty() {
            // Without `=` it may be a value.
            let shown = if parameter.contains('=') { name } else { "(without =)" };
            dropped.query_keys.push(shown.to_owned());
        }
    }
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(query: &str, listed: &[&str]) -> (Option<String>, Vec<String>, Vec<String>) {
        let api: PassList = serde_json::from_value::<Api>(serde_json::json!({
            "base_url": "https://llm.example.com", "allow": [], "pass_query": listed,
        }))
        .unwrap()
        .pass_query;
        let (mut presented, mut dropped) = (Vec::new(), Dropped::default());
        let kept = strip_query(query, &api, &mut presented, &mut dropped);
        (kept, presented.iter().map(|key| key.expose().to_owned()).collect(), dropped.query_keys)
    }

    #[test]
    fn attack_86_only_listed_query_keys_are_kept() {
        for (query, listed, kept, presented, dropped) in [
            ("beta=true&key=abc&limit=%2f", &[][..], Some("beta=true&limit=%2f"), &["abc"][..], &[][..]),
            ("%6bey=abc", &[], None, &["abc"], &[]),
            ("%6cimit=1&include%5B%5D=a&include[]=b", &[], Some("%6cimit=1&include%5B%5D=a&include[]=b"), &[], &[]),
            ("alt=sse&pageSize=5", &["alt", "page*"], Some("alt=sse&pageSize=5"), &[], &[]),
            ("alt=sse", &[], None, &[], &["alt"]),
            (
                "Limit=1&oauth_token=a&bearer_token=b&apikey=c",
                &[],
                None,
                &[],
                &["Limit", "oauth_token", "bearer_token", "apikey"],
            ),
            ("limit=1;key=x&beta=true&subscription-key=y", &[], Some("beta=true"), &[], &["limit", "subscription-key"]),
            ("sk-key-of-the-agent&beta&&", &[], Some("beta"), &[], &["(without =)"]),
        ] {
            let (got_kept, got_presented, got_dropped) = stripped(query, listed);
            assert_eq!(got_kept.as_deref(), kept, "{query}");
            assert_eq!(got_presented, presented, "{query}");
            assert_eq!(got_dropped, dropped, "{query}");
        }
    }

    #[test]
    fn attack_87_charset_parameters_of_accept_are_removed() {
        for (sent, expected) in [
            ("*/*", Some("*/*")),
            ("text/event-stream;q=0.5, */*;q=0.1", Some("text/event-stream;q=0.5, */*;q=0.1")),
            ("application/json; charset=utf-16", Some("application/json")),
            ("a/b;Charset=utf-16le;q=1, c/d; charset=utf-7 ;x=y", Some("a/b;q=1, c/d;x=y")),
            ("a/b;charset*=utf-8''utf-16", Some("a/b")),
            ("a/b;x=\"y\"", Some("a/b;x=\"y\"")),
            ("a/b;charset=\"utf-16\"", None),
            ("a/b;x=\",\";charset=utf-16", None),
        ] {
            let mut dropped = Dropped::default();
            let got = without_charset(HeaderValue::from_static(sent), &mut dropped);
            assert_eq!(got.as_ref().map(|value| value.to_str().unwrap()), expected, "{sent}");
            assert_eq!(dropped.fields.is_empty(), expected == Some(sent), "{sent}");
        }
    }

    #[test]
    fn attack_13_every_connection_option_is_found() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static(""));
        headers.append(CONNECTION, HeaderValue::from_static("close, AUTHORIZATION"));
        headers.append(CONNECTION, HeaderValue::from_static(" x-custom "));
        headers.append(CONNECTION, HeaderValue::from_bytes(b"\xd8, x-beside-invalid-utf8").unwrap());
        let named: Vec<String> = list_members(&headers, &CONNECTION).collect();
        assert_eq!(named[..4], ["", "close", "authorization", "x-custom"]);
        assert_eq!(named[5], "x-beside-invalid-utf8");
    }
}
