//! Tests of the fakes: a test with an incorrect fake proves nothing.

mod provider; // the token endpoint, its rules and its faults

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Authority, Protocols, RawClient, Reply, Scratch, Step, Upstream, Validity, within};

#[tokio::test]
async fn the_fake_upstream_records_requests_as_on_the_wire() {
    let upstream = Upstream::start().await;
    let mut client = RawClient::connect(upstream.address()).await;
    client
        .send("POST http://evil/a/../b?x=%2f HTTP/1.1\r\nHost: Here\r\nX-B:  two \r\nx-a: \u{e9}\r\nx-b: one\r\n")
        .await;
    client.send("Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer-X: t\r\n\r\n").await;
    let response = client.response().await.unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "upstream"));
    assert!(response.complete && !response.closed);

    let seen = upstream.until_requests(1).await.remove(0);
    assert_eq!((seen.method.as_str(), seen.version.as_str()), ("POST", "HTTP/1.1"));
    assert_eq!((seen.target.as_str(), seen.path()), ("http://evil/a/../b?x=%2f", "http://evil/a/../b"));
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let accented = "\u{c3}\u{a9}"; // the two bytes of é in UTF-8, one character each
    let expected = [
        field("Host", "Here"),
        field("X-B", "two"),
        field("x-a", accented),
        field("x-b", "one"),
        field("Transfer-Encoding", "chunked"),
    ];
    assert_eq!(seen.headers, expected);
    assert_eq!(seen.header("X-b"), ["two", "one"]);
    assert_eq!((seen.body.as_slice(), seen.complete, seen.connection), (b"abcde".as_slice(), true, 0));
    assert_eq!(seen.trailers, [field("Trailer-X", "t")]);

    // The connection is reused, and an expectation is met before the body is sent.
    client.send("PUT /again HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.bytes(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("{}").await;
    assert!(client.response().await.unwrap().complete && client.until_closed().await);
    assert_eq!((upstream.requests()[1].json(), upstream.connections()), (serde_json::json!({}), 1));
}

#[tokio::test]
async fn the_fake_upstream_responds_as_configured() {
    let upstream = Upstream::answering(|seen| Reply::new(200).body(seen.target.clone())).await;
    upstream.answer(Reply::new(418).header("X-Kind", "tea").body("short and stout"));
    let get = "GET /handled HTTP/1.1\r\n\r\n";
    let queued = RawClient::once(upstream.address(), get).await.unwrap();
    assert_eq!((queued.status, queued.header("x-kind"), queued.text().as_str()), (418, vec!["tea"], "short and stout"));
    let handled = RawClient::once(upstream.address(), get).await.unwrap();
    assert_eq!(handled.text(), "/handled");

    let mut client = RawClient::connect(upstream.address()).await;
    client.send("HEAD /nine-byte HTTP/1.1\r\n\r\n").await;
    let head = client.response_to("HEAD").await.unwrap();
    assert_eq!((head.header("content-length"), head.body.len(), head.complete), (vec!["10"], 0, true));

    upstream.answer(Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"));
    let cut = RawClient::once(upstream.address(), get).await.unwrap();
    assert_eq!((cut.text().as_str(), cut.complete), ("short", false));

    upstream.answer(Reply::raw([Step::send("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Step::Echo]));
    let mut client = RawClient::connect(upstream.address()).await;
    client.send("GET /socket HTTP/1.1\r\nUpgrade: websocket\r\n\r\nearly").await;
    assert_eq!(client.response().await.unwrap().status, 101);
    assert_eq!(client.bytes(5).await, b"early");
    client.send("late").await;
    client.finish_sending().await;
    assert_eq!(client.rest().await, b"late");
}

#[tokio::test]
async fn chunks_are_sent_at_once() {
    let upstream = Upstream::start().await;
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply.header("content-type", "text/event-stream"));
    let mut client = RawClient::connect(upstream.address()).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().header("content-type"), ["text/event-stream"]);
    chunks.send("one");
    assert_eq!(client.bytes(8).await, b"3\r\none\r\n");
    chunks.send("");
    chunks.send("four");
    assert_eq!(client.bytes(9).await, b"4\r\nfour\r\n");
    chunks.finish();
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
    assert_eq!(upstream.disconnects(), 0);

    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    chunks.send("half of it");
    drop(chunks);
    let cut = RawClient::once(upstream.address(), "GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!((cut.text().as_str(), cut.complete), ("half of it", false));
}

#[tokio::test]
async fn the_fake_upstream_counts_disconnects() {
    let upstream = Upstream::start().await;
    let get = "GET / HTTP/1.1\r\n\r\n";

    // While a body streams.
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut client = RawClient::connect(upstream.address()).await;
    client.send(get).await;
    client.head().await.unwrap();
    drop(client);
    within(upstream.until_disconnected()).await;
    within(chunks.closed()).await;

    // While it waits for a response: by FIN or by RST.
    let (reply, gate) = Reply::new(200).gated();
    upstream.answer(reply);
    let mut client = RawClient::connect(upstream.address()).await;
    client.send(get).await;
    upstream.until_requests(2).await;
    client.reset();
    within(upstream.until_disconnects(2)).await;
    gate.open();
    upstream.answer(Reply::raw([Step::Hang]));
    let mut client = RawClient::connect(upstream.address()).await;
    client.send(get).await;
    upstream.until_requests(3).await;
    drop(client);
    within(upstream.until_disconnects(3)).await;

    // Within its own request.
    let mut client = RawClient::connect(upstream.address()).await;
    client.send("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").await;
    client.finish_sending().await;
    assert!(client.response().await.is_none());
    let seen = upstream.until_requests(4).await.remove(3);
    assert_eq!((seen.complete, seen.body.as_slice()), (false, b"abc".as_slice()));

    // Not after a complete response.
    assert!(RawClient::once(upstream.address(), get).await.unwrap().complete);
    assert_eq!(upstream.disconnects(), 4);
}

#[tokio::test]
async fn a_gate_delays_a_reply() {
    let upstream = Upstream::start().await;
    let (reply, gate) = Reply::new(204).gated();
    upstream.answer(reply);
    let mut client = RawClient::connect(upstream.address()).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    upstream.until_requests(1).await;
    let early = tokio::time::timeout(Duration::from_millis(20), client.head()).await;
    assert!(early.is_err(), "{early:?}");
    gate.open();
    assert_eq!(client.response().await.unwrap().status, 204);
}

#[tokio::test]
async fn a_reset_step_resets_the_connection() {
    let upstream = Upstream::start().await;
    upstream.answer(Reply::raw([Step::Reset]));
    let mut client = TcpStream::connect(upstream.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let read = within(tokio::io::AsyncReadExt::read(&mut client, &mut [0])).await;
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_fake_stops_when_it_is_dropped() {
    let upstream = Upstream::start().await;
    let address = upstream.address();
    let mut client = RawClient::connect(address).await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    client.response().await.unwrap();
    drop(upstream);
    assert!(client.until_closed().await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn tls_negotiates_both_versions_of_http() {
    let authority = Authority::new();
    for (protocols, version) in
        [(Protocols::Http1, "HTTP/1.1"), (Protocols::Http2, "HTTP/2.0"), (Protocols::Both, "HTTP/2.0")]
    {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let get =
            Request::get(format!("{}/v1/models?a=b", upstream.url())).header("x-a", "1").body(Empty::<Bytes>::new());
        let io = TokioIo::new(secure(&upstream, &authority).await.unwrap());
        let response = if version == "HTTP/2.0" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(get.unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(get.unwrap()).await.unwrap()
        };
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "upstream");
        let seen = &upstream.requests()[0];
        assert_eq!(seen.version, version);
        assert!(seen.target.ends_with("/v1/models?a=b"), "{}", seen.target);
        assert_eq!(seen.headers.last().unwrap(), &("x-a".to_owned(), "1".to_owned()));
        assert_eq!(seen.header(":authority").len(), usize::from(version == "HTTP/2.0"));
    }
}

#[tokio::test]
async fn http2_streams_are_reset_and_disconnects_counted() {
    let authority = Authority::new();
    let upstream = Upstream::builder().tls(&authority, Protocols::Http2).start().await;
    let io = TokioIo::new(secure(&upstream, &authority).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let get = || Request::get(format!("{}/", upstream.url())).body(Empty::<Bytes>::new()).unwrap();

    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut body = sender.send_request(get()).await.unwrap().into_body();
    chunks.send("first");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    drop(body);
    within(chunks.closed()).await;
    within(upstream.until_disconnected()).await;

    upstream.answer(Reply::raw([Step::Reset]));
    assert!(sender.send_request(get()).await.is_err());

    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    chunks.send("half of it");
    let cut = sender.send_request(get()).await.unwrap();
    drop(chunks);
    assert!(cut.into_body().collect().await.is_err());
    assert!(sender.send_request(get()).await.unwrap().into_body().collect().await.is_ok());
    assert_eq!((upstream.disconnects(), upstream.connections()), (1, 1));
}

#[tokio::test]
async fn invalid_certificates_are_rejected() {
    let authority = Authority::new();
    let good = Upstream::builder().tls(&authority, Protocols::Http1).start().await;
    assert!(secure(&good, &authority).await.is_ok());
    assert!(secure(&good, &Authority::new()).await.is_err());
    for (names, validity) in [(&["localhost"], Validity::Expired), (&["elsewhere.example"], Validity::Now)] {
        let bad = Upstream::builder().tls_for(&authority, Protocols::Http1, names, validity).start().await;
        assert!(secure(&bad, &authority).await.is_err(), "{names:?} {validity:?}");
    }
}

#[test]
fn a_scratch_directory_holds_a_configuration() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let config =
        scratch.config_with(&serde_json::json!({ "a": { "provider": "claude" } }), &serde_json::json!({ "ops": 1 }));
    let text = std::fs::read_to_string(&config).unwrap();
    let read: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    assert_eq!(read["ops"], 1);
    assert_eq!(read["accounts"]["a"]["provider"], "claude");
    assert_eq!(read["vault"]["key_file"], scratch.path("key").to_str().unwrap());
    assert_eq!(scratch.path("").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(scratch.files(), [config]);
}

/// A connection of a client that trusts `authority` alone and accepts either protocol.
async fn secure(upstream: &Upstream, authority: &Authority) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).expect("a certificate");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(upstream.address()).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}
