//! The shipped profiles: what each says, and what none of them allows.

use std::collections::BTreeSet;

use pixy::config::{
    Config, Env, Faults, parse, provider_names, shipped_profile, shipped_profile_needs, shipped_profile_text,
};
use pixy::oauth::profile::{BodyKind, ErrorShape, Expiry, Flow, Ports, Redirect, TermsStatus};

fn env() -> Env {
    Env { home: Some("/home/me".into()), config: None, secret_directories: Vec::new() }
}

fn read(text: &str) -> Result<Config, Faults> {
    parse(text, Some("pixy.yaml".into()), &env())
}

#[test]
fn the_shipped_profiles_are_these_ten_and_all_mean_something() {
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
    assert!(shipped_profile("nobody").is_none() && shipped_profile_text("nobody").is_none());
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
            E::OpenAi,
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
    let claude = shipped_profile("claude").unwrap();
    assert_eq!(claude.api.headers.merge[0].0, "anthropic-beta");
    assert_eq!(claude.api.headers.merge[0].1, ["oauth-2025-04-20"]);
    assert_eq!(claude.api.headers.default[0].1, "2023-06-01");
    assert!(claude.token.send_state && matches!(claude.link.redirect, Redirect::Paste(_)));
    let codex = shipped_profile("codex").unwrap();
    let ports = Ports::Only(vec![1455, 1457]);
    assert_eq!(
        codex.link.redirect,
        Redirect::Loopback { host: "localhost".into(), ports, path: "/auth/callback".into() }
    );
    assert!(codex.token.terminal_401 && !codex.token.terminal_errors.iter().any(|code| code == "401"));
    assert_eq!(codex.api.headers.claims[0].0, "chatgpt-account-id");
    assert!(codex.link.authorize_params.contains(&("originator".into(), Some("pixy".into()))));
    let openrouter = shipped_profile("openrouter").unwrap();
    assert_eq!(openrouter.token.access_token_field, "key");
    assert!(
        openrouter.link.authorize_params.contains(&("client_id".into(), None)) && openrouter.link.client_id.is_none()
    );
    assert!(openrouter.token.exchange_extra.contains(&("grant_type".into(), None)));
    let chatgpt = shipped_profile("chatgpt").unwrap();
    assert_eq!(chatgpt.token.not_before_field.as_deref(), Some("earliest_refresh_at"));
    assert!(chatgpt.link.client_id_from_callback && chatgpt.link.required_scopes == ["chatgpt.tokens.use.direct"]);
}

#[test]
fn no_profile_lets_an_agent_make_or_read_credentials() {
    let mut rules = 0;
    for name in provider_names() {
        let Some(profile) = shipped_profile(name) else { continue };
        for rule in profile.api.allow {
            let path = rule.path.as_text().to_lowercase().replace("count_tokens", "").replace("counttokens", "");
            for word in ["key", "auth", "token", "login", "credential", "admin", "organization", "session"] {
                assert!(!path.contains(word), "{name}: {path}");
            }
            rules += 1;
        }
    }
    assert!(rules > 20);
}

#[test]
fn an_override_changes_one_key_and_the_other_redirect_gives_way() {
    let text = "accounts:\n  c:\n    provider: claude\n    accept_terms: true\n    profile:\n      link: { redirect: { loopback: { \
                host: localhost, ports: [8701] } } }\n      revoke: null\n      api: { headers: { default: { anthropic-version: null } } }\n";
    let config = read(text).unwrap();
    let account = &config.accounts[0];
    assert!(account.accept_terms && account.profile.revoke.is_none() && account.profile.api.headers.default.is_empty());
    assert!(matches!(&account.profile.link.redirect, Redirect::Loopback { path, .. } if path == "/callback"));
    assert_eq!(account.profile.link.client_id, shipped_profile("claude").unwrap().link.client_id);
}
