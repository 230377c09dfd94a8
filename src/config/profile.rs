//! A provider profile gets its meaning, and what its flow needs is asked for.

use http::HeaderName;

use super::diagnostics::{Read, Scope};
use super::raw::Pairs;
use super::raw::profile as raw;
use super::value;
use crate::oauth::profile::{
    Api, Attach, BodyKind, Device, ErrorShape, Expiry, Flow, HandedCode, Headers, Link, Ports, Profile, Redirect,
    Revoke, Terms, TermsStatus, Token,
};

use std::time::Duration;

/// `None` only after a fault was told.
pub(super) fn build(raw: raw::Profile, provider: &str, here: &Scope) -> Option<Profile> {
    let token_raw = raw.token.unwrap_or_default();
    let has_token_url = token_raw.url.is_some();
    let link = link(raw.link.unwrap_or_default(), has_token_url, here);
    let static_key = matches!(link, Some(Link { flow: Flow::ApiKey, .. }));
    let token = token(token_raw, static_key, &here.at("token"));
    let terms = terms(raw.terms.unwrap_or_default(), &here.at("terms"));
    let identity = each(raw.identity.unwrap_or_default(), &here.at("identity"), |path| value::field_path(&path));
    let revoke = match raw.revoke {
        None => Some(None),
        Some(revoke) => self::revoke(revoke, &here.at("revoke")).map(Some),
    };
    let api = api(raw.api.unwrap_or_default(), &here.at("api"));
    let title = raw.title.filter(|title| !title.trim().is_empty());
    if title.is_none() {
        here.at("title").missing("say what a person calls this provider");
    }
    Some(Profile {
        provider: provider.to_owned(),
        title: title?,
        terms: terms?,
        link: link?,
        token: token?,
        identity: identity?,
        revoke: revoke?,
        api: api?,
    })
}

fn terms(raw: raw::Terms, here: &Scope) -> Option<Terms> {
    let url = optional(raw.url, &here.at("url"), value::endpoint);
    let Some(status) = raw.status else {
        here.at("status").missing("write open, conditional or restricted");
        return None;
    };
    Some(Terms { status: status.into(), url: url?, says: raw.says.unwrap_or_default().trim().to_owned() })
}

fn link(raw: raw::Link, has_token_url: bool, profile: &Scope) -> Option<Link> {
    let here = profile.at("link");
    let flow = raw.flow.map(Flow::from);
    if flow.is_none() {
        here.at("flow").missing("write authorization_code, device_code, client_credentials or api_key");
    }
    let issuer = optional(raw.issuer, &here.at("issuer"), value::issuer);
    let jwks_url = optional(raw.jwks_url, &here.at("jwks_url"), value::endpoint);
    let authorize_url = optional(raw.authorize_url, &here.at("authorize_url"), value::endpoint);
    let authorize_params = parameters(raw.authorize_params, &here.at("authorize_params"));
    let redirect = redirect(raw.redirect.unwrap_or_default(), &here.at("redirect"));
    let client_id = optional(raw.client_id, &here.at("client_id"), |text| {
        if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
    });
    let device = device(raw.device.unwrap_or_default(), &here.at("device"));
    let scopes = each(raw.scopes.unwrap_or_default(), &here.at("scopes"), |scope| value::word(&scope));
    let required =
        each(raw.required_scopes.unwrap_or_default(), &here.at("required_scopes"), |scope| value::word(&scope));
    let link = Link {
        flow: flow?,
        issuer: issuer?,
        jwks_url: jwks_url?,
        authorize_url: authorize_url?,
        authorize_params: authorize_params?,
        redirect: redirect?,
        client_id: client_id?,
        client_id_from_callback: raw.client_id_from_callback.unwrap_or(false),
        scopes: scopes?,
        required_scopes: required?,
        device: device?,
    };
    what_the_flow_needs(&link, has_token_url, profile);
    Some(link)
}

fn what_the_flow_needs(link: &Link, has_token_url: bool, profile: &Scope) {
    let here = profile.at("link");
    let flow = format!("the flow {}", link.flow.as_str());
    let discovered = link.issuer.is_some() || here.at("issuer").is_touched();
    let needs_token_url = || {
        if !discovered && !has_token_url {
            profile.at("token").at("url").missing(format!("{flow} needs it, or link.issuer to discover it"));
        }
    };
    let needs_client_id = || {
        let none_by_design = link.authorize_params.iter().any(|(name, value)| name == "client_id" && value.is_none());
        if link.client_id.is_none() && !none_by_design {
            here.at("client_id")
                .missing(format!("{flow} needs the id of a client that is registered with the provider"));
        }
    };
    match link.flow {
        Flow::AuthorizationCode => {
            if link.authorize_url.is_none() && !discovered {
                let because = format!("{flow} needs link.issuer, or both link.authorize_url and token.url");
                here.at("issuer").missing(because);
            } else {
                needs_token_url();
            }
            needs_client_id();
            if link.redirect == Redirect::None {
                here.at("redirect")
                    .missing(format!("{flow} needs `paste: URL` or `loopback: {{ host, ports, path }}`"));
            }
        }
        Flow::DeviceCode => {
            if link.device.is_none() && !discovered {
                here.at("device").at("url").missing(format!("{flow} needs it, or link.issuer to discover it"));
            }
            needs_token_url();
            needs_client_id();
        }
        Flow::ClientCredentials => {
            needs_token_url();
            needs_client_id();
        }
        Flow::ApiKey => {}
    }
}

fn redirect(raw: raw::Redirect, here: &Scope) -> Option<Redirect> {
    match (raw.paste, raw.loopback) {
        (Some(_), Some(_)) => {
            here.wrong("holds both paste and loopback, which is an impossible combination; keep one");
            None
        }
        (Some(page), None) => here.at("paste").read(&page, value::endpoint).map(Redirect::Paste),
        (None, Some(raw)) => {
            let here = here.at("loopback");
            let host = here.at("host").read(raw.host.as_deref().unwrap_or("127.0.0.1"), |host| match host {
                "127.0.0.1" | "localhost" | "[::1]" => Ok(host.to_owned()),
                _ => Err("is not this machine; allowed here: 127.0.0.1, localhost, \"[::1]\"".to_owned()),
            });
            let path = here.at("path").read(raw.path.as_deref().unwrap_or("/callback"), |path| {
                let fine = value::pattern(path).is_ok() && !path.contains('*');
                if fine { Ok(path.to_owned()) } else { Err("is not a plain path; write /callback".to_owned()) }
            });
            let ports = match raw.ports {
                None | Some(raw::Ports::Word(raw::Any::Any)) => Ports::Any,
                Some(raw::Ports::Only(ports)) if ports.is_empty() || ports.contains(&0) => {
                    here.at("ports").wrong("must name ports from 1 to 65535, or be the word any");
                    return None;
                }
                Some(raw::Ports::Only(ports)) => Ports::Only(ports),
            };
            Some(Redirect::Loopback { host: host?, ports, path: path? })
        }
        (None, None) => Some(Redirect::None),
    }
}

fn device(raw: raw::Device, here: &Scope) -> Read<Option<Device>> {
    let verification_url = optional(raw.verification_url, &here.at("verification_url"), value::endpoint)?;
    let url = optional(raw.url, &here.at("url"), value::endpoint)?;
    let code_url = optional(raw.code_url, &here.at("code_url"), value::endpoint)?;
    let code_redirect = optional(raw.code_redirect, &here.at("code_redirect"), value::endpoint)?;
    let code = match (code_url, code_redirect) {
        (Some(url), Some(redirect_uri)) => Some(HandedCode { url, redirect_uri }),
        (None, None) => None,
        (Some(_), None) => {
            here.at("code_redirect").missing("the code of code_url is exchanged with it");
            return None;
        }
        (None, Some(_)) => {
            here.at("code_url").missing("code_redirect is for its code");
            return None;
        }
    };
    Some(url.map(|url| Device { url, verification_url, code }))
}

fn token(raw: raw::Token, static_key: bool, here: &Scope) -> Option<Token> {
    let url = optional(raw.url, &here.at("url"), value::endpoint);
    let exchange_extra = parameters(raw.exchange_extra, &here.at("exchange_extra"));
    let refresh_extra = parameters(raw.refresh_extra, &here.at("refresh_extra"));
    let refresh_lead = optional(raw.refresh_lead, &here.at("refresh_lead"), value::duration);
    let field = optional(raw.access_token_field, &here.at("access_token_field"), value::word);
    let not_before = optional(raw.not_before_field, &here.at("not_before_field"), value::word);
    let errors = raw.terminal_errors.unwrap_or_else(|| vec!["invalid_grant".to_owned()]);
    let errors = each(errors, &here.at("terminal_errors"), |code| value::word(&code));
    let mut terminal_errors = errors?;
    let terminal_401 = terminal_errors.iter().any(|code| code == "401");
    terminal_errors.retain(|code| code != "401");
    Some(Token {
        url: url?,
        body: body(raw.body),
        send_state: raw.send_state.unwrap_or(false),
        exchange_extra: exchange_extra?,
        refresh_extra: refresh_extra?,
        access_token_field: field?.unwrap_or_else(|| "access_token".to_owned()),
        expiry: match raw.expiry {
            Some(raw::Expiry::Never) => Expiry::Never,
            // A static key comes without a reply that could tell.
            None if static_key => Expiry::Never,
            None | Some(raw::Expiry::ExpiresIn) => Expiry::ExpiresIn,
            Some(raw::Expiry::Jwt) => Expiry::Jwt,
        },
        refresh_lead: refresh_lead?.unwrap_or(DEFAULT_LEAD),
        not_before_field: not_before?,
        terminal_errors,
        terminal_401,
    })
}

fn revoke(raw: raw::Revoke, here: &Scope) -> Option<Revoke> {
    let Some(url) = raw.url else {
        here.at("url").missing("revocation needs an endpoint; write `revoke: null` where there is none");
        return None;
    };
    Some(Revoke { url: here.at("url").read(&url, value::endpoint)?, body: body(raw.body) })
}

fn body(raw: Option<raw::Body>) -> BodyKind {
    match raw {
        None | Some(raw::Body::Form) => BodyKind::Form,
        Some(raw::Body::Json) => BodyKind::Json,
    }
}

fn api(raw: raw::Api, here: &Scope) -> Option<Api> {
    let base_url = optional(raw.base_url, &here.at("base_url"), value::base_url);
    if matches!(base_url, Some(None)) {
        here.at("base_url").missing("write the URL that requests are sent to");
    }
    let attach_raw = raw.attach.unwrap_or_default();
    let attach = here.at("attach");
    let header = attach.at("header").read(attach_raw.header.as_deref().unwrap_or("authorization"), value::header_name);
    let scheme = optional(attach_raw.scheme, &attach.at("scheme"), value::word);
    let attach = header.zip(scheme).map(|(header, scheme)| Attach { header, scheme });
    let headers = headers(raw.headers.unwrap_or_default(), &here.at("headers"));
    let rules = raw.allow.unwrap_or_default();
    if rules.is_empty() {
        here.at("allow")
            .missing("say what an agent may call, like [\"POST /chat/completions\"]; everything else is refused");
    }
    let allow = each(rules, &here.at("allow"), |text| value::rule(&text));
    let websocket = each(raw.websocket.unwrap_or_default(), &here.at("websocket"), |text| value::pattern(&text));
    let quota =
        each(raw.quota_headers.unwrap_or_default(), &here.at("quota_headers"), |text| value::header_pattern(&text));
    Some(Api {
        base_url: base_url??,
        attach: attach?,
        headers: headers?,
        allow: allow?,
        websocket: websocket?,
        errors: match raw.errors {
            None | Some(raw::Errors::Openai) => ErrorShape::OpenAi,
            Some(raw::Errors::Anthropic) => ErrorShape::Anthropic,
            Some(raw::Errors::Google) => ErrorShape::Google,
        },
        quota_headers: quota?,
    })
}

fn headers(raw: raw::Headers, here: &Scope) -> Option<Headers> {
    let value = |text: String| value::header_value(&text);
    let default = header_map(raw.default, &here.at("default"), |here, text| here.read(&text, |_| value(text.clone())));
    let set = header_map(raw.set, &here.at("set"), |here, text| here.read(&text, |_| value(text.clone())));
    let merge =
        header_map(raw.merge, &here.at("merge"), |here, members| each(members, here, |text| value::list_member(&text)));
    let claims = header_map(raw.claims, &here.at("claims"), |here, path| {
        value::field_path(&path).map_err(|predicate| here.wrong(predicate)).ok()
    });
    Some(Headers { default: default?, merge: merge?, set: set?, claims: claims? })
}

/// A map of headers; a null takes a header of the shipped profile away.
fn header_map<V, T>(
    raw: Option<Pairs<Option<V>>>,
    here: &Scope,
    parse: impl Fn(&Scope, V) -> Option<T>,
) -> Option<Vec<(HeaderName, T)>> {
    let mut complete = true;
    let mut out = Vec::new();
    for (name, value) in raw.map(|pairs| pairs.0).unwrap_or_default() {
        let Some(value) = value else { continue };
        let here = here.at(&name);
        match (here.read(&name, value::plain_header_name), parse(&here, value)) {
            (Some(name), Some(value)) => out.push((name, value)),
            _ => complete = false,
        }
    }
    complete.then_some(out)
}

/// Request parameters; a null is kept, for it takes a standard parameter away.
fn parameters(raw: Option<Pairs<Option<String>>>, here: &Scope) -> Option<Vec<(String, Option<String>)>> {
    let mut complete = true;
    let mut out = Vec::new();
    for (name, value) in raw.map(|pairs| pairs.0).unwrap_or_default() {
        let here = here.at(&name);
        let name = here.read(&name, value::word);
        let value = optional(value, &here, value::parameter);
        match name.zip(value) {
            Some(pair) => out.push(pair),
            None => complete = false,
        }
    }
    complete.then_some(out)
}

impl From<raw::TermsStatus> for TermsStatus {
    fn from(raw: raw::TermsStatus) -> Self {
        match raw {
            raw::TermsStatus::Open => Self::Open,
            raw::TermsStatus::Conditional => Self::Conditional,
            raw::TermsStatus::Restricted => Self::Restricted,
        }
    }
}

impl From<raw::Flow> for Flow {
    fn from(raw: raw::Flow) -> Self {
        match raw {
            raw::Flow::AuthorizationCode => Self::AuthorizationCode,
            raw::Flow::DeviceCode => Self::DeviceCode,
            raw::Flow::ClientCredentials => Self::ClientCredentials,
            raw::Flow::ApiKey => Self::ApiKey,
        }
    }
}

/// All items, or `None` after every fault among them was told.
pub(super) fn each<V, T>(raw: Vec<V>, here: &Scope, parse: impl Fn(V) -> Result<T, String>) -> Option<Vec<T>> {
    let read = raw.into_iter().enumerate().map(|(index, item)| match parse(item) {
        Ok(item) => Some(item),
        Err(predicate) => {
            here.at(index).wrong(predicate);
            None
        }
    });
    let read: Vec<Option<T>> = read.collect();
    read.into_iter().collect()
}

/// Absent, or with a meaning.
pub(super) fn optional<T>(
    raw: Option<String>,
    here: &Scope,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Read<Option<T>> {
    match raw {
        None => Some(None),
        Some(text) => here.read(&text, parse).map(Some),
    }
}

/// Ten minutes, of which the shorter-lived tokens take 10 % of their lifetime.
const DEFAULT_LEAD: Duration = Duration::from_mins(10);
