//! Responses that are malformed, ambiguous or cut: an agent sees an error, and never a response that looks complete.

use crate::support::{Pixy, RawClient, RawResponse, Reply, Step, TokenEndpoint, Upstream};

pub(super) const GET: &str = "GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

async fn linked() -> (Pixy, TokenEndpoint, Upstream) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let pixy = Pixy::linked(&endpoint, &upstream).await;
    (pixy, endpoint, upstream)
}

/// Checks a refusal in the error shape of the account's SDK, after which the connection can be used again.
pub(super) fn assert_is_refusal(response: &RawResponse, case: &str) {
    let found = (response.status, response.complete, response.header("x-pixy-error"));
    assert_eq!(found, (502, true, vec!["upstream_unreachable"]), "{case}");
    assert_eq!(response.json()["type"], "error", "{case}: {}", response.text());
}

/// Checks that the agent saw the head and at most `body`, and then the end of the connection instead of the end of the response.
pub(super) async fn assert_is_cut(mut agent: RawClient, body: &str, case: &str) {
    let response = agent.response().await.unwrap_or_else(|| panic!("no head: {case}"));
    assert_eq!((response.status, response.complete), (200, false), "{case}: {}", response.text());
    assert!(body.as_bytes().starts_with(&response.body), "{case}: {}", response.text());
    assert!(agent.until_closed().await, "{case}");
}

/// A character is a byte (ISO 8859-1), if it is one.
fn bytes(text: &str) -> Vec<u8> {
    let bytes = |c: char| u8::try_from(c).map_or_else(|_| c.to_string().into_bytes(), |byte| vec![byte]);
    text.chars().flat_map(bytes).collect()
}

/// Heads that have two readings, or none.
const HEADS: &[&str] = &[
    // Bare line feeds and carriage returns.
    "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello",
    "HTTP/1.1 200 OK\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\n\r\nhello",
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\nhello",
    "HTTP/1.1 200 OK\r\nx: a\nb: c\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 O\rK\r\ncontent-length: 5\r\n\r\nhello",
    "\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    // An interim response is read as strictly.
    "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 103 Early Hints\r\ncontent-length: 40\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 102 Processing\r\nx : y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 103\r\n\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    // A response without a body that announces one.
    "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    // It ends within its head.
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 5",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "",
];

/// Status lines that are none.
const STATUS_LINES: &[&str] = &[
    "",
    "HTTP/1.1",
    "HTTP/1.1 ",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 20x OK",
    "HTTP/1.1 099 OK",
    "HTTP/1.1 +20 OK",
    "HTTP/1.1  200 OK",
    "HTTP/1.1\t200 OK",
    "HTTP/1.1 200\tOK",
    " HTTP/1.1 200 OK",
    "http/1.1 200 OK",
    "HTTP/2 200 OK",
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "HTTP/0.9 200 OK",
    "HTTP/11 200 OK",
    "HTTP/1.10 200 OK",
    "ICY 200 OK",
    "200 OK",
    "HTTP/1.1 200 O\0K",
    "HTTP/1.1 200 O\u{7f}K",
    "HTTP/1.1 200OK",
];

/// What is no field, and what makes the framing of a sized body ambiguous.
const FIELDS: &[&str] = &[
    // Folded lines, spaces around names, and what is no field.
    "x: a\r\n b",
    "x: a\r\n\tb",
    " x: a",
    "\tx: a",
    "x : a",
    "x\t: a",
    "x a: b",
    ": a",
    "x",
    "x a",
    "x\0: a",
    "x\u{e9}: a",
    "(x): a",
    "x: a\0b",
    "x: a\u{1}b",
    "x: a\u{7f}b",
    "x: a\u{b}b",
    // Two lengths, or a length that is no number.
    "content-length: 5",
    "content-length: 6",
    "Content-Length: 0",
    "content-length : 5",
    "content-length\t: 5",
    "transfer-encoding: chunked",
    "transfer-encoding: identity",
    "transfer-encoding:",
    "Transfer-Encoding: xchunked",
    "transfer-encoding : chunked",
];

/// Lengths that are none.
const LENGTHS: &[&str] = &[
    "+5",
    "-5",
    "0x5",
    "5,5",
    "5, 5",
    "5,6",
    "5;",
    "5.0",
    "",
    "5 5",
    "18446744073709551616",
    "five",
    "5a",
    "'5'",
    "\"5\"",
    "5e0",
    "1_0",
    "\u{665}",
    ",5",
    "5,",
    "5\u{b2}",
];

/// Codings that are refused.
const CODINGS: &[&str] = &[
    "xchunked",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "chunked;q=1",
    "\"chunked\"",
    "chunked ,",
    ", chunked",
    "chunked;",
    "chunked identity",
    "identity, chunked",
    "chunked\u{a0}",
    "identity",
    "",
    "gzip",
    "chunked\r\ntransfer-encoding: chunked",
    "chunked\r\ntransfer-encoding: identity",
    "chunked\r\n ",
];

fn malformed_heads() -> Vec<String> {
    let mut all: Vec<String> = HEADS.iter().map(|head| (*head).to_owned()).collect();
    all.extend(STATUS_LINES.iter().map(|line| format!("{line}\r\ncontent-length: 5\r\n\r\nhello")));
    all.extend(FIELDS.iter().map(|field| format!("HTTP/1.1 200 OK\r\n{field}\r\ncontent-length: 5\r\n\r\nhello")));
    all.extend(FIELDS.iter().map(|field| format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{field}\r\n\r\nhello")));
    all.extend(LENGTHS.iter().map(|length| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nhello")));
    all.extend(
        CODINGS
            .iter()
            .map(|coding| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
    );
    all.push(format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 5\r\n\r\nhello", "a".repeat(66_000)));
    all.push(format!("HTTP/1.1 200 OK\r\n{}content-length: 5\r\n\r\nhello", "x: a\r\n".repeat(101)));
    all
}

/// Bodies whose framing is malformed, or that end early, each with what may pass of it.
fn malformed_bodies() -> Vec<(String, &'static str)> {
    let mut all = vec![
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello".to_owned(), "hello"),
        ("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello".to_owned(), "hello"),
        (format!("{CHUNKED}5\r\nhello\r\n"), "hello"),
        (format!("{CHUNKED}5\r\nhello\r\n0\r\n"), "hello"),
        (format!("{CHUNKED}5\r\nhello\r\n0\r\nx: y\r\n"), "hello"),
        (format!("{CHUNKED}a\r\nhello"), "hello"),
        (format!("{CHUNKED}5\r\nhell\r\n0\r\n\r\n"), "hell\r"),
        (CHUNKED.to_owned(), ""),
    ];
    let extension = format!("5;{}", "a".repeat(257));
    let sizes = [
        "5 ",
        " 5",
        "5\t",
        "\t5",
        "5 ;a",
        "0x5",
        "+5",
        "-5",
        "5,",
        "5.0",
        "",
        "g",
        "5;\"",
        "5;a=\"b\"",
        "5;a=\"\r\n\"",
        "5;a\0",
        "5;a\u{7f}",
        "5;a\u{e9}",
        "5;a\nb",
        "00000000000000005",
        "10000000000000000",
        "ffffffffffffffffff",
        "5\n",
        "5\r",
        "5;a\n",
        "\u{665}",
        &extension,
    ];
    all.extend(sizes.iter().map(|size| (format!("{CHUNKED}{size}\r\nhello\r\n0\r\n\r\n"), "hello")));
    all.extend(sizes.iter().map(|size| (format!("{CHUNKED}5\r\nhello\r\n{size}\r\nhello\r\n0\r\n\r\n"), "hellohello")));
    let ends = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0 \r\n\r\n",
        "5\r\nhello\r\n0\r\n \r\n",
        "5\r\nhello\r\n0\r\nx\r\n\r\n",
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n x: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: \0\r\n\r\n",
        "5\r\nhello\r\n0\r\n: y\r\n\r\n",
    ];
    all.extend(ends.iter().map(|end| (format!("{CHUNKED}{end}"), "hello")));
    all.push((format!("{CHUNKED}5\r\nhello\r\n0\r\n{}\r\n", "x: y\r\n".repeat(101)), "hello"));
    all
}

#[tokio::test]
async fn attack_97_a_malformed_head_is_a_502() {
    let (pixy, _endpoint, upstream) = linked().await;
    let cases = malformed_heads();
    assert!(cases.len() >= 130, "{}", cases.len());
    for raw in cases {
        upstream.answer(Reply::bytes(bytes(&raw)));
        let mut agent = RawClient::connect(pixy.agents()).await;
        agent.send(GET).await;
        assert_is_refusal(&agent.response().await.unwrap_or_else(|| panic!("no answer: {raw:?}")), &format!("{raw:?}"));
        upstream.answer(Reply::bytes(FINE));
        agent.send(GET).await;
        let next = agent.response().await.map(|next| next.text());
        assert_eq!(next.as_deref(), Some("hello"), "the next request after {raw:?}");
        assert!(upstream.requests().windows(2).all(|two| two[0].connection != two[1].connection), "{raw:?}");
    }
}

#[tokio::test]
async fn attack_97_a_malformed_or_cut_body_is_a_broken_stream() {
    let (pixy, _endpoint, upstream) = linked().await;
    let cases = malformed_bodies();
    assert!(cases.len() >= 75, "{}", cases.len());
    for (raw, body) in cases {
        upstream.answer(Reply::bytes(bytes(&raw)));
        let mut agent = RawClient::connect(pixy.agents()).await;
        agent.send(GET).await;
        assert_is_cut(agent, body, &format!("{raw:?}")).await;
    }
    upstream.answer(Reply::raw([Step::send(format!("{CHUNKED}5\r\nhello\r\n")), Step::Reset]));
    let mut agent = RawClient::connect(pixy.agents()).await;
    agent.send(GET).await;
    assert_is_cut(agent, "hello", "a reset").await;
}

#[tokio::test]
async fn what_real_servers_send_passes() {
    let (pixy, _endpoint, upstream) = linked().await;
    let bodies = [
        "HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 Tr\u{e8}s bien\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length:5\r\nx:\r\ny: \t \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nCONTENT-LENGTH: \t5 \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 0005\r\nx-caf\u{65}: caf\u{e9}\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n05\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n00000005;a=b\r\nhello\r\n000\r\nx: y\r\nServer-Timing:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ];
    for raw in bodies {
        upstream.answer(Reply::bytes(bytes(raw)));
        let response = pixy.get("/a/v1/models").await;
        let found = (response.status, response.complete, response.text());
        assert_eq!(found, (200, true, "hello".to_owned()), "{raw:?}");
    }
    for raw in [
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 529\r\ncontent-length: 0\r\n\r\n",
    ] {
        upstream.answer(Reply::bytes(raw));
        let response = pixy.get("/a/v1/models").await;
        assert_eq!((response.status.to_string(), response.body.len()), (raw[9..12].to_owned(), 0), "{raw:?}");
    }
}
