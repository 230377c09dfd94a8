//! WebSockets: what is relayed, what is refused, and how they are closed.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{HANDSHAKE, Pixy, RawClient, Rotation, TokenEndpoint, Upstream, oauth_account, opened, within};

/// The upstream's side, implemented by the test.
struct Stage {
    pixy: Pixy,
    endpoint: TokenEndpoint,
    server: TcpListener,
}

/// A connection at the upstream, with the head of its request.
struct Opened {
    stream: TcpStream,
    head: String,
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                      Sec-WebSocket-Accept: from-the-upstream\r\nX-Request-Id: 7\r\n";

/// A text frame of an agent: masked.
const HELLO: &[u8] = b"\x81\x85mask\x05\x04\x1f\x07\x02";

impl Stage {
    async fn new() -> Self {
        Self::with(&json!({})).await
    }

    async fn with(more: &Value) -> Self {
        let endpoint = TokenEndpoint::with(Rotation::new(Duration::from_hours(1), Duration::ZERO)).await;
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut account = oauth_account(&endpoint, &Upstream::start().await);
        let api = &mut account["profile"]["api"];
        api["base_url"] = json!(format!("http://{}", server.local_addr().unwrap()));
        api["websocket"] = json!(["/v1/responses"]);
        let pixy = Pixy::with(&json!({ "a": account }), more).await;
        pixy.link(&endpoint).await;
        Self { pixy, endpoint, server }
    }

    async fn ask(&self, fields: &str) -> RawClient {
        ask(self.pixy.agents(), "/a/v1/responses", fields).await
    }

    /// The next connection at the upstream.
    async fn heard(&self) -> Opened {
        let (stream, head) = opened(&self.server).await;
        Opened { stream, head }
    }

    /// An open WebSocket, both ends.
    async fn open(&self) -> (RawClient, Opened) {
        let mut agent = self.ask(HANDSHAKE).await;
        let mut upstream = self.heard().await;
        upstream.say(format!("{SWITCH}\r\n")).await;
        assert_eq!(agent.head().await.unwrap().status, 101);
        (agent, upstream)
    }
}

impl Opened {
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    async fn hears(&mut self, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        within(self.stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, expected);
    }

    /// All bytes until the end.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = within(self.stream.read_to_end(&mut rest)).await;
        rest
    }

    fn token(&self) -> String {
        let line = self.head.lines().find(|line| line.starts_with("authorization: ")).unwrap();
        line.strip_prefix("authorization: Bearer ").unwrap().to_owned()
    }
}

async fn ask(pixy: SocketAddr, path: &str, fields: &str) -> RawClient {
    let mut agent = RawClient::connect(pixy).await;
    agent.send(format!("GET {path} HTTP/1.1\r\nHost: pixy\r\n{fields}\r\n")).await;
    agent
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 126];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

#[tokio::test]
async fn a_websocket_opens_with_our_token_and_relays_frames() {
    let stage = Stage::new().await;
    let fields = "Authorization: Bearer dummy\r\nopenai-beta: responses_websockets=2026-02-06\r\n\
                  Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
                  Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-of-the-agent\r\n";
    let mut agent = stage.ask(&format!("{HANDSHAKE}{fields}")).await;
    let mut upstream = stage.heard().await;
    let mut lines: Vec<String> = upstream.head.trim().lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "GET /v1/responses HTTP/1.1");
    lines.sort();
    let token = upstream.token();
    assert!(token.starts_with("marked-access-"), "{token}");
    assert_eq!(
        lines,
        [
            "accept-encoding: identity".to_owned(),
            format!("authorization: Bearer {token}"),
            "connection: upgrade".to_owned(),
            format!("host: {}", stage.server.local_addr().unwrap()),
            "openai-beta: responses_websockets=2026-02-06".to_owned(),
            "sec-websocket-key: Zh90cFBo5liuwDwihenzkA==".to_owned(),
            "sec-websocket-protocol: realtime".to_owned(),
            "sec-websocket-version: 13".to_owned(),
            "upgrade: websocket".to_owned(),
        ],
        "the ENTIRE header set: no key of the agent's, and no compression, which cannot be searched"
    );
    upstream.say(format!("{SWITCH}Sec-WebSocket-Protocol: realtime\r\nSet-Cookie: a=b\r\n\r\n\x01\x02")).await;
    let head = agent.head().await.unwrap();
    assert_eq!(
        (head.status, head.header("upgrade"), head.header("connection")),
        (101, vec!["websocket"], vec!["upgrade"])
    );
    assert_eq!(head.header("sec-websocket-accept"), ["from-the-upstream"]);
    assert_eq!((head.header("sec-websocket-protocol"), head.header("x-request-id")), (vec!["realtime"], vec!["7"]));
    assert!(head.header("set-cookie").is_empty() && head.header("sec-websocket-extensions").is_empty());
    // The bytes right after the 101 begin a frame; its rest, a ping, a pong and a close are relayed unchanged.
    upstream.say(b"hi\x89\x02hi").await;
    assert_eq!(agent.bytes(8).await, b"\x01\x02hi\x89\x02hi");
    agent.send(HELLO).await;
    agent.send(b"\x8a\x82mask\x05\x08\x88\x82mask\x6e\x88").await;
    upstream.hears(&[HELLO, b"\x8a\x82mask\x05\x08\x88\x82mask\x6e\x88"].concat()).await;
    upstream.say(b"\x88\x02\x03\xe8").await;
    drop(upstream);
    assert_eq!(agent.rest().await, b"\x88\x02\x03\xe8", "the upstream's close code, then the end");
}

#[tokio::test]
async fn attack_34_no_byte_is_forwarded_before_the_101() {
    let stage = Stage::new().await;
    let smuggled = "GET /v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";
    for (answer, seen_by_agent) in [("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403), ("", 101)] {
        let mut agent = stage.ask(HANDSHAKE).await;
        agent.send(HELLO).await;
        let mut upstream = stage.heard().await;
        let early = tokio::time::timeout(Duration::from_millis(200), upstream.stream.read_u8()).await;
        assert!(early.is_err(), "{early:?} came before the answer");
        if seen_by_agent == 101 {
            upstream.say(format!("{SWITCH}\r\n")).await;
            assert_eq!(agent.head().await.unwrap().status, 101);
            upstream.hears(HELLO).await;
        } else {
            upstream.say(answer).await;
            assert_eq!(agent.response().await.unwrap().status, 403);
            agent.send("\r\n\r\n").await;
            assert_eq!(agent.response().await.unwrap().status, 400, "the frame is not a request");
            assert_eq!(upstream.rest().await, b"", "not forwarded");
        }
    }
    // An upstream that responds with a 101 for another protocol.
    for switch in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        format!("{SWITCH}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ] {
        let mut agent = stage.ask(HANDSHAKE).await;
        let mut upstream = stage.heard().await;
        upstream.say(&switch).await;
        let response = agent.response().await.unwrap();
        assert_eq!((response.status, response.header("x-pixy-error")), (502, vec!["upstream_unreachable"]), "{switch}");
        agent.send(smuggled).await;
        assert_eq!(upstream.rest().await, b"", "{switch}");
    }
}

#[tokio::test]
async fn other_paths_get_426_and_clients_fall_back() {
    let stage = Stage::new().await;
    let pixy = stage.pixy.agents();
    for (path, fields, status, code) in [
        ("/a/v1/models", HANDSHAKE, 426, "no_websocket"),
        ("/a/v1/messages", HANDSHAKE, 426, "no_websocket"),
        ("/a/v1/models", "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", 426, "no_websocket"),
        ("/a/v1/models", "Upgrade: h2c\r\nUpgrade: WebSocket\r\n", 426, "no_websocket"),
        ("/a/v1/%2e%2e/responses", HANDSHAKE, 400, "bad_request"),
        ("/a/v1/responses", "Connection: Upgrade\r\nUpgrade: websocket\r\n", 400, "bad_request"),
        ("/a/v1/responses", &format!("{HANDSHAKE}Content-Length: 5\r\n"), 400, "bad_request"),
        ("/a/v1/responses", &format!("{HANDSHAKE}Transfer-Encoding: chunked\r\n"), 400, "bad_request"),
        ("/a/v1/responses", &HANDSHAKE.replace("13", "8"), 400, "bad_request"),
        ("/a/v1/responses", &HANDSHAKE.replace("==", "="), 400, "bad_request"),
        ("/a/v1/responses", &HANDSHAKE.replace(", Upgrade", ""), 400, "bad_request"),
        ("/a/v1/responses", &format!("Origin: http://evil.example\r\n{HANDSHAKE}"), 403, "browser_refused"),
        ("/b/v1/responses", HANDSHAKE, 404, "no_route"),
    ] {
        let response = ask(pixy, path, fields).await.response().await.unwrap();
        assert_eq!((response.status, response.header("x-pixy-error")), (status, vec![code]), "{path} {fields}");
    }
    // Not linked: after a 401 a client retries seven times, and then six times over HTTP. After a 426 it falls back immediately.
    stage.pixy.api(http::Method::DELETE, "/api/accounts/a", Value::Null).await;
    let response = stage.ask(HANDSHAKE).await.response().await.unwrap();
    assert_eq!((response.status, response.header("x-pixy-error")), (426, vec!["no_websocket"]));
    assert_eq!(stage.pixy.get("/a/v1/models").await.status, 401);
}

#[tokio::test]
async fn a_websocket_retries_with_a_newer_token() {
    let stage = Stage::new().await;
    let mut agent = stage.ask(HANDSHAKE).await;
    let mut first = stage.heard().await;
    first.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    let mut second = stage.heard().await;
    assert_ne!(first.token(), second.token());
    second.say(format!("{SWITCH}\r\n")).await;
    assert_eq!(agent.head().await.unwrap().status, 101);
    assert_eq!(stage.endpoint.refreshes(), 1);
    // A final 401 becomes a 426.
    let mut agent = stage.ask(HANDSHAKE).await;
    stage.heard().await.say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(agent.response().await.unwrap().status, 426);
}

#[tokio::test]
async fn attack_45_secrets_in_frames_are_replaced() {
    let stage = Stage::new().await;
    let (mut agent, mut upstream) = stage.open().await;
    let token = upstream.token();
    let frame = text_frame(&format!("{{\"echo\":\"{token}\"}}"));
    for cut in [1, 3, 4, 9, 20, frame.len() - 3] {
        upstream.say(&frame[..cut]).await;
        tokio::task::yield_now().await;
        upstream.say(&frame[cut..]).await;
        let heard = agent.bytes(frame.len()).await;
        let heard = String::from_utf8_lossy(&heard[4..]).into_owned();
        assert!(heard.starts_with("{\"echo\":\"[pixy:redacted]*") && heard.ends_with("\"}"), "{heard}");
    }
    // A possible start of a secret at the end of a message is not held back.
    let open_end = text_frame(&token[..12]);
    upstream.say(&open_end).await;
    assert_eq!(agent.bytes(open_end.len()).await, open_end);
    // A compressed frame without negotiation is not relayed, and both sides get a close frame.
    upstream.say(b"\xc1\x02ab").await;
    assert_eq!(agent.rest().await, b"\x88\x02\x03\xea");
    assert_eq!(upstream.rest().await, b"\x88\x82\0\0\0\0\x03\xea");
}

#[tokio::test]
async fn a_disconnect_of_the_agent_closes_the_upstream() {
    let stage = Stage::new().await;
    let (agent, mut upstream) = stage.open().await;
    agent.reset();
    assert_eq!(upstream.rest().await, b"");
    let (mut agent, upstream) = stage.open().await;
    drop(upstream);
    assert_eq!(agent.rest().await, b"");
}

#[tokio::test]
async fn shutdown_closes_websockets_between_messages() {
    let stage = Stage::new().await;
    let (mut agent, mut upstream) = stage.open().await;
    // A frame in progress is completed.
    upstream.say(b"\x81\x04h ").await; // a word would be held back until its end
    assert_eq!(agent.bytes(4).await, b"\x81\x04h ");
    let Stage { pixy, endpoint: _endpoint, server: _server } = stage;
    let stopping = tokio::spawn(pixy.stop());
    upstream.say(b"lf").await;
    assert_eq!(agent.bytes(2).await, b"lf");
    assert_eq!(agent.rest().await, b"\x88\x02\x03\xe9", "1001, going away");
    assert_eq!(upstream.rest().await, b"\x88\x82\0\0\0\0\x03\xe9");
    within(stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_websocket_counts_against_limits() {
    let digest = "85dbe15d75ef9308c7ae0f33c7a324cc6f4bf519a2ed2f3027bd33c140a4f9aa"; // of `secret-key`
    let limits = json!({ "concurrent": 1, "tokens_per_day": 100 });
    let keys = json!([{ "name": "coder", "sha256": digest, "accounts": ["a"], "limits": limits }]);
    let stage = Stage::with(&json!({ "agent": { "listen": "127.0.0.1:0", "keys": keys } })).await;
    let fields = format!("{HANDSHAKE}X-Api-Key: secret-key\r\n");
    let mut agent = stage.ask(&fields).await;
    let mut upstream = stage.heard().await;
    upstream.say(format!("{SWITCH}\r\n")).await;
    assert_eq!(agent.head().await.unwrap().status, 101);
    let status = async || stage.ask(&fields).await.response().await.unwrap().status;
    assert_eq!(status().await, 429);
    for _ in 0..2 {
        let message = text_frame("{\"usage\":{\"input_tokens\":50,\"output_tokens\":10}}");
        upstream.say(&message).await;
        agent.bytes(message.len()).await;
    }
    agent.reset();
    assert_eq!(upstream.rest().await, b"");
    let refused = stage.ask(&fields).await.response().await.unwrap();
    assert!(refused.text().contains("tokens a day"), "each message counts: {}", refused.text());
}

#[tokio::test]
async fn attack_83_an_idle_websocket_makes_room() {
    let stage = Stage::with(&json!({ "limits": { "connections": 2 } })).await;
    let (mut idle, mut idle_upstream) = stage.open().await;
    let (mut used, mut used_upstream) = stage.open().await;
    used.send(HELLO).await;
    used_upstream.hears(HELLO).await;
    // Both are silent now; the first waits for its agent, the second for its upstream.
    for _ in 0..2 {
        assert_eq!(stage.pixy.get("/a").await.status, 200);
    }
    assert!(within(idle.until_closed()).await);
    assert_eq!(idle_upstream.rest().await, b"");
    used_upstream.say(text_frame("late")).await;
    assert_eq!(used.bytes(text_frame("late").len()).await, text_frame("late"));
}
