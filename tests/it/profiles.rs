//! The shipped profiles: their contents, and what none of them allows.

mod minting;

use std::collections::BTreeSet;

use pixy::config::{
    Config, Env, Faults, parse, provider_names, shipped_profile, shipped_profile_needs, shipped_profile_text,
};
use pixy::oauth::profile::values::CallbackPath;
use pixy::oauth::profile::{
    BodyKind, ErrorShape, Expiry, Flow, Loopback, LoopbackHost, Parameters, PathPattern, Ports, Profile, Redirect,
    TermsStatus,
};
use serde_json::{Value, json};

use crate::support::{Pixy, RawClient, Upstream};

fn env() -> Env {
    Env { home: Some("/home/me".into()), config: None, secret_directories: Vec::new() }
}

fn read(text: &str) -> Result<Config, Faults> {
    parse(text, Some("pixy.yaml".into()), &env())
}

#[test]
fn ten_profiles_are_shipped_and_all_are_valid() {
    let names = provider_names();
    let expected = "anthropic chatgpt claude codex gemini huggingface oauth openai openai-compatible openrouter";
    assert_eq!(names.iter().copied().collect::<BTreeSet<_>>(), expected.split(' ').collect::<BTreeSet<_>>());
    assert_eq!(names.len(), 10);
    for name in names {
        let needs = shipped_profile_needs(name);
        let expected: &[&str] = match name {
            "huggingface" => &["link.client_id"],
            "openai-compatible" => &["api.base_url"],
            "oauth" => &["link.issuer", "link.client_id", "api.base_url", "api.allow"],
            _ => &[],
        };
        assert_eq!(needs, expected, "{name}");
        assert_eq!(shipped_profile(name).is_some(), needs.is_empty(), "{name}");
        assert!(shipped_profile_text(name).is_some());
    }
    assert!(shipped_profile("unknown").is_none() && shipped_profile_text("unknown").is_none());
}

#[test]
fn the_facts_of_each_profile() {
    use {BodyKind as B, ErrorShape as E, Expiry as X, Flow as F, TermsStatus as T};
    let table = [
        (
            "claude",
            T::Restricted,
            F::AuthorizationCode,
            B::Json,
            X::ExpiresIn,
            "https://api.anthropic.com/",
            "authorization",
            E::Anthropic,
            4,
        ),
        (
            "anthropic",
            T::Open,
            F::ApiKey,
            B::Form,
            X::Never,
            "https://api.anthropic.com/",
            "x-api-key",
            E::Anthropic,
            4,
        ),
        (
            "chatgpt",
            T::Conditional,
            F::AuthorizationCode,
            B::Form,
            X::ExpiresIn,
            "https://api.openai.com/",
            "authorization",
            E::OpenAi,
            3,
        ),
        (
            "codex",
            T::Restricted,
            F::AuthorizationCode,
            B::Form,
            X::Jwt,
            "https://chatgpt.com/backend-api/codex",
            "authorization",
            E::OpenAi,
            3,
        ),
        (
            "openrouter",
            T::Open,
            F::AuthorizationCode,
            B::Json,
            X::Never,
            "https://openrouter.ai/api",
            "authorization",
            E::OpenAi,
            4,
        ),
        ("openai", T::Open, F::ApiKey, B::Form, X::Never, "https://api.openai.com/", "authorization", E::OpenAi, 5),
        (
            "gemini",
            T::Open,
            F::ApiKey,
            B::Form,
            X::Never,
            "https://generativelanguage.googleapis.com/",
            "x-goog-api-key",
            E::Google,
            10,
        ),
    ];
    for (name, terms, flow, body, expiry, base, header, errors, rules) in table {
        let profile = shipped_profile(name).unwrap();
        assert_eq!(profile.provider, name);
        assert_eq!((profile.terms.status, profile.link.flow), (terms, flow), "{name}");
        assert_eq!((profile.token.body, profile.token.expiry), (body, expiry), "{name}");
        assert_eq!((profile.api.base_url.as_str(), profile.api.attach.header.as_str()), (base, header), "{name}");
        assert_eq!((profile.api.errors, profile.api.allow.len()), (errors, rules), "{name}");
        assert!(!profile.terms.says.is_empty() && profile.terms.url.is_some(), "{name}");
    }
}

#[test]
fn the_particulars_of_login_profiles() {
    let claude = shipped_profile("claude").unwrap();
    assert_eq!(claude.api.headers.merge.given().count(), 1);
    let (beta, members) = claude.api.headers.merge.given().next().unwrap();
    assert!(**beta == "anthropic-beta" && members.len() == 1 && members[0].as_str() == "oauth-2025-04-20");
    let (version, value) = claude.api.headers.default.given().next().unwrap();
    assert!(**version == "anthropic-version" && **value == "2023-06-01");
    assert!(claude.token.send_state && matches!(claude.link.redirect, Redirect::Paste(_)));
    let codex = shipped_profile("codex").unwrap();
    let ports = Ports::Only(vec![1455, 1457]);
    assert_eq!(
        codex.link.redirect,
        Redirect::Loopback(Loopback { host: LoopbackHost::Localhost, ports, path: callback_path("/auth/callback") })
    );
    assert!(codex.token.is_401_terminal() && !codex.token.is_terminal("401"));
    assert!(codex.token.is_terminal("refresh_token_reused") && !claude.token.is_401_terminal());
    assert!(**codex.api.headers.claims.given().next().unwrap().0 == "chatgpt-account-id");
    assert!(has(&codex.link.authorize_params, "originator", Some("pixy")));
    let openrouter = shipped_profile("openrouter").unwrap();
    assert_eq!(openrouter.token.access_token_field.as_ref().unwrap().as_str(), "key");
    assert!(has(&openrouter.link.authorize_params, "client_id", None) && openrouter.link.client_id.is_none());
    assert!(has(&openrouter.token.exchange_extra, "grant_type", None));
    let claude = shipped_profile("claude").unwrap();
    let revoked = "OAuth token has been revoked. Please obtain a new token.";
    assert!(
        claude.api.token_refused.iter().any(|rule| rule.has_status(403) && rule.fits(&["permission_error"], revoked))
    );
    assert_eq!(openrouter.api.token_refused.len(), 1, "401 alone");
    let chatgpt = shipped_profile("chatgpt").unwrap();
    assert_eq!(chatgpt.token.not_before_field.as_ref().unwrap().as_str(), "earliest_refresh_at");
    assert!(chatgpt.link.client_id_from_callback && chatgpt.link.required_scopes == ["chatgpt.tokens.use.direct"]);
}

fn callback_path(path: &str) -> CallbackPath {
    serde_json::from_value(json!(path)).unwrap()
}

fn has(parameters: &Parameters, name: &str, value: Option<&str>) -> bool {
    parameters.as_texts().any(|parameter| parameter == (name, value))
}

/// Every shipped profile with the keys that an operator must add.
fn completed() -> Vec<Profile> {
    let text = "accounts:\n  h: { provider: huggingface, profile: { link: { client_id: x } } }\n  \
                c: { provider: openai-compatible, profile: { api: { base_url: https://llm.example.com } } }\n";
    let added = read(text).unwrap().accounts.into_iter().map(|account| Profile::clone(&account.profile));
    let shipped = provider_names().into_iter().filter_map(shipped_profile).chain(added).collect::<Vec<_>>();
    assert_eq!(shipped.len() + 1, provider_names().len(), "all but `oauth`, which ships no list");
    shipped
}

/// A known path relative to every base that an account may have: whole, and without its first segments.
fn readings(path: &str) -> Vec<String> {
    let path = path.replace(['{', '}'], "");
    path.match_indices('/').map(|(at, _)| path[at..].to_owned()).collect()
}

/// The known paths that a pattern of the profile matches, whatever the method.
fn fitting(profile: &Profile) -> Vec<String> {
    let api = &profile.api;
    let patterns: Vec<&PathPattern> = api.allow.iter().map(|rule| &rule.path).chain(&api.websocket).collect();
    assert!(!patterns.is_empty(), "{}", profile.provider);
    let known = minting::PATHS.iter().flat_map(|(_, paths)| paths.iter()).flat_map(|path| readings(path));
    let fits = |path: &String| patterns.iter().any(|pattern| pattern.matches(path));
    known.filter(fits).map(|path| format!("{}: {path}", profile.provider)).collect()
}

#[test]
fn attack_19_no_profile_lets_an_agent_make_or_read_credentials() {
    assert!(minting::PATHS.iter().map(|(_, paths)| paths.len()).sum::<usize>() > 140);
    for profile in completed() {
        assert_eq!(fitting(&profile), [""; 0]);
        // No allowed pattern contains a word of such paths.
        for pattern in profile.api.allow.iter().map(|rule| &rule.path).chain(&profile.api.websocket) {
            let path = pattern.as_str().to_lowercase().replace("count_tokens", "").replace("counttokens", "");
            for word in ["key", "auth", "token", "login", "credential", "secret", "admin", "organization", "session"] {
                assert!(!path.contains(word), "{}: {path}", profile.provider);
            }
        }
    }
    // A profile that allows such a path is found.
    for allow in ["POST /v1/auth/keys", "GET /v1/organization/*", "DELETE /v1/organizations/api_keys/*", "GET /*"] {
        let text = format!("accounts: {{ o: {{ provider: openai, profile: {{ api: {{ allow: [\"{allow}\"] }} }} }} }}");
        assert!(!fitting(&read(&text).unwrap().accounts[0].profile).is_empty(), "{allow}");
    }
}

#[tokio::test]
async fn attack_19_credential_paths_are_refused_with_any_method() {
    let upstream = Upstream::start().await;
    let accounts: serde_json::Map<String, Value> = completed()
        .iter()
        .map(|profile| {
            let base = profile.api.base_url.path().trim_end_matches('/');
            let mut more = json!({ "api": { "base_url": format!("{}{base}", upstream.url()) } });
            if profile.provider == "huggingface" {
                more["link"] = json!({ "client_id": "x" });
            }
            let account = json!({ "provider": profile.provider, "accept_terms": true, "profile": more });
            (profile.provider.clone(), account)
        })
        .collect();
    let pixy = Pixy::start(&Value::Object(accounts)).await;
    let mut agent = RawClient::connect(pixy.agents()).await;
    let mut refused = 0;
    for profile in completed() {
        let base = profile.api.base_url.as_str().trim_end_matches('/');
        for (host, paths) in minting::PATHS {
            // The account's own host, and authorization servers, which may be on any host.
            if !base.starts_with(host) && !host.contains("auth.") && !host.contains("example") {
                continue;
            }
            for (path, method) in paths.iter().flat_map(|path| METHODS.map(|method| (path, method))) {
                let whole = format!("{host}{path}").replace(['{', '}'], "");
                let below = whole.strip_prefix(base).unwrap_or(&whole[host.len()..]);
                let target = format!("/{}{below}", profile.provider);
                agent.send(format!("{method} {target} HTTP/1.1\r\nHost: pixy\r\nContent-Length: 0\r\n\r\n")).await;
                let response = agent.response_to(method).await.unwrap();
                let answer = (response.status, response.header("x-pixy-error"));
                assert_eq!(answer, (403, vec!["path_not_allowed"]), "{method} {target}");
                refused += 1;
            }
        }
    }
    assert!(refused > 1500, "only {refused}");
    assert!(upstream.requests().is_empty());
}

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

#[test]
fn an_override_changes_one_key_and_replaces_the_redirect() {
    let text = "accounts:\n  c:\n    provider: claude\n    accept_terms: true\n    profile:\n      link: { redirect: { loopback: { \
                host: localhost, ports: [8701] } } }\n      revoke: null\n      api: { headers: { default: { anthropic-version: null } } }\n";
    let config = read(text).unwrap();
    let account = &config.accounts[0];
    assert!(
        account.accept_terms
            && account.profile.revoke.is_none()
            && account.profile.api.headers.default.given().count() == 0
    );
    assert!(matches!(&account.profile.link.redirect, Redirect::Loopback(loopback) if *loopback.path == "/callback"));
    assert_eq!(account.profile.link.client_id, shipped_profile("claude").unwrap().link.client_id);
}
