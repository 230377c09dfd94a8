//! What reaches the provider is what `pixy explain` prints: fields and query keys pass by list.

use std::collections::HashSet;
use std::path::Path;

use assert_cmd::Command;
use http::Method;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{Pixy, RawClient, Seen, TokenEndpoint, Upstream, oauth_account};

/// What `pixy explain NAME --json` printed.
struct Explained {
    requests: HashSet<(String, String)>,
    fields: Vec<String>,
    query_keys: Vec<String>,
    written: HashSet<String>,
}

/// Fields that carry credentials, name another place or choose a representation.
const NEVER: &[&str] = &[
    "Ocp-Apim-Subscription-Key",
    "X-Access-Token",
    "X-Authorization",
    "Private-Token",
    "xi-api-key",
    "DPoP",
    "X-Override-Url",
    "True-Client-IP",
    "Cookie",
    "Proxy-Authorization",
    "X-Auth-Token",
    "X-Amz-Security-Token",
    "X-Forwarded-For",
    "X-Real-IP",
    "Referer",
    "OpenAI-Organization",
    "OpenAI_Project",
    "X-Goog-User-Project",
    "Anthropic-Workspace-Id",
    "x-openai-actor-authorization",
    "x-litellm-api-key",
    "cf-aig-authorization",
    "helicone-auth",
    "Range",
    "If-Range",
    "Accept-Charset",
    "A-IM",
    "Want-Content-Digest",
    "Want-Repr-Digest",
    "Want-Digest",
    "grpc-encoding",
    "grpc-accept-encoding",
    "X-Anything-Else",
];

/// Query keys that reached providers before there was a list.
const NEVER_KEYS: &[&str] =
    &["oauth_token", "bearer_token", "apikey", "subscription-key", "sig", "X-Amz-Signature", "callback"];

impl Explained {
    fn run(config: &Path, account: &str) -> Self {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("pixy"))
            .env_clear()
            .args(["explain", account, "--json", "--config"])
            .arg(config)
            .output()
            .unwrap();
        let printed: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        let texts = |list: &Value, key: &str| -> Vec<String> {
            let text = |item: &Value| if key.is_empty() { item.clone() } else { item[key].clone() };
            list.as_array().unwrap().iter().map(|item| text(item).as_str().unwrap().to_owned()).collect()
        };
        let (methods, paths) = (texts(&printed["requests"], "method"), texts(&printed["requests"], "path"));
        Self {
            requests: methods.into_iter().zip(paths).collect(),
            fields: texts(&printed["fields"], ""),
            query_keys: texts(&printed["query_keys"], ""),
            written: texts(&printed["written"], "name").into_iter().collect(),
        }
    }

    /// Fails if anything of a request is not printed.
    fn check(&self, seen: &Seen, sent: &str) {
        let is_listed = |list: &[String], name: &str| {
            list.iter().any(|listed| match listed.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => listed == name,
            })
        };
        let matches = |(method, path): &(String, String)| {
            let (mut pattern, mut segments) = (path.split('/'), seen.path().split('/'));
            *method == seen.method
                && pattern.by_ref().zip(segments.by_ref()).all(|(one, other)| match one.strip_prefix('*') {
                    Some(end) => other.len() > end.len() && other.ends_with(end),
                    None => one == other,
                })
                && path.split('/').count() == seen.path().split('/').count()
        };
        assert!(self.requests.iter().any(matches), "{} {} after {sent}", seen.method, seen.target);
        let is_written = |name: &str| self.written.contains(name);
        for (name, _) in &seen.headers {
            let folded = name.to_ascii_lowercase().replace('_', "-");
            let is_printed = is_listed(&self.fields, name) || is_listed(&self.fields, folded.trim_matches('-'));
            assert!(is_written(name) || is_printed, "{name} after {sent}");
            assert!(
                is_written(name) || !is_written(&folded),
                "{name}, another spelling of what Pixy writes, after {sent}"
            );
        }
        let query = seen.target.split_once('?').map_or("", |(_, query)| query);
        for (key, _) in url::form_urlencoded::parse(query.replace(';', "&").as_bytes()) {
            assert!(is_listed(&self.query_keys, &key), "{key} after {sent}");
        }
    }
}

/// Accounts of several profiles at one upstream; `a` is linked, with fields that Pixy writes in every way.
async fn started(endpoint: &TokenEndpoint, upstream: &Upstream) -> Pixy {
    let mut ours = oauth_account(endpoint, upstream);
    let api = &mut ours["profile"]["api"];
    api["headers"] = json!({
        "set": { "X-Tenant": "ours", "OpenAI-Project": "proj-ours" },
        "claims": { "ChatGPT-Account-ID": ["token", "account", "email_address"] },
        "default": { "anthropic-version": "2023-06-01", "x_default": "ours" },
        "merge": { "anthropic-beta": ["ours"] },
    });
    api["pass_headers"] = json!(["X-Team", "x-vendor-*"]);
    api["pass_query"] = json!(["region", "filter.*"]);
    let key = |provider: &str| json!({ "provider": provider, "profile": { "api": { "base_url": upstream.url() } } });
    let accounts =
        json!({ "a": ours, "anthropic": key("anthropic"), "openai": key("openai"), "gemini": key("gemini") });
    let pixy = Pixy::start(&accounts).await;
    pixy.link(endpoint).await;
    for name in ["anthropic", "openai", "gemini"] {
        pixy.post(&format!("/api/accounts/{name}/key"), json!({ "key": "sk-ours-0123456789" })).await;
    }
    pixy
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: pixy\r\n{fields}Connection: close\r\n\r\n")
}

/// The fields and the query that arrive.
async fn arrives(pixy: &Pixy, upstream: &Upstream, target: &str, fields: &str) -> (Vec<(String, String)>, String) {
    let response = pixy.send(&get(target, fields)).await;
    assert_eq!(response.status, 200, "{target} {fields}: {}", response.text());
    let seen = upstream.requests().pop().unwrap();
    (seen.headers, seen.target.split_once('?').map_or_else(String::new, |(_, query)| query.to_owned()))
}

#[tokio::test]
async fn attack_86_what_leaves_is_what_explain_prints() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    let config = pixy.scratch.path("pixy.yaml");
    let accounts = ["a", "anthropic", "openai", "gemini"];
    let explained = accounts.map(|account| Explained::run(&config, account));
    let known: Vec<String> = explained.iter().flat_map(|all| all.fields.iter().chain(&all.written)).cloned().collect();
    let names: Vec<String> = known.into_iter().chain(NEVER.iter().map(|&name| name.to_owned())).collect();
    // A listed name or one of another kind, in another case or spelling, or any name.
    let spelled = |name: String, how: u8| match how {
        0 => name.replace('-', "_"),
        1 => format!("_{name}"),
        2 => format!("{name}-"),
        3 => name.to_ascii_uppercase(),
        4 => name.replacen('-', "_", 1),
        _ => name,
    };
    let name = prop_oneof![
        4 => (prop::sample::select(names), 0..9_u8).prop_map(move |(name, how)| spelled(name.replace('*', "any"), how)),
        1 => "[a-zA-Z_-]{1,12}",
    ];
    let keys: Vec<String> = explained.iter().flat_map(|all| all.query_keys.clone()).collect();
    let keys: Vec<String> = keys.into_iter().chain(NEVER_KEYS.iter().map(|&key| key.to_owned())).collect();
    let key = prop_oneof![
        4 => (prop::sample::select(keys), 0..6_u8).prop_map(|(key, how)| match how {
            0 => key.to_ascii_uppercase(),
            1 => key.bytes().map(|byte| format!("%{byte:02x}")).collect(),
            2 => format!("{key}[]"),
            _ => key.replace('*', "any"),
        }),
        1 => "[a-zA-Z_.%5]{0,8}",
    ];
    let parameter = (key, prop_oneof!["=[a-z0-9]{0,5}", "=[a-z]{0,3};[a-z]{1,6}=[a-z]", Just(String::new())]);
    let path = prop::sample::select(vec![
        "/v1/messages",
        "/v1/models",
        "/v1/models/m",
        "/v1/responses",
        "/v1beta/models",
        "/v1beta/models/m:generateContent",
        "/v1/organizations/api_keys",
        "/v1/files",
    ]);
    let method = prop::sample::select(vec!["GET", "POST", "DELETE"]);
    let request =
        (0..accounts.len(), method, path, prop::collection::vec(name, 0..12), prop::collection::vec(parameter, 0..6));
    let mut runner = TestRunner::deterministic();
    let (mut arrived, mut fields, mut queries) = (0, 0, 0);
    for _ in 0..1500 {
        let (account, method, path, names, parameters) = request.new_tree(&mut runner).unwrap().current();
        let query: Vec<_> = parameters.into_iter().map(|(key, value)| key + &value).collect();
        let target = format!("/{}{path}?{}", accounts[account], query.join("&"));
        let lines: String = names.iter().map(|name| format!("{name}: agents-own\r\n")).collect();
        let sent = format!("{method} {target} HTTP/1.1\r\nHost: pixy\r\n{lines}Connection: close\r\n\r\n");
        let before = upstream.requests().len();
        // A name may make the request invalid (`Content-Length: agents-own`), or a browser's.
        let _ = RawClient::once(pixy.agents(), &sent).await;
        for seen in &upstream.requests()[before..] {
            explained[account].check(seen, &sent);
            arrived += 1;
            fields += seen.headers.iter().filter(|(_, value)| value == "agents-own").count();
            queries += usize::from(seen.target.contains('?'));
        }
    }
    assert!(
        arrived > 100 && fields > 100 && queries > 30,
        "{arrived} requests, {fields} fields, {queries} queries arrived"
    );
}

#[tokio::test]
async fn attack_86_credentials_and_overrides_do_not_pass() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    let (bare, _) = arrives(&pixy, &upstream, "/openai/v1/models", "").await;
    for name in NEVER {
        for spelling in [(*name).to_owned(), name.replace('-', "_"), format!("_{name}-")] {
            let (fields, _) = arrives(&pixy, &upstream, "/openai/v1/models", &format!("{spelling}: 1\r\n")).await;
            assert_eq!(fields, bare, "{spelling}");
        }
    }
    for query in
        NEVER_KEYS.iter().map(|key| format!("{key}=x")).chain(["limit=1;key=x".to_owned(), "sk-own".to_owned()])
    {
        let (_, got) = arrives(&pixy, &upstream, &format!("/openai/v1/models?{query}&after=x"), "").await;
        assert_eq!(got, "after=x", "{query}");
    }
}

#[tokio::test]
async fn attack_86_fields_that_pixy_writes_are_compared_folded() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    let (bare, _) = arrives(&pixy, &upstream, "/a/v1/models", "").await;
    for name in [
        "X-Tenant",
        "X_Tenant",
        "x_tenant-",
        "ChatGPT-Account-ID",
        "ChatGPT_Account_ID",
        "_chatgpt-account_id",
        "OpenAI_Project",
        "Anthropic_Beta",
        "anthropic-beta-",
        "anthropic_version",
        "x-default",
        "Authorization_",
        "accept_encoding",
    ] {
        let (fields, _) = arrives(&pixy, &upstream, "/a/v1/models", &format!("{name}: agents-own\r\n")).await;
        assert_eq!(fields, bare, "{name}");
    }
    let listed = "X_Team: 1\r\nx-vendor-thing: 2\r\nanthropic-beta: theirs\r\nsession_id: 3\r\nopenai-beta: 4\r\n";
    let (fields, query) = arrives(&pixy, &upstream, "/a/v1/models?region=eu&filter.name=x&filters=y", listed).await;
    let value = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!([value("x_team"), value("x-vendor-thing"), value("session_id")], [Some("1"), Some("2"), Some("3")]);
    assert_eq!([value("anthropic-beta"), value("openai-beta")], [Some("theirs,ours"), Some("4")]);
    assert_eq!([value("x-tenant"), value("openai-project")], [Some("ours"), Some("proj-ours")]);
    assert_eq!(query, "region=eu&filter.name=x");
}

#[tokio::test]
async fn a_claim_that_the_profile_no_longer_names_is_not_sent() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let account = |headers: Value| {
        let mut account = oauth_account(&endpoint, &upstream);
        account["profile"]["api"]["headers"] = headers;
        json!({ "a": account })
    };
    let mut pixy = Pixy::start(&account(json!({ "claims": { "x-org": ["token", "account", "email_address"] } }))).await;
    pixy.link(&endpoint).await;
    for (headers, expected) in [
        (json!({ "claims": { "x-org": ["token", "account", "email_address"] } }), vec!["ada@example.com"]),
        (json!({ "set": { "X-Org": "ours" } }), vec!["ours"]),
        (json!({}), vec![]),
    ] {
        pixy.reload(&account(headers.clone()), &json!({})).await.unwrap();
        let (fields, _) = arrives(&pixy, &upstream, "/a/v1/models", "").await;
        let seen: Vec<_> = fields.iter().filter(|(name, _)| name == "x-org").map(|(_, value)| value.as_str()).collect();
        assert_eq!(seen, expected, "{headers}");
    }
}

/// The query keys of the methods that the SDKs offer on allowed paths: their sources at @anthropic-ai/sdk 1.13, openai 6.49,
/// @google/genai 2.32 and Codex 0.169, and Azure's `api-version`.
#[tokio::test]
async fn query_keys_of_the_sdks_pass_as_sent() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    for target in [
        "/anthropic/v1/models?after_id=m&limit=100",
        "/anthropic/v1/models?before_id=m&lifecycle%5B%5D=active&lifecycle%5B%5D=retired",
        "/anthropic/v1/models/claude-x?beta=true",
        "/openai/v1/models?after=m&limit=20&order=desc&before=x",
        "/openai/v1/models?client_version=0.169.0",
        "/openai/v1/models?include%5B%5D=a&include[]=b&include_obfuscation=false&starting_after=3&stream=true",
        "/openai/v1/models?api-version=2026-01-01",
        "/gemini/v1beta/models?pageSize=50&pageToken=abc%3D",
        "/gemini/v1beta/models/m?alt=json",
        "/a/v1/models?alt=sse&api-version=preview&beta=true",
    ] {
        let (_, query) = arrives(&pixy, &upstream, target, "").await;
        assert_eq!(query, target.split_once('?').unwrap().1, "{target}");
    }
}

#[tokio::test]
async fn fields_of_clients_pass_as_sent() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    let common = "accept: a/b;q=0.5, */*\r\naccept-language: de, *\r\nanthropic-beta: x,y\r\nanthropic-version: 2023-06-01\r\n\
                  idempotency-key: k\r\nopenai-beta: r\r\noriginator: codex_exec\r\nsession-id: 1\r\nthread-id: 2\r\ntraceparent: 3\r\n\
                  tracestate: a=b\r\nuser-agent: t/1\r\nx-app: cli\r\nx-claude-code-agent-id: 4\r\nx-client-request-id: 5\r\n\
                  x-codex-turn-state: 6\r\nx-goog-api-client: 7\r\nx-session-affinity: 8\r\nx-stainless-retry-count: 0\r\n";
    for (account, more) in [
        ("anthropic", "anthropic-user-profile-id: u\r\n"),
        ("openai", ""),
        ("gemini", "x-gemini-api-privileged-user-id: u\r\nx-server-timeout: 30\r\n"),
        ("a", "http-referer: https://app.example\r\nx-title: app\r\nx-litellm-tags: a\r\n"),
    ] {
        let sent = format!("{common}{more}");
        let (fields, _) = arrives(&pixy, &upstream, &format!("/{account}/v1/models"), &sent).await;
        for line in sent.lines().filter(|line| account != "a" || !line.starts_with("anthropic-beta")) {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(fields.iter().any(|field| *field == (name.to_owned(), value.to_owned())), "{account}: {line}");
        }
    }
}

#[tokio::test]
async fn what_is_dropped_is_counted_and_shown() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = started(&endpoint, &upstream).await;
    let dropped = async || pixy.api(Method::GET, "/api/accounts/openai/dropped", Value::Null).await.1;
    let counted = async || {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let metrics = RawClient::once(pixy.ops(), request).await.unwrap().text();
        let line = "pixy_request_fields_dropped_total{account=\"openai\"} ";
        metrics.lines().find_map(|found| found.strip_prefix(line)).map(str::to_owned)
    };
    assert_eq!(counted().await.as_deref(), Some("0"), "before the first");
    let usual = "Authorization: Bearer agents-own\r\nAccept-Encoding: gzip\r\nUser-Agent: t\r\n";
    arrives(&pixy, &upstream, "/openai/v1/models?limit=1&key=agents-own", usual).await;
    assert_eq!((counted().await.as_deref(), dropped().await), (Some("0"), json!({ "fields": [], "query_keys": [] })));
    let long = "x".repeat(500);
    let fields = format!("X-Own: secret-value\r\nSec-Fetch-Mode: cors\r\nAccept: a/b;charset=utf-16\r\n{long}: 1\r\n");
    arrives(&pixy, &upstream, "/openai/v1/models?apikey=secret-value&secret-value", &fields).await;
    assert_eq!(counted().await.as_deref(), Some("6"));
    let shown = dropped().await;
    let cut = format!("{}...", &long[..64]);
    let mut names: Vec<_> = shown["fields"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept;charset", "sec-fetch-mode", "x-own", cut.as_str()]);
    assert_eq!(shown["query_keys"], json!(["(without =)", "apikey"]));
    assert!(!shown.to_string().contains("secret-value"), "{shown}");
    assert_eq!(pixy.send(&get("/openai/v1/files?other=1", "X-Other: 1\r\n")).await.status, 403);
    assert_eq!(counted().await.as_deref(), Some("6"), "a refused request is not counted");
    let output = tokio::process::Command::new(assert_cmd::cargo::cargo_bin!("pixy"))
        .env_clear()
        .args(["explain", "openai", "--last", "--config"])
        .arg(pixy.scratch.path("pixy.yaml"))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("x-own") && text.contains("apikey") && !text.contains("secret-value"), "{text}");
}

#[tokio::test]
async fn an_account_adds_to_the_lists_of_its_profile() {
    let upstream = Upstream::start().await;
    let api = json!({ "base_url": upstream.url(), "pass_headers": ["x-mine"], "pass_query": ["mine"] });
    let none = json!({ "base_url": upstream.url(), "pass_headers": null, "pass_query": null });
    let account = |api: &Value| json!({ "provider": "gemini", "profile": { "api": api } });
    let pixy = Pixy::start(&json!({ "more": account(&api), "less": account(&none) })).await;
    for name in ["more", "less"] {
        pixy.post(&format!("/api/accounts/{name}/key"), json!({ "key": "sk-ours-0123456789" })).await;
    }
    for (name, expected_fields, expected_query) in [("more", 2, "mine=1&alt=sse"), ("less", 0, "")] {
        let target = format!("/{name}/v1beta/models?mine=1&alt=sse");
        let (fields, query) = arrives(&pixy, &upstream, &target, "x-mine: 1\r\nx-server-timeout: 1\r\n").await;
        assert_eq!(fields.iter().filter(|(_, value)| value == "1").count(), expected_fields, "{name}: {fields:?}");
        assert_eq!(query, expected_query, "{name}");
    }
}
