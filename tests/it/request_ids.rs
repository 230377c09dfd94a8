//! Request ids: the response and the log lines of a request carry the same one.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tracing::subscriber::DefaultGuard;

use crate::scrub::log::Log;
use crate::support::{
    Pixy, RawClient, RawResponse, Reply, Scratch, TokenEndpoint, Upstream, oauth_account, opened, within,
};

/// Captures the log of this thread as JSON.
pub fn capture_log() -> (Log, DefaultGuard) {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().json().flatten_event(true).with_target(false).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber); // this test's tasks all run on its thread
    (log, guard)
}

/// The log lines of one request.
fn lines(text: &str, id: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.filter(|line| line["request_id"] == id).collect()
}

fn id(response: &RawResponse) -> String {
    let ids = response.header("x-pixy-request-id");
    assert_eq!(ids.len(), 1, "{response:?}");
    assert!(ids[0].len() == 16 && ids[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{ids:?}");
    ids[0].to_owned()
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: pixy\r\n{fields}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn every_response_carries_the_request_id_of_the_log() {
    let (log, _guard) = capture_log();
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let requests = [
        get("/a/v1/models", ""),
        get("/unknown/v1/models", ""),
        get("/a/v1/secrets", ""),
        get("/a/v1/models", "Origin: https://x.example\r\n"),
        get("/a/v1/models", "Host: another\r\n"),
        "GET /a/v1/models HTTP/1.1\r\nHost : pixy\r\n\r\n".to_owned(), // rejected before it becomes a request
    ];
    let mut seen = Vec::new();
    for request in &requests {
        let response = within(pixy.send(request)).await;
        let id = id(&response);
        let lines = lines(&log.text(), &id);
        assert_eq!(lines.len(), 1, "{request}: {lines:?}");
        let message = if response.status == 400 { "malformed request" } else { "request" };
        assert_eq!((&lines[0]["message"], &lines[0]["status"]), (&json!(message), &json!(response.status)));
        if response.status != 200 {
            assert_eq!(response.json()["request_id"], json!(id), "{request}");
        }
        seen.push((response.status, id));
    }
    assert_eq!(seen.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 404, 403, 403, 400, 400]);
    let mut ids: Vec<_> = seen.into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), requests.len(), "ids are unique");
}

#[tokio::test]
async fn errors_are_logged_with_the_request_id() {
    let (log, _guard) = capture_log();
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    within(pixy.send(&get("/a/v1/models", ""))).await;
    let token = upstream.requests()[0].header("authorization")[0].to_owned();
    upstream.answer(Reply::new(200).body(token));
    let scrubbed = id(&within(pixy.send(&get("/a/v1/models", ""))).await);
    let messages: Vec<_> = lines(&log.text(), &scrubbed).iter().map(|line| line["message"].clone()).collect();
    assert!(
        messages.contains(&json!("the upstream sent a secret of the account back; it was replaced")),
        "{messages:?}"
    );
    upstream.answer(Reply::bytes("no HTTP at all\r\n\r\n"));
    let response = within(pixy.send(&get("/a/v1/models", ""))).await;
    assert_eq!(response.status, 502);
    let messages: Vec<_> = lines(&log.text(), &id(&response)).iter().map(|line| line["message"].clone()).collect();
    assert_eq!(messages, ["the upstream did not respond", "request"]);
}

#[tokio::test]
async fn a_websocket_logs_its_request_id_at_both_ends() {
    let (log, _guard) = capture_log();
    let endpoint = TokenEndpoint::start().await;
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut account = oauth_account(&endpoint, &Upstream::start().await);
    account["profile"]["api"]["base_url"] = json!(format!("http://{}", server.local_addr().unwrap()));
    account["profile"]["api"]["websocket"] = json!(["/v1/responses"]);
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.link(&endpoint).await;
    let mut agent = RawClient::ask_for_socket(pixy.agents(), "/a/v1/responses").await;
    let (mut upstream, _) = opened(&server).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: x\r\nX-Pixy-Request-Id: forged\r\n\r\n";
    upstream.write_all(switch.as_bytes()).await.unwrap();
    let response = within(agent.head()).await.unwrap();
    assert_eq!(response.status, 101);
    let id = id(&response);
    drop(upstream);
    let ended = async {
        while !log.text().contains("a WebSocket ended") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(ended).await;
    let messages: Vec<_> = lines(&log.text(), &id).iter().map(|line| line["message"].clone()).collect();
    assert_eq!(messages, ["request", "a WebSocket ended"]);
}

#[tokio::test]
async fn attack_53_an_agents_request_id_is_dropped() {
    let (log, _guard) = capture_log();
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let forged_id = "forged".repeat(1000);
    for fields in [
        "X-Pixy-Request-Id: forged\r\nx_pixy_request_id: forged\r\n".to_owned(),
        format!("X-Pixy-Request-Id: {forged_id}\r\nX-Request-Id: {forged_id}\r\nRequest-Id: forged\"}}\r\n"),
    ] {
        upstream.answer(Reply::new(200).header("x-pixy-request-id", "forged").header("request-id", "the provider's"));
        let response = within(pixy.send(&get("/a/v1/models", &fields))).await;
        assert_eq!((response.status, id(&response).contains("forged")), (200, false));
        assert_eq!(response.header("request-id"), ["the provider's"], "the provider's own id passes");
    }
    assert!(!log.text().contains("forged"), "{}", log.text());
    for seen in upstream.requests() {
        let forwarded =
            seen.headers.iter().find(|(name, _)| name.to_ascii_lowercase().replace('_', "-").starts_with("x-pixy-"));
        assert_eq!(forwarded, None, "neither the agent's id nor Pixy's is forwarded");
    }
}

#[tokio::test]
async fn the_program_logs_json_with_the_request_id() {
    let scratch = Scratch::new();
    let config = scratch.config(&json!({ "a": { "provider": "openrouter" } }));
    let log = scratch.write("log", "");
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pixy"));
    command.env_clear().args(["--log-format", "json", "--config"]).arg(config);
    let mut child = command.stdin(Stdio::null()).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let until = async |what: &str| loop {
        let text = std::fs::read_to_string(&log).unwrap();
        if text.contains(what) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let text = within(until("\"serving\"")).await;
    let agents = text.split("  agents   http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let response = RawClient::once(agents, get("/unknown/x", "")).await.unwrap();
    let text = within(until("\"no_route\"")).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let json: String = text.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect();
    let lines = lines(&json, &id(&response));
    assert_eq!((lines.len(), &lines[0]["code"], &lines[0]["level"]), (1, &json!("no_route"), &json!("INFO")));
    assert!(lines[0]["timestamp"].is_string() && lines[0].get("fields").is_none(), "flat: {}", lines[0]);
}
