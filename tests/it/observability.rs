//! Metrics and logs contain no text from an agent or a provider.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::scrub::log::Log;
use crate::support::{Pixy, RawClient, Reply, Seen, TokenEndpoint, Upstream, oauth_account, within};

async fn metrics(pixy: &Pixy) -> String {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    RawClient::once(pixy.ops(), request).await.unwrap().text()
}

#[tokio::test]
async fn attack_53_labels_hold_no_text_of_agents_or_people() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    assert_eq!(pixy.shown("a").await["identity"][0], "ada@example.com");
    upstream.answer(Reply::new(200).header("x-marked", "marked").body("{\"model\":\"marked-model\"}"));
    upstream.answer(Reply::new(401));
    for (method, target, host) in [
        ("GET", "/a/v1/models/marked-model?marked=query&key=marked-key", "pixy"),
        ("GET", "/a/v1/models/marked-model", "pixy"),
        ("GET", "/a/marked-path", "pixy"),
        ("GET", "/marked-account/v1/models", "pixy"),
        ("MARKED", "/a/v1/models", "pixy"),
        ("GET", "/a/v1/models%2fmarked", "pixy"),
        ("GET", "/a/v1/models", "marked.example"),
    ] {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: marked\r\nAuthorization: Bearer marked-agent\r\nConnection: close\r\n\r\n"
        );
        within(pixy.send(&request)).await;
    }
    let text = metrics(&pixy).await;
    for word in ["marked", "MARKED", "models", "ada", "example", "@", "Bearer"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    let (mut names, mut accounts, mut codes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, labels)) = line.split_once('{') else { continue };
        for label in labels.split_once('}').unwrap().0.split(',') {
            let (name, value) = label.split_once('=').unwrap();
            names.insert(name);
            match name {
                "account" => accounts.insert(value),
                "code" => codes.insert(value),
                _ => true,
            };
        }
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["account", "code", "le", "outcome", "status", "version"]);
    assert_eq!(accounts.into_iter().collect::<Vec<_>>(), ["\"\"", "\"a\""], "configured accounts, or none");
    assert_eq!(
        codes.into_iter().collect::<Vec<_>>(),
        [
            "\"\"",
            "\"bad_request\"",
            "\"method_not_allowed\"",
            "\"no_route\"",
            "\"path_not_allowed\"",
            "\"unknown_host\""
        ]
    );
}

/// Token responses that repeat the refresh token (`TOKEN`): status, content type, body.
const ECHOES: &[(u16, &str, &str)] = &[
    (400, "application/json", r#"{"error":"invalid_grant","error_description":"TOKEN is not known"}"#),
    (400, "application/json", r#"{"error":"TOKEN"}"#),
    (400, "application/json", r#"{"error":{"code":"TOKEN","message":"TOKEN"}}"#),
    (401, "application/json", r#"{"TOKEN":"TOKEN","error":"invalid_grant","error_uri":"https://x.example/TOKEN"}"#),
    (500, "text/html", "<h1>TOKEN</h1>"),
    (502, "TOKEN", "TOKEN"),
    (200, "application/json", r#"{"error":"TOKEN"}"#),
    (200, "application/json", r#"{"access_token":"","token_type":"TOKEN"}"#),
    (200, "application/json", r#"{"access_token":"new","token_type":"TOKEN","expires_in":"TOKEN"}"#),
    (200, "text/plain", "TOKEN"),
    (307, "text/plain", "TOKEN"),
];

#[tokio::test]
async fn attack_55_an_echoed_refresh_token_reaches_no_output() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber); // this test's tasks all run on its thread
    for (number, &(status, kind, body)) in ECHOES.iter().enumerate() {
        let logged = log.text().len();
        let tokens = Upstream::answering(move |seen| answer(seen, status, kind, body)).await;
        let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
        let mut account = oauth_account(&endpoint, &upstream);
        account["profile"]["token"]["url"] = json!(tokens.url());
        let pixy = Pixy::start(&json!({ "a": account })).await;
        let begun = pixy.post("/api/accounts/a/attempts", Value::Null).await;
        let url = url::Url::parse(begun["authorize_url"].as_str().unwrap()).unwrap();
        let (_, state) = url.query_pairs().find(|(name, _)| name == "state").unwrap();
        let attempt = begun["attempt"].as_str().unwrap();
        pixy.post(&format!("/api/attempts/{attempt}/paste"), json!({ "text": format!("code#{state}") })).await;
        pixy.post(&format!("/api/attempts/{attempt}/confirm"), Value::Null).await;
        pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
        within(tokens.until_requests(2)).await;
        let counted = async {
            let one = |line: &str| line.starts_with("pixy_refreshes_total{account=\"a\"") && !line.ends_with(" 0");
            while !metrics(&pixy).await.lines().any(one) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        within(counted).await;
        let text = log.text()[logged..].to_owned();
        assert!(text.contains("refresh") || text.contains("renew"), "{number}: the failure is logged: {text}");
        let outputs = [
            ("the log", text),
            ("the account", pixy.shown("a").await.to_string()),
            ("the metrics", metrics(&pixy).await),
            ("a response", format!("{:?}", pixy.get("/a/v1/models").await)),
        ];
        for (output, text) in outputs {
            assert!(!text.contains("marked-"), "{number}: {output} repeats it: {text}");
        }
    }
}

/// Exchanges a code for a login; repeats a refresh token in the response.
fn answer(seen: &Seen, status: u16, kind: &str, body: &str) -> Reply {
    let sent = String::from_utf8(seen.body.clone()).unwrap();
    let token = url::form_urlencoded::parse(sent.as_bytes()).find(|(name, _)| name == "refresh_token");
    let Some((_, token)) = token else {
        let login = json!({
            "access_token": "marked-access-token", "refresh_token": "marked-refresh-token", "token_type": "Bearer", "expires_in": 3600,
        });
        return Reply::json(200, &login);
    };
    assert_eq!(token, "marked-refresh-token");
    let [kind, body] = [kind, body].map(|text| text.replace("TOKEN", &token));
    Reply::new(status).header("content-type", &kind).header("location", &format!("/{token}")).body(body)
}
