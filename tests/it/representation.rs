//! A representation of a response that cannot be searched for secrets is neither asked for nor forwarded.

use http::Method;
use serde_json::Value;

use crate::support::{Pixy, Reply, Seen, TokenEndpoint, Upstream};

fn token(seen: &Seen) -> &str {
    seen.header("authorization")[0].strip_prefix("Bearer ").unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Reflects the token in the representation that the request asks for.
fn reflect(seen: &Seen) -> Reply {
    let text = format!("you are {}!", token(seen));
    let asks = |name: &str| seen.header(name).first().map(|value| value.to_ascii_lowercase());
    let wide = [asks("accept-charset"), asks("accept")].into_iter().flatten().any(|value| value.contains("utf-16"));
    if let Some(range) = asks("range") {
        let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        return Reply::new(206).body(text[from.min(text.len())..=to.min(text.len() - 1)].to_owned());
    }
    if wide {
        return Reply::new(200).header("content-type", "text/plain").body(utf16(&text)); // undeclared
    }
    if asks("a-im").is_some() {
        return Reply::new(226).header("im", "diffe").body(format!("8a\n{}", &text[8..20]));
    }
    for (name, answer) in
        [("want-digest", "digest"), ("want-content-digest", "content-digest"), ("want-repr-digest", "repr-digest")]
    {
        if asks(name).is_some() {
            return Reply::new(200).header(answer, "sha-256=:of-the-token:").body(text);
        }
    }
    if asks("grpc-accept-encoding").is_some() {
        return Reply::new(200).header("grpc-encoding", "gzip").body("compressed");
    }
    Reply::new(200).body(text)
}

fn get(fields: &str) -> String {
    format!("GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n{fields}Connection: close\r\n\r\n")
}

#[tokio::test]
async fn attack_87_the_agent_chooses_no_representation() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::answering(reflect).await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    let usual = pixy.send(&get("")).await.text();
    assert!(usual.starts_with("you are [pixy:redacted]") && usual.ends_with("*!"), "{usual}");
    for fields in [
        "Range: bytes=8-19\r\n",
        "range_: bytes=8-19\r\n",
        "Range: bytes=8-19\r\nIf-Range: \"x\"\r\n",
        "Request-Range: bytes=8-19\r\n",
        "Accept-Charset: utf-16le\r\n",
        "Accept_Charset: utf-16le\r\n",
        "Accept: text/plain; charset=utf-16le\r\n",
        "Accept: */*, text/plain;q=1;Charset=\"utf-16le\"\r\n",
        "A-IM: diffe\r\n",
        "Want-Digest: sha-256\r\n",
        "Want-Content-Digest: sha-256=1\r\n",
        "Want-Repr-Digest: sha-256=1\r\n",
        "grpc-accept-encoding: gzip\r\ngrpc-encoding: gzip\r\n",
        "TE: trailers, gzip\r\n",
        "Accept-Encoding: gzip\r\n",
    ] {
        let response = pixy.send(&get(fields)).await;
        assert_eq!((response.status, response.text()), (200, usual.clone()), "{fields}");
        assert!(response.headers.iter().all(|(name, _)| !name.contains("digest")), "{fields}");
    }
}

#[tokio::test]
async fn attack_87_what_cannot_be_searched_is_not_forwarded() {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    pixy.send(&get("")).await;
    let requests = upstream.requests();
    let token = token(&requests[0]);
    let part = &token[..12];
    let refused = [
        Reply::new(206).header("content-range", "bytes 0-11/40").body(part.to_owned()),
        Reply::new(226).header("im", "diffe").body(part.to_owned()),
        Reply::new(200)
            .header("content-type", "multipart/byteranges; boundary=x")
            .body(format!("--x\r\n\r\n{part}\r\n--x--")),
        Reply::new(206)
            .header("content-type", "multipart/byteranges; boundary=x")
            .body(format!("--x\r\n\r\n{part}\r\n--x--")),
        Reply::new(200).header("content-type", "text/plain; charset=UTF-16LE").body(utf16(token)),
        Reply::new(500).header("content-type", "text/html;charset=\"utf-16\"").body(utf16(token)),
        Reply::new(200).header("content-type", "text/plain; charset=ibm037").body("x"),
        Reply::new(200).header("content-type", "application/grpc").header("grpc-encoding", "gzip").body("x"),
    ];
    for (number, reply) in refused.into_iter().enumerate() {
        upstream.answer(reply);
        let response = pixy.send(&get("")).await;
        let code = response.header("x-pixy-error");
        assert_eq!((response.status, code), (502, vec!["upstream_representation"]), "reply {number}");
        let text = response.text();
        assert!(text.contains("cannot search for secrets") && !text.contains(part), "reply {number}: {text}");
        assert_eq!(response.header("x-should-retry"), ["false"]);
    }
    for reply in [
        Reply::new(200).header("content-type", "text/event-stream; charset=utf-8").body("data: 1\n\n"),
        Reply::new(200).header("content-type", "text/html; charset=iso-8859-1").body("fine"),
        Reply::new(206), // without a body
    ] {
        upstream.answer(reply);
        let response = pixy.send(&get("")).await;
        assert!(response.header("x-pixy-error").is_empty(), "{}", response.text());
    }
    assert_eq!(pixy.api(Method::GET, "/api/accounts/a/dropped", Value::Null).await.0, 200);
}
