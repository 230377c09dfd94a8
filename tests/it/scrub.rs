//! Scrubbing: secrets that an upstream sends back are replaced; everything else is forwarded unchanged and without delay.

mod bomb;
pub(crate) mod log;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};

use crate::support::{
    Authority, Pixy, Protocols, RawClient, Reply, Scratch, Seen, TokenEndpoint, Upstream, oauth_account, within,
};

/// A linked account `a`, and an upstream with this handler.
async fn linked(handler: impl FnMut(&Seen) -> Reply + Send + 'static) -> (Pixy, TokenEndpoint, Upstream) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::answering(handler).await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    (pixy, endpoint, upstream)
}

/// Triggers the one refresh that a 401 may cause within 30 s, so that later 401s are forwarded.
async fn refused_once(pixy: &Pixy, upstream: &Upstream) {
    upstream.answer(Reply::new(401));
    within(pixy.get("/a/v1/models")).await;
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n")
}

/// The token of a request.
fn token(seen: &Seen) -> String {
    seen.header("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned()
}

/// All bytes that an agent receives on its connection.
async fn on_the_wire(pixy: &Pixy, request: &str) -> String {
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(request).await;
    String::from_utf8_lossy(&agent.rest().await).into_owned()
}

async fn redactions(pixy: &Pixy) -> u64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let metrics = RawClient::once(pixy.ops(), request).await.unwrap().text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("pixy_redactions_total{account=\"a\"} "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn attack_45_a_reflected_token_is_replaced_everywhere() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    refused_once(&pixy, &upstream).await;
    let token = token(&upstream.requests()[1]);
    let page = format!("<h1>Error</h1><pre>authorization: Bearer {token}</pre>");
    let replies = [
        ("JSON", 1, Reply::json(200, &json!({ "headers": { "authorization": format!("Bearer {token}") } }))),
        ("an error page", 1, Reply::new(500).header("content-type", "text/html").body(page)),
        ("a header", 1, Reply::new(200).header("x-debug", &format!("auth=Bearer {token}; ok")).body("fine")),
        ("headers of one name", 2, Reply::new(400).header("x-debug", &token).header("x-debug", &token)),
        ("a header's name", 1, Reply::new(200).header(&format!("x-{token}"), "1").body("fine")),
        ("401", 1, Reply::new(401).body(format!("no such token: {token}{token}"))),
        ("the reason phrase", 0, Reply::bytes(format!("HTTP/1.1 200 {token}\r\ncontent-length: 4\r\n\r\nfine"))),
        (
            "a trailer",
            0,
            Reply::bytes(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-auth\r\n\r\n4\r\nfine\r\n0\r\nx-auth: {token}\r\n\r\n"
            )),
        ),
        (
            "an interim answer",
            0,
            Reply::bytes(format!(
                "HTTP/1.1 103 {token}\r\nlink: <{token}>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"
            )),
        ),
        (
            "a chunk's extension",
            0,
            Reply::bytes(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;auth={token}\r\nfine\r\n0\r\n\r\n"
            )),
        ),
    ];
    for (place, least, reply) in replies {
        let before = redactions(&pixy).await;
        upstream.answer(reply);
        let got = on_the_wire(&pixy, &get("/a/v1/models")).await;
        assert!(got.starts_with("HTTP/1.1 ") && !got.contains(&token), "{place}: {got}");
        let replaced = format!("[pixy:redacted]{}", "*".repeat(token.len() - "[pixy:redacted]".len()));
        assert_eq!(got.contains(&replaced), least > 0 && place != "a header's name", "{place}: {got}");
        assert!(redactions(&pixy).await >= before + least, "{place}");
        assert!(least > 0 || got.contains("fine"), "{place}: {got}");
    }
}

#[tokio::test]
async fn attack_45_scrubbing_preserves_the_length() {
    let body = |token: &str| json!({ "echo": format!("Bearer {token}"), "more": "x".repeat(100_000) }).to_string();
    let (pixy, _endpoint, upstream) = linked(move |seen| Reply::new(200).body(body(&token(seen)))).await;
    let response = pixy.get("/a/v1/models").await;
    let sent = body(&token(&upstream.requests()[0]));
    assert_eq!(response.header("content-length"), [sent.len().to_string()]);
    assert_eq!((response.complete, response.body.len()), (true, sent.len()));
    assert!(response.json()["echo"].as_str().unwrap().starts_with("Bearer [pixy:redacted]**"), "valid JSON");
    assert_eq!(redactions(&pixy).await, 1);
}

#[tokio::test]
async fn attack_45_a_token_cut_between_chunks_is_replaced() {
    for protocols in [Protocols::Http1, Protocols::Http2] {
        let authority = Authority::new();
        let (endpoint, scratch) = (TokenEndpoint::start().await, Scratch::new());
        let upstream = Upstream::builder().tls(&authority, protocols).start().await;
        let ca = scratch.write("ca.pem", authority.pem());
        let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
        let pixy = Pixy::with(&accounts, &json!({ "upstream": { "extra_ca_file": ca } })).await;
        pixy.link(&endpoint).await;
        assert_eq!(pixy.get("/a/v1/models").await.status, 200);
        let token = token(&upstream.requests()[0]);
        let event = format!("event: echo\ndata: {{\"authorization\":\"Bearer {token}\",\"n\":1}}\n\n");
        let mut found = 0;
        for size in [1, 2, 3, 5, 7, 11, 16, 17, 40, 1000] {
            let (reply, chunks) = Reply::stream(200);
            upstream.answer(reply.header("content-type", "text/event-stream"));
            // A connection buffers a limited number of small DATA frames.
            let times = if size < 5 { 1 } else { 3 };
            let text = event.repeat(times);
            text.as_bytes().chunks(size).for_each(|piece| chunks.send(piece.to_vec()));
            chunks.finish();
            let response = pixy.get("/a/v1/models").await;
            let stars = "*".repeat(token.len() - "[pixy:redacted]".len());
            let expected = text.replace(&token, &format!("[pixy:redacted]{stars}"));
            assert_eq!((response.complete, response.text()), (true, expected), "pieces of {size} over {protocols:?}");
            found += times as u64;
            assert_eq!(redactions(&pixy).await, found);
        }
    }
}

#[tokio::test]
async fn attack_46_encoded_reflections_are_replaced() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    pixy.get("/a/v1/models").await;
    let token = token(&upstream.requests()[0]);
    let written = [
        STANDARD.encode(&token),
        STANDARD.encode(format!("Bearer {token}")),
        STANDARD.encode(format!("user:{token}")),
        URL_SAFE_NO_PAD.encode(json!({ "headers": { "authorization": format!("Bearer {token}") } }).to_string()),
        format!("?authorization=Bearer%20{token}"),
        token.bytes().map(|byte| format!("{byte:02x}")).collect(),
        json!({ "nested": json!({ "authorization": format!("Bearer {token}") }).to_string() }).to_string(),
    ];
    for (count, text) in written.iter().enumerate() {
        upstream.answer(Reply::new(200).header("x-echo", text).body(text.clone()));
        let got = pixy.get("/a/v1/models").await;
        for shown in [got.text(), got.header("x-echo")[0].to_owned()] {
            assert_eq!(shown.len(), text.len());
            assert!(shown.contains("[pixy:redacted]"), "{text}: {shown}");
            let middle = &token[3..token.len() - 3];
            let bytes = STANDARD.decode(shown.replace(|c: char| !c.is_ascii_alphanumeric(), "A")).unwrap_or_default();
            assert!(!shown.contains(middle) && !String::from_utf8_lossy(&bytes).contains(middle), "{shown}");
        }
        assert_eq!(redactions(&pixy).await, 2 * (count as u64 + 1), "one in the header, one in the body");
    }
}

#[tokio::test]
async fn attack_45_previous_tokens_are_replaced_too() {
    let (pixy, endpoint, upstream) = linked(|_| Reply::new(200)).await;
    pixy.get("/a/v1/models").await;
    let old = token(&upstream.requests()[0]);
    pixy.api(Method::POST, "/api/accounts/a/refresh", Value::Null).await;
    let renewed = async {
        loop {
            pixy.get("/a/v1/models").await;
            let now = token(upstream.requests().last().unwrap());
            if now != old {
                return now;
            }
        }
    };
    let new = within(renewed).await;
    let spent = endpoint.calls().last().unwrap().field("refresh_token").to_owned();
    let (family, number) = spent.rsplit_once('-').unwrap();
    let current = format!("{family}-{}", number.parse::<u64>().unwrap() + 1); // as `support::rotation` names them
    assert!(pixy.scratch.files().iter().all(|file| !file.to_string_lossy().contains(&current)));
    for secret in [&old, &new, &spent, &current] {
        upstream.answer(Reply::new(200).body(format!("you are {secret}!")));
        let text = pixy.get("/a/v1/models").await.text();
        assert!(text.starts_with("you are [pixy:redacted]") && text.ends_with("*!"), "{secret}: {text}");
    }
    upstream.answer(Reply::new(200).body("marked-access-99-99"));
    assert_eq!(pixy.get("/a/v1/models").await.text(), "marked-access-99-99", "not a token of this account");
}

#[tokio::test]
async fn only_the_last_word_is_held_back() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    pixy.get("/a/v1/models").await;
    let token = token(&upstream.requests()[0]);
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(get("/a/v1/models")).await;
    let (begin, end) = token.split_at(10);
    // The next piece is not sent yet: what is read did not wait for it.
    for (sent, arrives) in [
        ("data: one\n\n".to_owned(), "B\r\ndata: one\n\n\r\n"),
        ("a remark, a thought!".to_owned(), "14\r\na remark, a thought!\r\n"),
        (format!("it is {begin}"), "6\r\nit is \r\n"),
        (format!("{end}!"), "12\r\n[pixy:redacted]**!\r\n"),
        (format!("it is {begin}"), "6\r\nit is \r\n"),
        ("?".to_owned(), "B\r\nmarked-acc?\r\n"),
        ("it is any".to_owned(), "6\r\nit is \r\n"),
        ("thing else".to_owned(), "9\r\nanything \r\n"),
        (", too.\n".to_owned(), "B\r\nelse, too.\n\r\n"),
    ] {
        chunks.send(sent.clone());
        if arrives.starts_with("B\r\ndata") {
            assert_eq!(agent.head().await.unwrap().status, 200);
        }
        assert_eq!(String::from_utf8_lossy(&agent.bytes(arrives.len()).await), arrives, "{sent}");
    }
    chunks.send(begin.to_owned());
    chunks.finish();
    assert_eq!(
        String::from_utf8_lossy(&agent.rest().await),
        "A\r\nmarked-acc\r\n0\r\n\r\n",
        "forwarded at the end of the body"
    );
}

#[tokio::test]
async fn a_response_that_ends_within_a_secret_reveals_none_of_it() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    pixy.get("/a/v1/models").await;
    let token = token(&upstream.requests()[0]);
    let most = &token[..token.len() - 1];
    let (reply, chunks) = Reply::stream(200);
    upstream.answer(reply);
    chunks.send(format!("it is {most}"));
    drop(chunks); // without a last chunk
    let got = on_the_wire(&pixy, &get("/a/v1/models")).await;
    assert!(got.contains("it is ") && !got.contains(&token[..8]), "{got}");
    assert!(!got.ends_with("0\r\n\r\n"), "it looks complete: {got}");
}

#[tokio::test]
async fn responses_without_a_body_are_forwarded() {
    let endpoint = TokenEndpoint::start().await;
    let upstream = Upstream::answering(|seen| match seen.path() {
        "/v1/models" => Reply::new(200).header("etag", "\"1\"").body("x".repeat(5000)),
        "/v1/models/none" => Reply::new(204),
        "/v1/models/same" => Reply::new(304).header("etag", "\"1\""),
        _ => Reply::new(200).header("content-encoding", "gzip").body("x"),
    })
    .await;
    let mut account = oauth_account(&endpoint, &upstream);
    account["profile"]["api"]["allow"] = json!(["GET /v1/models/*", "HEAD /v1/models", "HEAD /v1/models/*"]);
    let pixy = Pixy::start(&json!({ "a": account })).await;
    pixy.link(&endpoint).await;
    for (method, path, status, length) in [
        ("HEAD", "/a/v1/models", 200, vec!["5000"]),
        ("GET", "/a/v1/models/none", 204, vec![]),
        ("GET", "/a/v1/models/same", 304, vec![]),
        ("HEAD", "/a/v1/models/packed", 200, vec!["1"]),
    ] {
        let mut agent = RawClient::connect(pixy.agents()).await;
        agent.send(format!("{method} {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n")).await;
        let response = agent.response_to(method).await.unwrap();
        assert_eq!((response.status, response.body.len(), response.closed), (status, 0, true), "{method} {path}");
        assert_eq!(response.header("content-length"), length, "{method} {path}");
    }
}

#[tokio::test]
async fn attack_46_encoded_responses_are_refused() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    for (fields, status) in [
        (vec![("content-encoding", "gzip")], 502),
        (vec![("content-encoding", "br")], 502),
        (vec![("Content-Encoding", "GZip")], 502),
        (vec![("content-encoding", "identity, zstd")], 502),
        (vec![("content-encoding", "identity"), ("content-encoding", "deflate")], 502),
        (vec![("content-encoding", "\u{fc}")], 502),
        (vec![("content-encoding", "identity")], 200),
        (vec![("content-encoding", "")], 200),
    ] {
        let reply = Reply::new(200).body("packed");
        upstream.answer(fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value)));
        let response = pixy.get("/a/v1/models").await;
        assert_eq!(response.status, status, "{fields:?}");
        assert_eq!(response.text() == "packed", status == 200, "{fields:?}");
    }
    // A transfer coding (RFC 9112 §7) would not even be labelled.
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n6\r\npacked\r\n0\r\n\r\n";
    upstream.answer(Reply::bytes(chunked));
    assert_eq!(pixy.get("/a/v1/models").await.status, 502);
    upstream.answer(Reply::new(200).header("content-encoding", "gzip").body("packed"));
    let response = pixy.get("/a/v1/models").await;
    assert_eq!((response.status, response.header("x-pixy-error")), (502, vec!["upstream_encoded"]));
    assert_eq!(response.header("x-should-retry"), ["false"], "a retry cannot succeed");
    let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Pixy: the provider of account \"a\" compressed its response"), "{message}");
    assert!(upstream.requests().iter().all(|seen| seen.header("accept-encoding") == ["identity"]));
}

#[tokio::test]
async fn attack_42_nothing_is_decompressed_in_either_direction() {
    let bomb = bomb::gzip_of_zeros(100 << 20);
    assert!(bomb.len() < 700 << 10, "{} bytes", bomb.len());
    let packed = bomb.clone();
    let (pixy, _endpoint, upstream) =
        linked(move |_| Reply::new(200).header("content-type", "application/gzip").body(packed.clone())).await;
    let mut request = format!(
        "POST /a/v1/messages HTTP/1.1\r\nHost: pixy\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bomb.len()
    )
    .into_bytes();
    request.extend_from_slice(&bomb);
    let response = RawClient::once(pixy.agents(), &request).await.unwrap();
    assert_eq!((response.status, response.body == bomb), (200, true), "forwarded unchanged");
    let requests = upstream.requests();
    assert!(requests[0].body == bomb && requests[0].header("content-encoding") == ["gzip"], "as it was sent");
    upstream.answer(Reply::new(200).header("content-encoding", "gzip").body(bomb));
    let response = pixy.get("/a/v1/models").await;
    assert_eq!((response.status, response.header("x-pixy-error")), (502, vec!["upstream_encoded"]));
    assert!(response.body.len() < 1000);
}

#[tokio::test]
async fn attack_21_to_23_fields_that_affect_the_client_are_dropped() {
    let (pixy, _endpoint, upstream) = linked(|_| Reply::new(200)).await;
    let dropped = [
        ("location", "https://evil.example/"),
        ("content-location", "https://evil.example/v1/models"),
        ("refresh", "0;url=https://evil.example/"),
        ("link", "<https://evil.example/x.js>; rel=preload"),
        ("alt-svc", "h2=\"evil.example:443\""),
        ("set-cookie", "a=b"),
        ("set-cookie2", "a=b"),
        ("clear-site-data", "\"*\""),
        ("strict-transport-security", "max-age=1"),
        ("public-key-pins", "pin-sha256=\"x\""),
        ("service-worker-allowed", "/"),
        ("nel", "{}"),
        ("report-to", "{}"),
        ("reporting-endpoints", "a=\"https://evil.example/\""),
        ("timing-allow-origin", "*"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("www-authenticate", "Bearer resource_metadata=\"https://evil.example/\""),
        ("proxy-authenticate", "Basic"),
        ("proxy-status", "evil"),
        ("authentication-info", "nextnonce=\"1\""),
        ("x-accel-redirect", "/etc/passwd"),
        ("x-sendfile", "/etc/passwd"),
        ("x-pixy-error", "not_linked"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "h2c"),
    ];
    let kept = [
        ("content-type", "application/json"),
        ("etag", "\"1\""),
        ("request-id", "req_1"),
        ("retry-after", "7"),
        ("server-timing", "x;dur=1"),
        ("x-should-retry", "true"),
    ];
    refused_once(&pixy, &upstream).await;
    for status in [200, 201, 400, 401] {
        let fields = dropped.iter().chain(&kept);
        upstream.answer(fields.fold(Reply::new(status), |reply, (name, value)| reply.header(name, value)));
        let response = pixy.get("/a/v1/models").await;
        let mut forwarded: Vec<_> = response.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        forwarded.retain(|(name, _)| !["date", "content-length", "connection", "x-pixy-request-id"].contains(name));
        forwarded.sort_unstable();
        let mut expected = kept.to_vec();
        if status == 401 {
            expected.push(("www-authenticate", "Bearer")); // RFC 9110 §15.5.2
        }
        expected.sort_unstable();
        assert_eq!(forwarded, expected, "{status}");
    }
}

#[tokio::test]
async fn a_reflection_is_logged_once_per_response() {
    let log = log::Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber); // all tasks of this test run on its thread
    let (pixy, _endpoint, upstream) = linked(|seen| {
        let token = token(seen);
        Reply::new(200).header("x-echo", &token).body(format!("{token} {token}"))
    })
    .await;
    pixy.get("/a/v1/models").await;
    pixy.get("/a/v1/models").await;
    assert_eq!(redactions(&pixy).await, 6);
    let text = log.text();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 2, "{text}");
    assert!(warnings[0].contains("account=a") && warnings[0].contains("place=\"header\""), "{text}");
    assert!(!text.contains(&token(&upstream.requests()[0])), "{text}");
}
