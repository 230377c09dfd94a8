//! Rejected requests and upgrades, as each surface and each client sees them.

use std::net::SocketAddr;

use serde_json::json;

use super::linked;
use crate::support::{RawClient, Reply, Step};

#[tokio::test]
async fn attack_36_every_surface_rejects_in_its_own_format_and_closes() {
    let (pixy, _endpoint, upstream) = linked().await;
    let successor = "GET /livez HTTP/1.1\r\nHost: pixy\r\n\r\nGET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";
    let ask = |address: SocketAddr, head: &'static str| async move {
        let mut client = RawClient::connect(address).await;
        client.send(format!("{head}{successor}")).await;
        let response = client.response().await.expect("an answer");
        assert!(response.closed, "{head:?} at {address}");
        response
    };
    for (head, status, code) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: much\r\n\r\n", 417, "expectation_failed"),
    ] {
        let response = ask(pixy.agents(), head).await;
        assert_eq!((response.status, response.header("x-pixy-error")), (status, vec![code]), "{head:?}");
        assert_eq!(response.json()["type"], "error", "{head:?}");
        assert!(response.json()["error"]["message"].as_str().unwrap().starts_with("Pixy: "), "{head:?}");
        assert_eq!(response.header("allow").len(), usize::from(status == 405), "{head:?}");
        let response = ask(pixy.page(), head).await;
        assert_eq!((response.status, &response.json()["status"]), (status, &json!(status)), "{head:?}");
        assert_eq!(response.json()["type"], format!("urn:pixy:problem:{code}"), "{head:?}");
        let response = ask(pixy.ops(), head).await;
        assert_eq!(response.status, status, "{head:?}");
        assert_eq!(response.header("content-type"), ["text/plain; charset=utf-8"], "{head:?}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn attack_36_the_response_before_a_rejected_request_arrives() {
    let (pixy, _endpoint, upstream) = linked().await;
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send("GET /a/v1/models HTTP/1.1\r\nHost: a\r\n\r\nGET /a/v1/models HTTP/1.1\n\n").await;
    assert_eq!(client.response().await.unwrap().status, 200);
    let refused = client.response().await.unwrap();
    assert_eq!((refused.status, refused.closed), (400, true));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_client_that_forges_the_mark_of_a_rejected_request_gets_400() {
    let (pixy, _endpoint, upstream) = linked().await;
    for mark in ["1", "", "bad_request"] {
        let request = format!("GET /a/v1/models HTTP/1.1\r\nHost: a\r\nX-Pixy-Refused: {mark}\r\n\r\n");
        let response = pixy.send(&request).await;
        assert_eq!(
            (response.status, response.header("x-pixy-error"), response.closed),
            (400, vec!["bad_request"], true)
        );
    }
    assert!(upstream.requests().is_empty());
}

/// The header fields that the upstream gets with a request without a body.
const PLAIN: [&str; 3] = ["authorization", "accept-encoding", "host"];

/// The beginning of HTTP/2 (RFC 9113 §3.4), and a request in its frames.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86";

#[tokio::test]
async fn attack_34_an_upgrade_is_removed_with_what_follows_its_head() {
    let (pixy, _endpoint, upstream) = linked().await;
    let upgrades = [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Upgrade: H2C\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websockets\r\n",
        "Connection: upgrade\r\nUpgrade: h2c, web-socket\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: keep-alive\r\nUpgrade:\r\n",
    ];
    let behind: [&[u8]; 4] =
        [PREFACE, b"\x16\x03\x01\0\x05\r\n\r\n", b"\x81\x85abcdefghi\r\n\r\n", b"\0\0\0\0\r\n\r\n"];
    let requests = [("GET", "/a/v1/models", "", ""), ("POST", "/a/v1/messages", "Content-Length: 5\r\n", "hello")];
    let mut sent = 0;
    for (upgrade, behind) in upgrades.iter().flat_map(|upgrade| behind.map(|behind| (upgrade, behind))) {
        for (method, path, length, body) in requests {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{upgrade}{length}\r\n{body}");
            let mut client = RawClient::connect(pixy.agents()).await;
            client.send([head.as_bytes(), behind].concat()).await;
            let response = client.response().await.unwrap();
            assert_eq!((response.status, response.version.as_str()), (200, "HTTP/1.1"), "never 101: {head:?}");
            let refused = client.response().await.unwrap();
            assert_eq!((refused.status, refused.closed), (400, true), "{head:?} and {behind:?}");
            sent += 1;
            let seen = upstream.requests();
            assert_eq!(seen.len(), sent, "{head:?} and {behind:?}");
            let last = seen.last().unwrap();
            assert_eq!(last.body, body.as_bytes(), "{head:?}");
            let names: Vec<&str> = last.headers.iter().map(|(name, _)| name.as_str()).collect();
            let forwarded = names.iter().filter(|name| **name != "content-length").copied().collect::<Vec<_>>();
            assert_eq!(forwarded, PLAIN, "{head:?}: nothing of the upgrade is forwarded");
        }
    }
}

#[tokio::test]
async fn attack_34_no_upgrade_field_is_forwarded_in_any_spelling() {
    let (pixy, _endpoint, upstream) = linked().await;
    for name in ["Upgrade", "UPGRADE", "upgrade_", "_Upgrade", "HTTP2-Settings", "http2_settings", "HTTP2_Settings-"] {
        let request = format!("GET /a/v1/models HTTP/1.1\r\nHost: a\r\n{name}: h2c\r\nConnection: close\r\n\r\n");
        assert_eq!(pixy.send(&request).await.status, 200, "{name}");
        let seen = upstream.requests();
        let names: Vec<&str> = seen.last().unwrap().headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, PLAIN, "{name}");
    }
}

#[tokio::test]
async fn attack_34_an_unrequested_101_of_an_upstream_becomes_502() {
    let (pixy, _endpoint, upstream) = linked().await;
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    upstream.answer(Reply::raw([Step::send(switched), Step::Echo]));
    let head = "GET /a/v1/models HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send([head.as_bytes(), PREFACE].concat()).await;
    let response = client.response().await.unwrap();
    assert_eq!(response.status, 502);
    assert!(!client.rest().await.windows(3).any(|window| window == b"PRI"), "nothing is sent back");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn attack_35_100_continue_is_sent_after_checks_not_forwarded() {
    let (pixy, _endpoint, upstream) = linked().await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send(head("/a/v1/messages")).await;
    assert_eq!(client.bytes(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.response().await.unwrap().status, 200);
    assert_eq!(
        (upstream.requests()[0].body.as_slice(), upstream.requests()[0].header("expect").len()),
        (&b"hello"[..], 0)
    );
    let mut client = RawClient::connect(pixy.agents()).await;
    client.send(head("/a/v1/organizations")).await;
    assert_eq!(client.bytes(12).await, b"HTTP/1.1 403", "without a 100 before it");
    assert_eq!(upstream.requests().len(), 1);
}
