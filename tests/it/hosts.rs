//! `Host` on every surface: a page whose name was made to resolve to Pixy's address (DNS rebinding) is served nothing.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Pixy, RawClient, RawResponse, Scratch, TokenEndpoint, Upstream, oauth_account};

/// Every TCP listener knows the name `pixy`.
fn known() -> Value {
    json!({
        "agent": { "listen": [{ "address": "127.0.0.1:0", "hosts": ["pixy"] }] },
        "link": { "listen": "127.0.0.1:0", "hosts": ["pixy"] },
        "ops": { "listen": "127.0.0.1:0", "hosts": ["pixy"] },
    })
}

async fn ask(address: SocketAddr, target: &str, host: &str) -> RawResponse {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    RawClient::once(address, request).await.expect("an answer")
}

#[tokio::test]
async fn attack_89_a_rebound_name_reads_nothing_on_any_port() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::with(&json!({ "a": oauth_account(&endpoint, &upstream) }), &known()).await;
    pixy.link(&endpoint).await;
    let surfaces = [
        (pixy.agents(), "/a/v1/models", "agent.listen: [ { address: ADDRESS, hosts: [NAME] } ]"),
        (pixy.page(), "/", "link.hosts"),
        (pixy.ops(), "/metrics", "ops.hosts"),
    ];
    for (address, path, key) in surfaces {
        for host in
            ["127.0.0.1", "[::1]:1", "10.0.0.1:8700", "localhost:8700", "LOCALHOST", "pixy", "Pixy:8700", "pixy."]
        {
            assert_eq!(ask(address, path, host).await.status, 200, "{host} {path}");
        }
        let before = upstream.requests().len();
        for host in
            ["evil.example", "EVIL.example:8700", "evil.example.", "127.0.0.1.evil.example", "x.localhost", "127.1"]
        {
            let refused = ask(address, path, host).await;
            assert_eq!((refused.status, refused.closed), (421, true), "{host} {path}");
            assert!(refused.text().contains(key), "{}", refused.text());
            assert!(!refused.text().contains("evil"), "{}", refused.text());
        }
        // Two readings of the host are refused before.
        for (target, host) in [
            (format!("http://evil.example{path}"), "pixy"),
            (format!("http://pixy{path}"), "evil.example"),
            (format!("//evil.example{path}"), "evil.example"),
            (path.to_owned(), "pixy@evil.example"),
            (path.to_owned(), "evil.example@127.0.0.1"),
            (path.to_owned(), "pixy:8700:8700"),
            (path.to_owned(), "pixy\r\nHost: evil.example"),
            (path.to_owned(), ""),
        ] {
            let status = ask(address, &target, host).await.status;
            assert!(matches!(status, 400 | 421), "{target} {host}: {status}");
        }
        assert_eq!(upstream.requests().len(), before, "nothing was forwarded");
    }
    let refused = ask(pixy.agents(), "/a/v1/models", "evil.example").await;
    assert_eq!(refused.header("x-pixy-error"), ["unknown_host"]);
    assert_eq!(refused.json()["type"], "error", "the shape of the SDK");
    assert_eq!(ask(pixy.page(), "/", "evil.example").await.json()["type"], "urn:pixy:problem:unknown_host");
}

#[tokio::test]
async fn attack_89_names_are_reloaded_without_closing_a_socket() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let mut pixy = Pixy::with(&accounts, &known()).await;
    let (ops, page, agents) = (pixy.ops(), pixy.page(), pixy.agents());
    let mut open = RawClient::connect(ops).await;
    open.send("GET /livez HTTP/1.1\r\nHost: pixy\r\n\r\n").await;
    assert_eq!(open.response().await.unwrap().status, 200);
    let mut other = known();
    other["ops"]["hosts"] = json!(["other.example"]);
    pixy.reload(&accounts, &other).await.unwrap();
    assert_eq!((pixy.ops(), pixy.page(), pixy.agents()), (ops, page, agents), "no listener was replaced");
    open.send("GET /livez HTTP/1.1\r\nHost: pixy\r\n\r\n").await;
    assert_eq!(open.response().await.unwrap().status, 421, "the name was taken away from the open connection too");
    assert_eq!(ask(ops, "/livez", "Other.Example").await.status, 200);
}

#[tokio::test]
async fn a_unix_socket_takes_any_host() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let scratch = Scratch::new();
    let socket = scratch.path("agent.sock");
    let listen = json!({ "agent": { "listen": ["127.0.0.1:0", format!("unix:{}", socket.display())] } });
    let pixy = Pixy::at(scratch, &json!({ "a": oauth_account(&endpoint, &upstream) }), &listen).await;
    pixy.link(&endpoint).await;
    // Clients write the path of the socket there, or anything.
    for host in ["%2Frun%2Fpixy.sock", "a.b-c_d~e", "evil.example", "localhost"] {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET /a/v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
}
