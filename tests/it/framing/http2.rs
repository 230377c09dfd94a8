//! Inbound HTTP/2 is refused on every surface, and bytes after its preface are discarded.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::linked;
use crate::support::{Pixy, Program, TokenEndpoint, Upstream, oauth_account, within};

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A SETTINGS frame and a HEADERS frame with a request (RFC 9113 §6.5, §6.2).
const FRAMES: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86";

const REQUEST: &[u8] = b"GET /nothing HTTP/1.1\r\nHost: pixy\r\n\r\n";

/// Sends the preface, with `after_request` after a complete request and response. Returns the status line of each response.
async fn statuses(mut stream: impl AsyncRead + AsyncWrite + Unpin, after_request: bool) -> Vec<String> {
    let mut received = Vec::new();
    if after_request {
        stream.write_all(REQUEST).await.unwrap();
        within(stream.read_buf(&mut received)).await.unwrap();
    }
    stream.write_all(&[PREFACE, FRAMES].concat()).await.unwrap();
    within(stream.read_to_end(&mut received)).await.expect("the server closes the connection");
    let received = String::from_utf8(received).expect("no frame of HTTP/2 is sent");
    let statuses = received.split("HTTP/1.1 ").skip(1).map(|response| response[..3].to_owned());
    statuses.filter(|status| status.parse::<u16>().is_ok()).collect() // the text of a 400 names HTTP/1.1 too
}

#[tokio::test]
async fn attack_39_the_http2_preface_is_refused_on_every_surface() {
    let (pixy, _endpoint, upstream) = linked().await;
    for (name, address) in [("agents", pixy.agents()), ("page", pixy.page()), ("ops", pixy.ops())] {
        let connect = async || TcpStream::connect(address).await.unwrap();
        assert_eq!(statuses(connect().await, false).await, ["400"], "{name}");
        let after_request = statuses(connect().await, true).await;
        assert_eq!((after_request.len(), after_request[1].as_str()), (2, "400"), "{name}: {after_request:?}");
    }
    let control = pixy.scratch.path("state/control.sock");
    assert_eq!(statuses(UnixStream::connect(&control).await.unwrap(), false).await, ["400"]);
    let after_request = statuses(UnixStream::connect(&control).await.unwrap(), true).await;
    assert_eq!(after_request, ["404", "400"]);
    assert!(upstream.requests().is_empty());
}

/// The resident set's peak, in KiB.
fn peak_memory(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn attack_39_a_flood_after_the_preface_holds_no_memory() {
    const FLOOD_BYTES: usize = 7 << 20;
    const CLIENTS: usize = 40;
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let (scratch, _) = Pixy::linked(&endpoint, &upstream).await.dismantle().await;
    let config = scratch.config_with(&json!({ "a": oauth_account(&endpoint, &upstream) }), &json!({}));
    let program = Program::start(&scratch, &config).await;
    assert_eq!(program.get("/a/v1/models").await.status, 200);
    let before = peak_memory(&program);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = program.agents();
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 1 {
                stream.write_all(REQUEST).await.unwrap();
            }
            let flood = [PREFACE, &FRAMES.repeat(FLOOD_BYTES / FRAMES.len())].concat();
            // The server may close the connection before it has read all of it.
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&flood)).await;
            stream
        });
    }
    for _ in 0..5 {
        assert_eq!(within(program.get("/a/v1/models")).await.status, 200, "other clients are served");
    }
    let streams = within(clients.join_all()).await;
    assert_eq!(within(program.get("/a/v1/models")).await.status, 200, "other clients are served afterwards");
    let growth = peak_memory(&program).saturating_sub(before);
    assert!(growth <= 8 * 1024, "{growth} KiB more than the {before} KiB before");
    drop(streams);
}
