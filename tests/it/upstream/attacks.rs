//! Attacks of SECURITY.md by upstreams and name servers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future;
use http_body_util::BodyExt as _;
use pixy::upstream::{Resolver, SendError, Tuning, Upstream as Client, UpstreamSettings};
use serde_json::json;

use super::h2_frames::{self, ByHand};
use super::{client, get, text, tuned};
use crate::support::{
    Authority, Pixy, Program, Protocols, Reply, Step, TokenEndpoint, Upstream, oauth_account, within,
};

/// A resolver that resolves every name to these addresses and records the names.
fn resolver(addresses: &[&str]) -> (Resolver, Arc<Mutex<Vec<String>>>) {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let resolver = Resolver::new(move |name| {
        log.lock().unwrap().push(name);
        Box::pin(future::ready(Ok(addresses.clone())))
    });
    (resolver, asked)
}

#[tokio::test]
async fn attack_15_only_the_host_of_the_uri_is_dialed() {
    let authority = Authority::new();
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let trap = Upstream::start().await;
        let (resolver, asked) = resolver(&["127.0.0.1"]);
        let client = tuned(&authority, &UpstreamSettings::default(), Tuning { resolver, ..Tuning::default() });
        for status in [200, 302, 307, 401, 503] {
            let mut reply = Reply::new(status).header("alt-svc", &format!("h2=\"{}\"", trap.address()));
            for name in ["location", "content-location", "refresh", "link"] {
                reply = reply.header(name, &trap.url());
            }
            upstream.answer(reply);
            let mut request = get(upstream.url() + "/v1/models");
            let evil: http::HeaderValue = trap.address().to_string().parse().unwrap();
            for name in ["host", "forwarded", "x-forwarded-host"] {
                request.headers_mut().insert(name, evil.clone());
            }
            assert_eq!(client.send(request).await.unwrap().status(), status);
        }
        let own = upstream.url().replace("https://", "");
        for seen in upstream.requests() {
            let hosts = [seen.header("host"), seen.header(":authority")].concat();
            assert_eq!((hosts, seen.target.as_str()), (vec![own.as_str()], "/v1/models"), "{protocols:?}");
        }
        assert!(asked.lock().unwrap().iter().all(|name| name == "localhost"), "{asked:?}");
        assert_eq!((trap.connections(), upstream.requests().len()), (0, 5));
    }
}

#[tokio::test]
async fn attack_23_early_hints_are_dropped_over_http1() {
    let upstream = Upstream::start().await;
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
    upstream.answer(Reply::bytes(format!("{hints}{hints}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine")));
    let response = client.send(get(upstream.url() + "/")).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().len()), (200, 1));
    assert_eq!(text(response).await, "fine");
}

#[tokio::test]
async fn attack_23_push_and_alternative_origins_are_ignored() {
    let authority = Authority::new();
    let (server, client) = (ByHand::start(&authority).await, client(&authority));
    let serving = async {
        let mut first = server.accept().await;
        assert!(first.settings.contains(&(2, 0)), "SETTINGS_ENABLE_PUSH is 0: {:?}", first.settings);
        first.write(h2_frames::SETTINGS, 0, 0, &[]).await;
        let stream = first.request().await.unwrap();
        let evil = b"https://evil.example";
        first.write(h2_frames::ORIGIN, 0, 0, &[&[0, 20][..], evil].concat()).await;
        first.write(h2_frames::ALTSVC, 0, stream, b"\0\0h2=\"evil.example:443\"").await;
        first.write(h2_frames::HEADERS, h2_frames::END_HEADERS, stream, h2_frames::EARLY_HINTS).await;
        first.write(h2_frames::HEADERS, h2_frames::END_HEADERS, stream, h2_frames::OK).await;
        first.write(h2_frames::DATA, h2_frames::END_STREAM, stream, b"fine").await;

        let stream = first.request().await.unwrap();
        let promised = [&2_u32.to_be_bytes()[..], h2_frames::OK].concat();
        first.write(h2_frames::PUSH_PROMISE, h2_frames::END_HEADERS, stream, &promised).await;
        first.write(h2_frames::HEADERS, h2_frames::END_HEADERS | h2_frames::END_STREAM, 2, h2_frames::OK).await;
        first.until_closed().await;

        let mut second = server.accept().await;
        second.write(h2_frames::SETTINGS, 0, 0, &[]).await;
        let stream = second.request().await.unwrap();
        second.write(h2_frames::HEADERS, h2_frames::END_HEADERS | h2_frames::END_STREAM, stream, h2_frames::OK).await;
        second.until_closed().await;
    };
    let asking = async {
        assert_eq!(text(within(client.send(get(server.url()))).await.unwrap()).await, "fine");
        let pushed = within(client.send(get(server.url()))).await;
        assert!(matches!(pushed, Err(SendError::Broken(_))), "RFC 9113 §8.4: a connection error");
        assert_eq!(within(client.send(get(server.url()))).await.unwrap().status(), 200);
        drop(client);
    };
    future::join(serving, asking).await;
}

#[tokio::test]
async fn an_http2_server_without_streams_or_settings_is_an_error() {
    let authority = Authority::new();
    for allows_none in [true, false] {
        let server = ByHand::start(&authority).await;
        let settings = UpstreamSettings {
            connect_timeout: Duration::from_secs(1),
            head_timeout: Duration::from_secs(3),
            ..UpstreamSettings::default()
        };
        let client = tuned(&authority, &settings, Tuning::default());
        let serving = async {
            loop {
                let mut connection = server.accept().await;
                if allows_none {
                    connection.write(h2_frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]).await;
                }
                connection.until_closed().await;
            }
        };
        // The first was sent before the server's SETTINGS; the others were not sent.
        let sent = (0..5).map(|_| client.send(get(server.url())));
        let sent = tokio::select! {
            sent = within(future::join_all(sent)) => sent,
            () = serving => unreachable!("it serves without end"),
        };
        let unsent = sent.iter().filter(|sent| sent.as_ref().is_err_and(SendError::nothing_was_sent)).count();
        assert!(sent.iter().all(Result::is_err) && unsent >= 4, "{unsent} of 5");
    }
}

#[tokio::test]
async fn attack_25_the_environment_is_ignored() {
    let (ours, others) = (Authority::new(), Authority::new());
    let endpoint = TokenEndpoint::start().await;
    let trap = Upstream::start().await;
    for (authority, status) in [(&ours, 200), (&others, 502)] {
        let upstream = Upstream::builder().tls(authority, Protocols::Both).start().await;
        let scratch = crate::support::Scratch::new();
        let ca = scratch.write("ca.pem", ours.pem());
        let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
        let pixy = Pixy::with(&accounts, &json!({ "upstream": { "extra_ca_file": ca } })).await;
        pixy.link(&endpoint).await;
        let (home, config) = pixy.dismantle().await;
        let (theirs, keys) = (scratch.write("others.pem", others.pem()), scratch.path("keys.log"));
        let (theirs, keys) = (theirs.to_str().unwrap(), keys.to_str().unwrap());
        let proxy = trap.url();
        let environment = [
            ("HTTPS_PROXY", proxy.as_str()),
            ("https_proxy", &proxy),
            ("HTTP_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("ALL_PROXY", &proxy),
            ("all_proxy", &proxy),
            ("SSL_CERT_FILE", theirs),
            ("SSL_CERT_DIR", scratch.path("").to_str().unwrap()),
            ("SSLKEYLOGFILE", keys),
            ("LOCALDOMAIN", "evil.example"),
            ("RES_OPTIONS", "ndots:15"),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let program = Program::start_in(&home, &config, &environment).await;
        let before = endpoint.requests().len();
        program.api(http::Method::POST, "/api/accounts/a/refresh").await.unwrap();
        within(endpoint.until_requests(before + 1)).await; // a refresh goes where it should, too
        assert_eq!(program.get("/a/v1/models").await.status, status);
        assert_eq!(upstream.requests().len(), usize::from(status == 200));
        assert_eq!(trap.connections(), 0, "a proxy was used");
        assert!(!std::path::Path::new(keys).exists(), "session keys were written");
        program.kill().await;
    }
}

#[tokio::test]
async fn attack_26_dns_cannot_redirect_to_this_machine() {
    let authority = Authority::new();
    let names = &["api.example.com", "localhost"];
    let upstream =
        Upstream::builder().tls_for(&authority, Protocols::Both, names, crate::support::Validity::Now).start().await;
    let port = upstream.address().port();
    for answer in [&["127.0.0.1"][..], &["169.254.169.254", "127.0.0.1"], &["::ffff:127.0.0.1"], &["0.0.0.0"], &[]] {
        let (resolver, asked) = resolver(answer);
        let client = tuned(&authority, &UpstreamSettings::default(), Tuning { resolver, ..Tuning::default() });
        // Not even with a matching certificate.
        let sent = within(client.send(get(format!("https://api.example.com:{port}/")))).await;
        assert!(sent.is_err_and(|error| error.nothing_was_sent()), "{answer:?}");
        assert_eq!(*asked.lock().unwrap(), ["api.example.com"]);
        let sent = within(client.upgrade(get(format!("https://api.example.com:{port}/")))).await;
        assert!(sent.is_err_and(|error| error.nothing_was_sent()), "{answer:?}");
    }
    let (resolver, _) = resolver(&["192.0.2.7"]);
    let client = tuned(&authority, &UpstreamSettings::default(), Tuning { resolver, ..Tuning::default() });
    for url in ["http://localhost", "https://localhost", "https://169.254.169.254", "http://api.example.com"] {
        let sent = within(client.send(get(format!("{url}:{port}/")))).await;
        assert!(sent.is_err_and(|error| error.nothing_was_sent()), "{url}");
    }
    assert_eq!(upstream.connections(), 0);
    let (resolver, _) = self::resolver(&["192.0.2.7", "127.0.0.1"]);
    let client = tuned(&authority, &UpstreamSettings::default(), Tuning { resolver, ..Tuning::default() });
    let response = within(client.send(get(format!("https://localhost:{port}/")))).await.unwrap();
    assert_eq!(text(response).await, "upstream", "a loopback host is allowed by configuration");
}

#[tokio::test]
async fn attack_37_ambiguous_responses_are_refused() {
    let unclear = [
        "200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
        "200 OK\r\ncontent-length: +5\r\n\r\nhello",
        "200 OK\r\ncontent-length: 0x5\r\n\r\nhello",
        "200 OK\r\ncontent-length: -1\r\n\r\nhello",
        "200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello",
        "200 OK\r\ncontent-length:\r\n\r\nhello",
        "200 OK\r\ncontent-length : 5\r\n\r\nhello",
        "200 OK\r\ncontent-length: 5\r\n 6\r\n\r\nhello",
        "200 OK\r\nx: a\0b\r\ncontent-length: 5\r\n\r\nhello",
        "200 OK\r\nno colon\r\ncontent-length: 5\r\n\r\nhello",
        "200 OK\r\ntransfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        "200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "204 No Content\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello",
        "99 x\r\n\r\n",
        "abc\r\n\r\n",
    ];
    let mut raw: Vec<_> = unclear.iter().map(|rest| format!("HTTP/1.1 {rest}")).collect();
    raw.push("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned());
    raw.push("SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned());
    let upstream = Upstream::start().await;
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    for (number, raw) in raw.into_iter().enumerate() {
        upstream.answer(Reply::raw([Step::send(raw.clone()), Step::Hang]));
        let sent = within(client.send(get(upstream.url() + "/"))).await;
        assert!(matches!(sent, Err(SendError::Broken(_))), "{raw:?}");
        // The connection is closed: the next request does not see the rest.
        within(upstream.until_disconnects(number + 1)).await;
    }
    assert_eq!(text(client.send(get(upstream.url() + "/")).await.unwrap()).await, "upstream");
}

#[tokio::test]
async fn attack_37_invalid_body_framing_is_an_error() {
    let upstream = Upstream::start().await;
    let client = Client::new(&UpstreamSettings::default()).unwrap();
    let bodies =
        ["5\r\nhelloXX", "+5\r\nhello\r\n", "0x5\r\nhello\r\n", "5\r\nhel", "10000000000000000\r\nhello\r\n", "\r\n"];
    for (number, body) in bodies.into_iter().enumerate() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let end = if body == "5\r\nhel" { vec![] } else { vec![Step::Hang] };
        let steps = [vec![Step::send(head.to_owned() + body)], end].concat();
        upstream.answer(Reply::raw(steps));
        let response = within(client.send(get(upstream.url() + "/"))).await.unwrap();
        assert!(within(response.into_body().collect()).await.is_err(), "{body:?}");
        assert_eq!(text(client.send(get(upstream.url() + "/")).await.unwrap()).await, "upstream");
        assert_eq!(upstream.requests()[3 * number + 1].connection, 2 * number + 1, "{body:?}: not reused");
        // The next round also starts on a new connection.
        upstream.answer(Reply::bytes("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"));
        let _ = within(client.send(get(upstream.url() + "/"))).await;
    }
}

#[tokio::test]
async fn attack_37_bytes_after_a_response_are_discarded() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        for at_once in [true, false] {
            let upstream = Upstream::start().await;
            let client = Client::new(&UpstreamSettings::default()).unwrap();
            let steps = if at_once {
                vec![Step::send([first, evil].concat()), Step::Hang]
            } else {
                vec![Step::send(first), Step::Drip(evil.into(), Duration::from_millis(2)), Step::Hang]
            };
            upstream.answer(Reply::raw(steps));
            let answer = text(within(client.send(get(upstream.url() + "/"))).await.unwrap()).await;
            assert!(answer.is_empty() || answer == "ok", "{answer}");
            if !at_once {
                // The connection is in the pool when the stray bytes arrive.
                within(upstream.until_disconnected()).await;
            }
            for _ in 0..2 {
                let response = within(client.send(get(upstream.url() + "/next"))).await.unwrap();
                assert_eq!(text(response).await, "upstream", "after {first:?}");
            }
            let connections: Vec<_> = upstream.requests().iter().map(|seen| seen.connection).collect();
            assert_eq!(connections, [0, 1, 1], "after {first:?}");
        }
    }
}
