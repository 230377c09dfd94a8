//! A complete request, from the bytes that an agent sends to those that it receives, through a Pixy that `app` started. The agent
//! and Pixy share a thread and are counted together; the upstream has a thread of its own, which is not counted. TLS and the
//! kernel are not included.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use pixy::app::{self, Running};
use pixy::config;
use pixy::internals::plain_log;
use pixy::server::Address;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;

use crate::Step;
use crate::linked_account::{env, login};

/// `request` logs at the default level, `quiet` logs nothing.
pub fn steps() -> Vec<(&'static str, Step)> {
    vec![("request", step(LevelFilter::INFO)), ("quiet", step(LevelFilter::WARN))]
}

fn step(level: LevelFilter) -> Step {
    let mut fixture = None;
    Box::new(move || {
        let Fixture { runtime, agent, received, log, .. } = fixture.get_or_insert_with(|| Fixture::start(level));
        let request = async {
            agent.write_all(REQUEST.as_bytes()).await?;
            received.clear();
            while !received.ends_with(END.as_bytes()) {
                assert!(agent.read_buf(received).await? > 0, "the connection stays open");
            }
            std::io::Result::Ok(())
        };
        tracing::dispatcher::with_default(log, || runtime.block_on(request)).expect("Pixy answers");
        assert!(received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(received));
    })
}

/// A Pixy with one account and a connected agent.
struct Fixture {
    runtime: Runtime,
    agent: TcpStream,
    received: Vec<u8>,
    log: Dispatch,
    _running: Running,
    _directory: TempDir,
}

impl Fixture {
    fn start(level: LevelFilter) -> Self {
        let directory = tempfile::tempdir().expect("a directory is made");
        let text = CONFIGURATION
            .replace("UPSTREAM", &upstream().to_string())
            .replace("DIRECTORY", &directory.path().display().to_string());
        let config = config::parse(&text, None, &env()).unwrap_or_else(|faults| panic!("{faults}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let (running, agent) = runtime.block_on(async {
            let running = app::start(config).await.unwrap_or_else(|error| panic!("{error}"));
            let account = running.accounts.find("a").expect("it is configured");
            account.adopt(login()).await.unwrap_or_else(|error| panic!("{error}"));
            let [Address::Tcp(address)] = running.agents[..] else { panic!("one address is configured") };
            (running, TcpStream::connect(address).await.expect("it listens"))
        });
        let log = Dispatch::new(plain_log(level, std::io::sink));
        Self { runtime, agent, received: Vec::new(), log, _running: running, _directory: directory }
    }
}

/// Sends the same response to every request.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let (mut received, mut space) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut space) {
                    received.extend_from_slice(&space[..length]);
                    if received.ends_with(END.as_bytes()) {
                        received.clear();
                        if stream.write_all(RESPONSE.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

const CONFIGURATION: &str = r#"
agent:
  listen: 127.0.0.1:0
  keys:
    - name: coder
      sha256: 00e4217dd9c5353ca5ba9a295049f7edd45475c148f087feaaf5c119dd9a64d6
      accounts: [a]
link: { listen: off }
ops: { listen: "127.0.0.1:0" }
state_dir: DIRECTORY/state
vault: { dir: DIRECTORY/vault, key_file: DIRECTORY/key }
accounts:
  a:
    provider: openai-compatible
    profile:
      api:
        base_url: http://UPSTREAM
        allow: [POST /v1/messages, POST /v1/messages/count_tokens, GET /v1/models, GET /v1/models/*]
        headers:
          default: { anthropic-version: "2023-06-01" }
          merge: { anthropic-beta: [oauth-2025-04-20] }
        quota_headers: [anthropic-ratelimit-unified-*]
"#;

/// The end of every message; it occurs nowhere else.
const END: &str = "\"end\":true}\n";

/// A request of Claude Code.
const REQUEST: &str = concat!(
    "POST /a/v1/messages?beta=true HTTP/1.1\r\naccept: application/json\r\naccept-encoding: gzip, deflate, br, zstd\r\n",
    "anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\n",
    "anthropic-dangerous-direct-browser-access: true\r\nanthropic-version: 2023-06-01\r\n",
    "authorization: Bearer agent-key-0123456789abcdef\r\nconnection: keep-alive\r\ncontent-length: 95\r\n",
    "content-type: application/json\r\nhost: 127.0.0.1:8700\r\nuser-agent: claude-cli/2.1.0 (external, cli)\r\nx-app: cli\r\n",
    "x-stainless-arch: x64\r\nx-stainless-lang: js\r\nx-stainless-os: Linux\r\nx-stainless-package-version: 0.70.0\r\n",
    "x-stainless-retry-count: 0\r\nx-stainless-runtime: node\r\nx-stainless-runtime-version: v24.3.0\r\n",
    "x-stainless-timeout: 600\r\n\r\n",
    "{\"model\":\"m\",\"max_tokens\":1024,\"messages\":[{\"role\":\"user\",\"content\":\"And so on?\"}],\"end\":true}\n",
);

/// A response of Anthropic.
const RESPONSE: &str = concat!(
    "HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 05:00:00 GMT\r\ncontent-type: application/json\r\ncontent-length: 194\r\n",
    "connection: keep-alive\r\nrequest-id: req_011CUvZ5wqM8vT9eA3nJ4kXb\r\nanthropic-organization-id: 6f1c9f6e\r\n",
    "anthropic-ratelimit-unified-status: allowed\r\nanthropic-ratelimit-unified-reset: 1795154800\r\n",
    "anthropic-ratelimit-unified-5h-status: allowed\r\nanthropic-ratelimit-unified-5h-utilization: 0.12\r\n",
    "anthropic-ratelimit-unified-5h-reset: 1795154800\r\nanthropic-ratelimit-unified-7d-status: allowed\r\n",
    "anthropic-ratelimit-unified-7d-utilization: 0.031\r\nanthropic-ratelimit-unified-7d-reset: 1795748800\r\n",
    "strict-transport-security: max-age=31536000; includeSubDomains; preload\r\nserver: cloudflare\r\n",
    "cf-cache-status: DYNAMIC\r\ncf-ray: 9a5b4c3d2e1f0a9b-FRA\r\nvary: accept-encoding\r\n\r\n",
    "{\"id\":\"msg_01\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"And so on.\"}],",
    "\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":12,\"output_tokens\":5},\"end\":true}\n",
);
