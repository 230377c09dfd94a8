//! What an agent receives does not depend on the token, only on its shape: its length, and whether each character is a letter, a digit
//! or which other one it is.
//!
//! The same conversation is held twice with two tokens of one shape, which the upstream sends back in every encoding that is searched
//! for. Everything from the upstream's bytes to the agent's runs in this process, over hyper, with paused time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use super::agent::{AgentGrant, Agents};
use super::forward;
use super::request_id::RequestId;
use super::response_body::ResponseBody;
use super::response_scrub::ResponseScrub;
use super::strip::Stripped;
use super::websocket_relay;
use crate::account::UsageMeter;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::scrub::SecretPatterns;
use crate::scrub::encodings::encodings;
use crate::secret::Secret;
use crate::server::ConnectionLimit;
use crate::upstream::Incoming;

/// How an upstream writes its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Server-sent events of Anthropic and OpenAI: a line for each part.
    Events,
    /// Lines of JSON.
    Lines,
    /// One JSON document, or Google's array.
    Document,
    /// Text without any structure.
    Plain,
    /// An error page.
    Page,
    /// Frames of a WebSocket, each a JSON text.
    Frames,
}

/// One part of the upstream's text.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// The token, in the form with this number.
    Token(usize),
}

/// A conversation, without the token.
#[derive(Debug, Clone)]
struct Script {
    dialect: Dialect,
    status: u16,
    /// With `Content-Length`, else chunked.
    has_length: bool,
    /// The connection to the upstream is HTTP/1.1, else another task has to run before more of a body can be read.
    ready_when_polled: bool,
    parts: Vec<Part>,
    /// The forms of the token in a field's value and in one's name.
    fields: (usize, usize),
    /// The sizes of what the upstream sends at once, and the pauses before, in milliseconds.
    sends: Vec<(usize, u64)>,
}

/// What an agent reads at once, and when.
type Received = Vec<(Duration, Vec<u8>)>;

/// A class of characters of a token.
#[derive(Debug, Clone, Copy)]
enum Class {
    Lower,
    Upper,
    Digit,
    Other(u8),
}

/// The token in every form: each pattern that is searched for, and base64 with text around it.
fn forms(token: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = encodings(token).iter().map(|encoded| encoded.to_vec()).collect();
    for engine in [STANDARD, URL_SAFE] {
        for before in ["", "B", "Be", "Bearer "] {
            for behind in ["", ",", "\",", "\"}}"] {
                all.push(engine.encode([before, token, behind].concat()).into_bytes());
            }
        }
    }
    all
}

/// The token in a form that a field's name may have, whatever its letters and digits are.
fn name_form(token: &str, number: usize) -> String {
    let is_name = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    match number % 3 {
        0 if is_name => token.to_owned(),
        1 => URL_SAFE_NO_PAD.encode(format!("Bearer {token}")),
        _ => token.bytes().flat_map(|byte| format!("{byte:02X}").into_bytes()).map(char::from).collect(),
    }
}

/// The bytes of the upstream's response, or of its frames.
fn upstream_bytes(script: &Script, token: &str) -> Vec<u8> {
    let forms = forms(token);
    let form = |number: usize| &forms[number % forms.len()];
    let (before, behind): (&[u8], &[u8]) = match script.dialect {
        Dialect::Events => (b"event: content_block_delta\ndata: {\"delta\":{\"text\":\"", b"\"}}\n\n"),
        Dialect::Lines => (b"{\"message\":{\"content\":\"", b"\"},\"done\":false}\n"),
        Dialect::Document => (b"[{\"candidates\":[{\"text\":\"", b"\"}]}]"),
        Dialect::Plain => (b"", b""),
        Dialect::Page => (b"<pre>authorization: Bearer ", b"</pre>"),
        Dialect::Frames => (b"{\"type\":\"response.output_text.delta\",\"delta\":\"", b"\"}"),
    };
    let mut body = Vec::new();
    for part in &script.parts {
        let text = match part {
            Part::Text(text) => text.as_bytes(),
            Part::Token(number) => form(*number),
        };
        let message = [before, text, behind].concat();
        if script.dialect == Dialect::Frames {
            body.extend_from_slice(&[0x81, 126]);
            body.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        }
        body.extend_from_slice(&message);
    }
    if script.dialect == Dialect::Frames {
        return body;
    }
    let (value, name) = (String::from_utf8_lossy(form(script.fields.0)), name_form(token, script.fields.1));
    let head = format!(
        "HTTP/1.1 {} x\r\nx-first: 1\r\nx-echo: auth={value}; ok\r\nx-{name}: 1\r\nx-last: 1\r\ncontent-type: text/plain\r\n",
        script.status
    );
    if script.has_length {
        return [head.as_bytes(), format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    }
    let mut out = [head.as_bytes(), b"transfer-encoding: chunked\r\n\r\n"].concat();
    // The upstream's own chunks have nothing to do with what it sends at once.
    for chunk in body.chunks(97) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    [&out[..], b"0\r\n\r\n"].concat()
}

/// Waits for the request, sends the bytes in the pieces of the script, then closes.
async fn send(mut stream: DuplexStream, script: Script, bytes: Vec<u8>) {
    if script.dialect != Dialect::Frames {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    }
    let mut left = &bytes[..];
    for (size, pause) in script.sends.iter().cycle() {
        let (piece, rest) = left.split_at((*size).min(left.len()));
        sleep(Duration::from_millis(*pause)).await;
        if stream.write_all(piece).await.is_err() || rest.is_empty() {
            return;
        }
        left = rest;
    }
}

async fn receive(mut stream: DuplexStream) -> Received {
    let (begin, mut received) = (Instant::now(), Vec::new());
    loop {
        let mut piece = vec![0; 64 * 1024];
        match stream.read(&mut piece).await {
            Ok(length @ 1..) => received.push((begin.elapsed(), piece[..length].to_vec())),
            _ => return received,
        }
    }
}

fn scrub(token: &str) -> ResponseScrub {
    let patterns = Arc::new(SecretPatterns::new([&Secret::new(token.to_owned())]));
    ResponseScrub::new(RequestId::next(), &patterns, &AccountName::parse("a").unwrap(), &Arc::new(Metrics::new()))
}

fn grant() -> AgentGrant {
    let agents = Agents::new(Vec::new(), Clock::default(), ConnectionLimit::new(1));
    agents.authorize(&Stripped::of_nothing(), &AccountName::parse("a").unwrap()).unwrap()
}

/// Sends a request to the upstream and makes the response for the agent, as `Proxy::pass` does.
async fn answer(upstream: DuplexStream, script: &Script, token: &str) -> Response<ResponseBody> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let response = response.map(|body| Incoming::for_tests(body, script.ready_when_polled));
    let mut scrub = scrub(token);
    let response = forward::receive(response, &mut scrub).unwrap();
    let open = Metrics::new().count_open_stream();
    let idle_timeout = Duration::from_hours(1);
    response.map(|body| ResponseBody::streaming(body, idle_timeout, grant(), scrub, UsageMeter::for_tests(), open))
}

/// Everything that an agent receives in this conversation.
fn conversation(script: &Script, token: &str) -> Received {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (upstream, far) = duplex(1 << 20);
        let (near, agent) = duplex(1 << 20);
        let sending = send(far, script.clone(), upstream_bytes(script, token));
        if script.dialect == Dialect::Frames {
            tokio::spawn(sending);
            tokio::spawn(websocket_relay::forward_frames(upstream, near, scrub(token)));
            return receive(agent).await;
        }
        let (script, token) = (script.clone(), token.to_owned());
        let upstream = std::sync::Mutex::new(Some((upstream, sending)));
        let service = service_fn(move |_| {
            let (upstream, sending) = upstream.lock().unwrap().take().expect("there is one request");
            tokio::spawn(sending);
            let (script, token) = (script.clone(), token.clone());
            async move { Ok::<_, Infallible>(answer(upstream, &script, &token).await) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.auto_date_header(false).serve_connection(TokioIo::new(near), service));
        let mut agent = agent;
        agent.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        receive(agent).await
    })
}

fn a_dialect() -> impl Strategy<Value = Dialect> {
    use Dialect::{Document, Events, Frames, Lines, Page, Plain};
    prop::sample::select(vec![Events, Lines, Document, Plain, Page, Frames])
}

fn a_script() -> impl Strategy<Value = Script> {
    let part = prop_oneof![
        1 => "[ -~\n]{0,30}".prop_map(Part::Text),
        2 => (0..1000_usize).prop_map(Part::Token),
    ];
    let send = (1..120_usize, prop_oneof![3 => Just(0), 1 => 0..5_u64]);
    (
        a_dialect(),
        prop::sample::select(vec![200, 400, 401, 500]),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(part, 1..12),
        (0..1000_usize, 0..1000_usize),
        prop::collection::vec(send, 1..20),
    )
        .prop_map(|(dialect, status, has_length, ready_when_polled, parts, fields, sends)| Script {
            dialect,
            status,
            has_length,
            ready_when_polled,
            parts,
            fields,
            sends,
        })
}

/// Two tokens of one shape.
fn two_tokens() -> impl Strategy<Value = (String, String)> {
    let class = prop_oneof![
        4 => Just(Class::Lower),
        4 => Just(Class::Upper),
        3 => Just(Class::Digit),
        1 => prop::sample::select(b"-._~+/=".to_vec()).prop_map(Class::Other),
        1 => prop::sample::select(b"-_.!\"'&<>*:$,\\@".to_vec()).prop_map(Class::Other),
    ];
    prop::collection::vec((class, any::<u8>(), any::<u8>()), 16..70).prop_map(|characters| {
        let of = |class: Class, seed: u8| match class {
            Class::Lower => char::from(b'a' + seed % 26),
            Class::Upper => char::from(b'A' + seed % 26),
            Class::Digit => char::from(b'0' + seed % 10),
            Class::Other(byte) => char::from(byte),
        };
        let one = characters.iter().map(|(class, seed, _)| of(*class, *seed)).collect();
        let other = characters.iter().map(|(class, _, seed)| of(*class, *seed)).collect();
        (one, other)
    })
}

fn shown(received: &Received) -> Vec<(Duration, String)> {
    received.iter().map(|(at, bytes)| (*at, String::from_utf8_lossy(bytes).into_owned())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn attack_88_two_tokens_of_one_shape_look_the_same(script in a_script(), (one, other) in two_tokens()) {
        let (first, second) = (conversation(&script, &one), conversation(&script, &other));
        prop_assert!(!first.is_empty());
        prop_assert_eq!(shown(&first), shown(&second), "{} {}", one, other);
    }
}

#[test]
fn attack_88_the_comparison_sees_a_difference() {
    let parts = vec![Part::Text("it is ".to_owned()), Part::Token(0)];
    let sends = vec![(40, 1)];
    let script = Script {
        dialect: Dialect::Plain,
        status: 200,
        has_length: false,
        ready_when_polled: true,
        parts,
        fields: (0, 0),
        sends,
    };
    let text = |token: &str| {
        String::from_utf8(conversation(&script, token).into_iter().flat_map(|(_, bytes)| bytes).collect()).unwrap()
    };
    let (one, longer) = ("sk-0123456789abcdefghij", "sk-0123456789abcdefghijk");
    assert_ne!(text(one), text(longer), "another length is another shape");
    let got = text(one);
    assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("x-first: 1\r\nx-echo: auth=[pixy:redacted]"), "{got}");
    assert!(got.contains("it is ") && got.ends_with("0\r\n\r\n") && !got.contains("0123456789"), "{got}");
}
