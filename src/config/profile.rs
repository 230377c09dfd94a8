//! Provider profiles: the shipped ones, an account's changes laid over one of them, and the whole parsed into a [`Profile`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::Reporter;
use super::fault::Source;
use super::node::{Content, Node};
use super::{raw, values};
use crate::oauth::profile::{
    Api, Attach, BodyKind, Device, ErrorShape, Expiry, Flow, Headers, Link, PathPattern, Ports, Profile, Redirect,
    Revoke, Rule, Terms, TermsStatus, Token,
};

/// The shipped profiles, by name.
pub(super) const SHIPPED: [(&str, &str); 10] = [
    ("claude", include_str!("../../config/providers/claude.yaml")),
    ("anthropic", include_str!("../../config/providers/anthropic.yaml")),
    ("chatgpt", include_str!("../../config/providers/chatgpt.yaml")),
    ("codex", include_str!("../../config/providers/codex.yaml")),
    ("openrouter", include_str!("../../config/providers/openrouter.yaml")),
    ("huggingface", include_str!("../../config/providers/huggingface.yaml")),
    ("openai", include_str!("../../config/providers/openai.yaml")),
    ("gemini", include_str!("../../config/providers/gemini.yaml")),
    ("openai-compatible", include_str!("../../config/providers/openai-compatible.yaml")),
    ("oauth", include_str!("../../config/providers/oauth.yaml")),
];

/// A shipped profile as a tree.
pub(super) fn shipped(name: &str) -> Option<Node> {
    let (_, text) = SHIPPED.iter().find(|(known, _)| *known == name)?;
    let source = Source { name: format!("config/providers/{name}.yaml"), text: (*text).to_owned() };
    Node::parse(&Arc::new(source)).ok()
}

/// Lays an account's changes over a profile.
pub(super) fn laid_over(mut base: Node, changes: Option<&Node>) -> Node {
    let Some(changes) = changes.filter(|changes| matches!(changes.content, Content::Map(_))) else { return base };
    // A redirect is one of two kinds: the other kind goes when one is chosen.
    let kind = |node: &Node| {
        let redirect = &node.get("link")?.node.get("redirect")?.node;
        Some(redirect.get("paste").is_some_and(|entry| !matches!(entry.node.content, Content::Null)))
    };
    if kind(changes).is_some()
        && kind(&base) != kind(changes)
        && let Content::Map(sections) = &mut base.content
        && let Some(link) = sections.iter_mut().find(|section| section.key == "link")
        && let Content::Map(entries) = &mut link.node.content
    {
        entries.retain(|entry| entry.key != "redirect");
    }
    base.merge(changes.clone());
    base
}

/// Parses a whole profile; everything that is wrong is told to the reporter.
pub(super) fn resolve(provider: &str, raw: raw::Profile, report: &mut Reporter<'_>) -> Option<Profile> {
    let before = report.count();
    let link = link(raw.link.unwrap_or_default(), report);
    let token = token(raw.token.unwrap_or_default(), report);
    let revoke = raw.revoke.and_then(|revoke| {
        let body = body(revoke.body);
        report.optional(&["revoke", "url"], revoke.url.as_deref(), values::url).map(|url| Revoke { url, body })
    });
    let identity = raw.identity.unwrap_or_default();
    let identity = report.each(&["identity"], &identity, |path| values::field_path(path));
    let api = api(raw.api.unwrap_or_default(), report);
    let terms = raw.terms.unwrap_or_default();
    let terms = Terms {
        status: match terms.status.unwrap_or(raw::Status::Open) {
            raw::Status::Open => TermsStatus::Open,
            raw::Status::Conditional => TermsStatus::Conditional,
            raw::Status::Restricted => TermsStatus::Restricted,
        },
        url: report.optional(&["terms", "url"], terms.url.as_deref(), values::url),
        says: terms.says.unwrap_or_default(),
    };
    needs(&link, &token, report);
    if report.count() > before {
        return None;
    }
    let title = raw.title.unwrap_or_else(|| provider.to_owned());
    Some(Profile { provider: provider.to_owned(), title, terms, link, token, identity, revoke, api: api? })
}

/// What each flow cannot do without.
fn needs(link: &Link, token: &Token, report: &mut Reporter<'_>) {
    let discovers = link.issuer.is_some();
    let mut missing = |path: &[&str], what: &str| report.missing(path, what);
    match link.flow {
        Flow::AuthorizationCode => {
            if !discovers && (link.authorize_url.is_none() || token.url.is_none()) {
                missing(
                    &["link"],
                    "set `link.issuer` (its endpoints are then discovered), or `link.authorize_url` and `token.url`",
                );
            }
            if link.redirect == Redirect::None {
                missing(&["link"], "set `link.redirect` to { paste: URL } or { loopback: { … } }");
            }
        }
        Flow::DeviceCode if !discovers && (link.device.is_none() || token.url.is_none()) => {
            missing(&["link"], "set `link.issuer`, or `link.device.url` and `token.url`");
        }
        Flow::ClientCredentials => {
            if !discovers && token.url.is_none() {
                missing(&["token"], "set `link.issuer` or `token.url`");
            }
            if link.client_id.is_none() {
                missing(&["link"], "set `link.client_id`; its secret is given when the account is linked");
            }
        }
        Flow::DeviceCode | Flow::ApiKey => {}
    }
}

fn link(raw: raw::ProfileLink, report: &mut Reporter<'_>) -> Link {
    let flow = match raw.flow.unwrap_or(raw::Flow::AuthorizationCode) {
        raw::Flow::AuthorizationCode => Flow::AuthorizationCode,
        raw::Flow::DeviceCode => Flow::DeviceCode,
        raw::Flow::ClientCredentials => Flow::ClientCredentials,
        raw::Flow::ApiKey => Flow::ApiKey,
    };
    let device = raw.device.unwrap_or_default();
    let device_url = report.optional(&["link", "device", "url"], device.url.as_deref(), values::url);
    let verification_url =
        report.optional(&["link", "device", "verification_url"], device.verification_url.as_deref(), values::url);
    Link {
        flow,
        issuer: report.optional(&["link", "issuer"], raw.issuer.as_deref(), values::base_url),
        authorize_url: report.optional(&["link", "authorize_url"], raw.authorize_url.as_deref(), values::url),
        authorize_params: pairs(raw.authorize_params),
        redirect: raw.redirect.map_or(Redirect::None, |redirect| self::redirect(redirect, report)),
        client_id: raw.client_id,
        client_id_from_callback: raw.client_id_from_callback.unwrap_or(false),
        scopes: raw.scopes.unwrap_or_default(),
        required_scopes: raw.required_scopes.unwrap_or_default(),
        device: device_url.map(|url| Device { url, verification_url }),
    }
}

fn redirect(raw: raw::Redirect, report: &mut Reporter<'_>) -> Redirect {
    match (raw.paste, raw.loopback) {
        (Some(_), Some(_)) => {
            report.fault(&["link", "redirect"], "a redirect is either `paste` or `loopback`, not both.");
            Redirect::None
        }
        (Some(page), None) => report
            .optional(&["link", "redirect", "paste"], Some(&page), values::url)
            .map_or(Redirect::None, Redirect::Paste),
        (None, Some(loopback)) => self::loopback(loopback, report),
        (None, None) => Redirect::None,
    }
}

fn loopback(raw: raw::Loopback, report: &mut Reporter<'_>) -> Redirect {
    const AT: [&str; 3] = ["link", "redirect", "loopback"];
    let host = raw.host.unwrap_or_else(|| "127.0.0.1".to_owned());
    if !crate::upstream::is_loopback_host(&host) {
        report.fault(&[AT[0], AT[1], AT[2], "host"], "a loopback redirect goes to 127.0.0.1, localhost or [::1].");
    }
    let ports = match raw.ports {
        None => Ports::Any,
        Some(raw::Ports::Word(word)) if word == "any" => Ports::Any,
        Some(raw::Ports::List(list)) if !list.is_empty() && !list.contains(&0) => Ports::Only(list),
        Some(_) => {
            report.fault(&[AT[0], AT[1], AT[2], "ports"], "write `any`, or a list of ports like [1455, 1457].");
            Ports::Any
        }
    };
    let path = raw.path.unwrap_or_else(|| "/callback".to_owned());
    if PathPattern::parse(&path).is_none() || path.contains('*') || path.starts_with("/api/") {
        report.fault(&[AT[0], AT[1], AT[2], "path"], "this is not a path like /callback (and /api/ is Pixy's own).");
    }
    Redirect::Loopback { host, ports, path }
}

fn token(raw: raw::Token, report: &mut Reporter<'_>) -> Token {
    let mut terminal_errors = raw.terminal_errors.unwrap_or_else(|| vec!["invalid_grant".to_owned()]);
    let terminal_401 = terminal_errors.iter().any(|code| code == "401");
    terminal_errors.retain(|code| code != "401");
    Token {
        url: report.optional(&["token", "url"], raw.url.as_deref(), values::url),
        body: body(raw.body),
        send_state: raw.send_state.unwrap_or(false),
        exchange_extra: pairs(raw.exchange_extra),
        refresh_extra: pairs(raw.refresh_extra),
        access_token_field: raw.access_token_field.unwrap_or_else(|| "access_token".to_owned()),
        expiry: match raw.expiry.unwrap_or(raw::Expiry::ExpiresIn) {
            raw::Expiry::ExpiresIn => Expiry::ExpiresIn,
            raw::Expiry::Jwt => Expiry::Jwt,
            raw::Expiry::Never => Expiry::Never,
        },
        refresh_lead: report
            .optional(&["token", "refresh_lead"], raw.refresh_lead.as_deref(), values::duration)
            .unwrap_or(Duration::from_mins(10)),
        not_before_field: raw.not_before_field,
        terminal_errors,
        terminal_401,
    }
}

fn api(raw: raw::Api, report: &mut Reporter<'_>) -> Option<Api> {
    let base_url: Option<Url> = report.optional(&["api", "base_url"], raw.base_url.as_deref(), values::base_url);
    if raw.base_url.is_none() {
        report.missing(&["api"], "set `api.base_url`, where requests go");
    }
    let allow: Vec<Rule> = report.each(&["api", "allow"], &raw.allow.unwrap_or_default(), |text| values::rule(text));
    let websocket =
        report.each(&["api", "websocket"], &raw.websocket.unwrap_or_default(), |text| values::pattern(text));
    let attach = raw.attach.unwrap_or_default();
    let header = report.optional(&["api", "attach", "header"], attach.header.as_deref(), values::header_name);
    let headers = headers(raw.headers.unwrap_or_default(), report);
    Some(Api {
        base_url: base_url?,
        attach: Attach {
            scheme: attach.scheme.or_else(|| attach.header.is_none().then(|| "Bearer".to_owned())),
            header: header.unwrap_or(http::header::AUTHORIZATION),
        },
        headers,
        allow,
        websocket,
        errors: match raw.errors.unwrap_or(raw::Errors::Openai) {
            raw::Errors::Anthropic => ErrorShape::Anthropic,
            raw::Errors::Openai => ErrorShape::OpenAi,
        },
        quota_headers: raw.quota_headers.unwrap_or_default(),
    })
}

fn headers(raw: raw::Headers, report: &mut Reporter<'_>) -> Headers {
    let members = |members: &Vec<String>| {
        members.iter().map(|member| values::header_value(member).map(|_| member.clone())).collect::<Result<Vec<_>, _>>()
    };
    Headers {
        default: named("default", raw.default, report, |text: &String| values::header_value(text)),
        merge: named("merge", raw.merge, report, members),
        set: named("set", raw.set, report, |text: &String| values::header_value(text)),
        claims: named("claims", raw.claims, report, |path: &Vec<String>| values::field_path(path)),
    }
}

/// Headers by name; one whose value is null was taken out by the operator.
fn named<T, U>(
    section: &str,
    map: Option<BTreeMap<String, Option<T>>>,
    report: &mut Reporter<'_>,
    parse: impl Fn(&T) -> Result<U, String>,
) -> Vec<(HeaderName, U)> {
    let mut headers = Vec::new();
    for (name, value) in map.unwrap_or_default() {
        let Some(value) = value else { continue };
        match values::header_name(&name).and_then(|header| Ok((header, parse(&value)?))) {
            Ok(header) => headers.push(header),
            Err(message) => report.fault(&["api", "headers", section, &name], &message),
        }
    }
    headers
}

fn pairs(map: Option<BTreeMap<String, Option<String>>>) -> Vec<(String, Option<String>)> {
    map.unwrap_or_default().into_iter().collect()
}

fn body(raw: Option<raw::Body>) -> BodyKind {
    match raw.unwrap_or(raw::Body::Form) {
        raw::Body::Form => BodyKind::Form,
        raw::Body::Json => BodyKind::Json,
    }
}
