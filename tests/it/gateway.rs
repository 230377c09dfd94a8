//! The gateway: what is forwarded, what is refused, and what the agent receives.

use serde_json::{Value, json};

use crate::support::{Authority, Pixy, Protocols, RawClient, Reply, TokenEndpoint, Upstream, oauth_account, within};

/// A linked account `a`, and an upstream that accepts every request.
async fn linked() -> (Pixy, TokenEndpoint, Upstream) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    (pixy, endpoint, upstream)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8700\r\n{fields}Connection: close\r\n\r\n")
}

fn names(fields: &[(String, String)]) -> Vec<(&str, &str)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn the_upstream_gets_exactly_the_expected_request() {
    let (pixy, _endpoint, upstream) = linked().await;
    let body = r#"{"model":"m","messages":[]}"#;
    let request = format!(
        "POST /a/v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:8700\r\nAuthorization: Bearer agent-key\r\nX-Api-Key: agent-key\r\n\
         x-goog-api-key: agent-key\r\nCookie: a=b\r\nUser-Agent: tests/1\r\nContent-Type: application/json\r\nanthropic-beta: one,two\r\n\
         X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nSec-Fetch-Mode: cors\r\nX-HTTP-Method-Override: DELETE\r\nTE: trailers\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let response = pixy.send(&request).await;
    assert_eq!((response.status, response.text().as_str()), (200, "upstream"));
    let requests = upstream.requests();
    let seen = &requests[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/v1/messages?beta=true"));
    assert_eq!(seen.body, body.as_bytes());
    let host = upstream.address().to_string();
    let token = seen.header("authorization")[0].to_owned();
    assert!(token.starts_with("Bearer marked-access-"), "{token}");
    let mut fields = names(&seen.headers);
    fields.sort_unstable();
    let mut expected = vec![
        ("user-agent", "tests/1"),
        ("content-type", "application/json"),
        ("anthropic-beta", "one,two"),
        ("accept-encoding", "identity"),
        ("authorization", token.as_str()),
        ("host", host.as_str()),
        ("content-length", "27"),
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected, "the complete header list");
}

#[tokio::test]
async fn recorded_client_requests_are_forwarded_unchanged() {
    let upstream = Upstream::start().await;
    let account = |provider: &str, more: Value| {
        let mut api = json!({ "base_url": upstream.url() });
        api.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "provider": provider, "profile": { "api": api } })
    };
    let accounts = json!({
        "anthropic": account("anthropic", json!({})), "openai": account("openai", json!({})), "gemini": account("gemini", json!({})),
    });
    let pixy = Pixy::start(&accounts).await;
    for name in ["anthropic", "openai", "gemini"] {
        pixy.post(&format!("/api/accounts/{name}/key"), json!({ "key": "sk-ours" })).await;
    }
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../data/client-requests.json")).unwrap();
    let mut replayed = 0;
    for request in &recorded {
        let field = |name: &str| request[name].as_str().unwrap().to_owned();
        let (client, method, target) = (field("client"), field("method"), field("target"));
        let headers: Vec<(String, String)> = serde_json::from_value(request["headers"].clone()).unwrap();
        if !["/anthropic", "/openai", "/gemini"].iter().any(|account| target.starts_with(account)) {
            continue; // recorded on a listener without an account in the path
        }
        let head: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = "x".repeat(usize::try_from(request["body_bytes"].as_u64().unwrap_or(0)).unwrap());
        let before = upstream.requests().len();
        let mut raw = RawClient::connect(pixy.agents()).await;
        raw.send(format!("{method} {target} HTTP/1.1\r\n{head}\r\n{body}")).await;
        let response = raw.response_to(&method).await.unwrap();
        if method == "HEAD" {
            assert_eq!(
                (response.status, upstream.requests().len()),
                (200, before),
                "{client}: answered by Pixy itself"
            );
            continue;
        }
        if target.contains("/responses") && method == "GET" {
            let requests = upstream.requests();
            let seen = requests.last().unwrap();
            assert_eq!((response.status, seen.header("upgrade")), (200, vec!["websocket"]), "{client}");
            assert!(
                seen.header("sec-websocket-extensions").is_empty(),
                "{client}: compressed frames cannot be scrubbed"
            );
            continue;
        }
        assert_eq!(response.status, 200, "{client}: {}", response.text());
        let requests = upstream.requests();
        let seen = requests.last().unwrap();
        assert_eq!(format!("/{}{}", target.split('/').nth(1).unwrap(), seen.target), target, "{client}");
        assert_eq!(seen.body.len(), body.len(), "{client}");
        let ours = ["authorization", "x-api-key", "x-goog-api-key"];
        let credentials: Vec<_> = seen.headers.iter().filter(|(name, _)| ours.contains(&name.as_str())).collect();
        assert_eq!(credentials.len(), 1, "{client}: {credentials:?}");
        assert!(credentials[0].1.ends_with("sk-ours"), "{client}");
        let changed = [
            "host",
            "connection",
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "sec-fetch-mode",
            "anthropic-version",
            "accept-encoding",
        ];
        let kept = |fields: &[(String, String)]| {
            let lower = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
            let mut kept: Vec<_> = lower.filter(|(name, _)| !changed.contains(&name.as_str())).collect();
            kept.sort();
            kept
        };
        assert_eq!(kept(&seen.headers), kept(&headers), "{client}");
        assert_eq!(seen.header("accept-encoding"), ["identity"], "{client}: what is compressed cannot be scrubbed");
        replayed += 1;
    }
    assert!(replayed >= 24, "only {replayed} were replayed");
}

#[tokio::test]
async fn responses_stream_and_a_disconnect_stops_the_upstream() {
    let (pixy, _endpoint, upstream) = linked().await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply.header("content-type", "text/event-stream"));
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(get("/a/v1/models", "")).await;
    chunks.send("data: one\n\n");
    assert_eq!(agent.head().await.unwrap().status, 200);
    // The second chunk is not sent yet: the first did not wait for it.
    let first = agent.bytes("B\r\ndata: one\n\n\r\n".len()).await;
    assert_eq!(String::from_utf8(first).unwrap(), "B\r\ndata: one\n\n\r\n");
    chunks.send("data: two\n\n");
    agent.bytes("B\r\ndata: two\n\n\r\n".len()).await;
    drop(agent);
    within(upstream.until_disconnected()).await;
}

#[tokio::test]
async fn refusals_have_the_error_shape_of_the_sdk() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::start(&json!({ "a": oauth_account(&endpoint, &upstream) })).await;
    for (path, status, code) in [
        ("/unknown/v1/models", 404, "no_route"),
        ("/", 404, "no_route"),
        ("/a/v1/organizations/api_keys", 403, "path_not_allowed"),
        ("/a/v1/messages", 405, "method_not_allowed"),
        ("/a/v1/models", 401, "not_linked"),
        ("/a/v1%2fmodels", 400, "bad_request"),
    ] {
        let response = pixy.send(&get(path, "")).await;
        assert_eq!((response.status, response.header("x-pixy-error")), (status, vec![code]), "{path}");
        assert!(response.json()["error"]["message"].as_str().unwrap().starts_with("Pixy: "), "{path}");
        assert_eq!(response.header("x-should-retry"), ["false"], "{path}");
    }
    let response = pixy.send(&get("/a/v1/models", "")).await;
    assert_eq!(response.header("www-authenticate"), ["Bearer error=\"invalid_token\""]);
    let body = response.json();
    assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!("authentication_error")));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("\"a\" is not linked") && message.contains("pixy link a"), "{message}");
    assert_eq!(pixy.send(&get("/a", "")).await.status, 200, "a connectivity probe");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn attack_08_browsers_are_refused_and_node_is_not() {
    let (pixy, _endpoint, upstream) = linked().await;
    for field in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        let response = pixy.send(&get("/a/v1/models", field)).await;
        assert_eq!((response.status, response.header("x-pixy-error")), (403, vec!["browser_refused"]), "{field}");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(pixy.send(&get("/a/v1/models", "Sec-Fetch-Mode: cors\r\n")).await.status, 200);
}

#[tokio::test]
async fn attack_13_connection_names_authorization() {
    let (pixy, _endpoint, upstream) = linked().await;
    for fields in [
        "Connection: authorization\r\n",
        "Connection: AUTHORIZATION, close\r\n",
        "Connection: \r\nConnection: Authorization\r\n",
        "Connection: x-custom\r\nX-Custom: 1\r\n",
    ] {
        let response = pixy.send(&get("/a/v1/models", &format!("{fields}Authorization: Bearer agents\r\n"))).await;
        assert_eq!(response.status, 200, "{fields}");
        let requests = upstream.requests();
        let seen = requests.last().unwrap();
        assert_eq!(seen.header("authorization").len(), 1, "{fields}");
        assert!(seen.header("authorization")[0].starts_with("Bearer marked-access-"), "{fields}");
        assert!(seen.header("x-custom").is_empty(), "{fields}");
    }
}

#[tokio::test]
async fn attack_14_no_credential_of_the_agent_is_forwarded() {
    let (pixy, _endpoint, upstream) = linked().await;
    for name in [
        "Authorization",
        "authorization_",
        "_Authorization",
        "X-Api-Key-",
        "AUTHORIZATION",
        "X-Api-Key",
        "X_Api_Key",
        "x_api_key",
        "Api-Key",
        "X-Goog-Api-Key",
        "x_goog_api_key",
        "Cookie",
        "Proxy-Authorization",
        "proxy_authorization",
        "X-Auth-Token",
        "X-Forwarded-Access-Token",
    ] {
        let fields = format!("{name}: agents-own\r\n{name}: Bearer agents-own\r\n");
        let response = pixy.send(&get("/a/v1/models?key=agents-own&%6bey=agents-own&limit=1", &fields)).await;
        assert_eq!(response.status, 200, "{name}");
        let requests = upstream.requests();
        let seen = requests.last().unwrap();
        assert_eq!(seen.target, "/v1/models?limit=1", "{name}");
        assert!(!format!("{:?}", seen.headers).contains("agents-own"), "{name}: {:?}", seen.headers);
        assert_eq!(seen.header("authorization").len(), 1, "{name}");
    }
}

#[tokio::test]
async fn attack_15_and_16_the_upstream_is_never_chosen_by_a_request() {
    let (pixy, _endpoint, upstream) = linked().await;
    let trap = Upstream::start().await;
    let evil = trap.address();
    for request in [
        format!("GET http://{evil}/a/v1/models HTTP/1.1\r\nHost: {evil}\r\nConnection: close\r\n\r\n"),
        format!("GET http://{evil}/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
        format!("CONNECT {evil} HTTP/1.1\r\nHost: {evil}\r\nConnection: close\r\n\r\n"),
        "GET /a/v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /a/v1/models HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let response = pixy.send(&request).await;
        assert!((400..500).contains(&response.status), "{request}: {}", response.status);
    }
    assert!(upstream.requests().is_empty());
    let fields = format!("X-Forwarded-Host: {evil}\r\nX-Original-URL: /v1/admin\r\nForwarded: host={evil}\r\n");
    let elsewhere = format!("GET /a/v1/models HTTP/1.1\r\nHost: {evil}\r\n{fields}Connection: close\r\n\r\n");
    assert_eq!(pixy.send(&elsewhere).await.status, 200);
    let requests = upstream.requests();
    assert_eq!(requests[0].header("host"), [upstream.address().to_string()]);
    assert_eq!(requests[0].headers.len(), 3, "host, accept-encoding, authorization: {:?}", requests[0].headers);
    assert!(trap.requests().is_empty() && trap.connections() == 0);
}

#[tokio::test]
async fn attack_17_to_20_the_checked_path_is_the_sent_path() {
    let (pixy, _endpoint, upstream) = linked().await;
    for path in [
        "/a/v1/..%2fadmin",
        "/a/v1/%2e%2e/admin",
        "/a/v1/models/..;/x",
        "/a//v1/models",
        "/a/v1//models",
        "/a/v1/models\\x",
        "/a/v1/models%5cx",
        "/a/v1/models/%252e%252e",
        "/a/v1/models/%00",
        "/a/../a/v1/models",
        "/a/./v1/models",
        "/%61/v1/models",
        "/a/v1/admin?x=/v1/models",
        "/a/v1/models/x/../../admin",
        "/a/v1/models/",
        "/A/v1/models",
        "/a/oauth/token",
        "/a/v1/models%2f",
    ] {
        let response = pixy.send(&get(path, "")).await;
        assert!((400..=404).contains(&response.status), "{path}: {}", response.status);
    }
    for method in ["DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "FOO", "HEAD"] {
        let request = format!("{method} /a/v1/models HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n");
        let mut raw = RawClient::connect(pixy.agents()).await;
        raw.send(request).await;
        assert_eq!(raw.response_to(method).await.unwrap().status, 405, "{method}");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(pixy.send(&get("/a/v1/models/claude-opus", "")).await.status, 200);
}

#[tokio::test]
async fn attack_21_and_22_redirects_are_not_followed_or_forwarded() {
    let (pixy, _endpoint, upstream) = linked().await;
    let trap = Upstream::start().await;
    for status in [301, 302, 303, 307, 308] {
        for location in [trap.url(), format!("{}/v1/models", upstream.url()), "/elsewhere".to_owned()] {
            upstream.answer(Reply::new(status).header("location", &location));
            let response = pixy.send(&get("/a/v1/models", "")).await;
            assert_eq!((response.status, response.header("location")), (502, vec![]), "{status} {location}");
        }
    }
    assert_eq!((upstream.requests().len(), trap.connections()), (15, 0));
}

#[tokio::test]
async fn attack_27_an_invalid_certificate_gets_no_token() {
    use crate::support::Validity;
    let (ours, others) = (Authority::new(), Authority::new());
    let endpoint = TokenEndpoint::start().await;
    let cases = [
        ("good", &ours, &["localhost"][..], Validity::Now, 200),
        ("wrong name", &ours, &["example.org"], Validity::Now, 502),
        ("expired", &ours, &["localhost"], Validity::Expired, 502),
        ("unknown authority", &others, &["localhost"], Validity::Now, 502),
    ];
    for protocols in [Protocols::Http1, Protocols::Http2] {
        for (name, authority, names, validity, status) in &cases {
            let upstream = Upstream::builder().tls_for(authority, protocols, names, *validity).start().await;
            let scratch = crate::support::Scratch::new();
            let ca = scratch.write("ca.pem", ours.pem());
            let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
            let pixy = Pixy::with(&accounts, &json!({ "upstream": { "extra_ca_file": ca } })).await;
            pixy.link(&endpoint).await;
            let response = pixy.send(&get("/a/v1/models", "")).await;
            assert_eq!(response.status, *status, "{name} over {protocols:?}");
            assert_eq!(upstream.requests().len(), usize::from(*status == 200), "{name} over {protocols:?}");
        }
    }
}

#[tokio::test]
async fn attack_23_and_33_fields_that_affect_the_client_are_dropped() {
    let (pixy, _endpoint, upstream) = linked().await;
    upstream.answer(
        Reply::new(200)
            .header("set-cookie", "a=b")
            .header("alt-svc", "h3=\":443\"")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-pixy-error", "not_linked")
            .header("anthropic-ratelimit-unified-status", "allowed")
            .body("fine"),
    );
    let response = pixy.send(&get("/a/v1/models", "")).await;
    let mut forwarded: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    forwarded.retain(|name| !["date", "content-length", "connection"].contains(name));
    assert_eq!(forwarded, ["anthropic-ratelimit-unified-status", "x-pixy-request-id"]);
}

#[tokio::test]
async fn an_unreachable_upstream_is_reported() {
    let endpoint = TokenEndpoint::start().await;
    let upstream = Upstream::start().await;
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    drop(upstream);
    let response = pixy.send(&get("/a/v1/models", "")).await;
    assert_eq!((response.status, response.header("x-pixy-error")), (502, vec!["upstream_unreachable"]));
    assert_eq!(response.header("retry-after"), ["1"]);
}
