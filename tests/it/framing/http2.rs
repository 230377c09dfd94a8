//! HTTP/2 with prior knowledge: what passes, what does not, and what floods it.

use serde_json::json;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, block, frame,
};
use super::linked;
use crate::support::{Authority, Pixy, Program, Protocols, Scratch, TokenEndpoint, Upstream, oauth_account, within};

/// `GET` with some fields replaced or added.
fn get<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept =
        GET.into_iter().filter(|(name, _)| !more.iter().any(|(other, _)| name.starts_with(':') && name == other));
    // Pseudo-fields stand first.
    let (mut first, mut rest): (Vec<_>, Vec<_>) = more.iter().copied().partition(|(name, _)| name.starts_with(':'));
    first.retain(|(_, value)| *value != "absent");
    let mut fields: Vec<_> = kept.chain(first).collect();
    fields.append(&mut rest);
    fields
}

#[tokio::test]
async fn requests_over_http_2_arrive_as_those_over_http_1_do() {
    let (pixy, _endpoint, upstream) = linked().await;
    for surface in [pixy.agents(), pixy.ops()] {
        let mut client = Frames::connect(surface, &[]).await;
        client.request(1, &get(&[(":path", "/livez")]), None).await;
        assert_eq!(client.status(1).await.ok(), Some(if surface == pixy.ops() { 200 } else { 404 }));
    }
    let mut client = Frames::connect(pixy.agents(), &[]).await;
    client.request(1, &get(&[("host", "pixy"), ("x-value", "1"), ("te", "trailers"), ("cookie", "a=b")]), None).await;
    assert_eq!(client.status(1).await.ok(), Some(200));
    let post = get(&[(":method", "POST"), (":path", "/a/v1/messages?x=1"), ("content-length", "5")]);
    client.request(3, &post, Some(b"hello")).await;
    assert_eq!(client.status(3).await.ok(), Some(200));
    let seen = upstream.requests();
    assert_eq!((seen[0].target.as_str(), seen[1].target.as_str()), ("/v1/models", "/v1/messages?x=1"));
    assert_eq!(seen[1].body, b"hello");
    let names: Vec<&str> = seen[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-value", "authorization", "accept-encoding", "host"]);
    assert_eq!(seen[0].header("host"), [upstream.address().to_string()]);
}

#[tokio::test]
async fn attack_16_a_request_over_http_2_has_exactly_one_authority() {
    let (pixy, _endpoint, upstream) = linked().await;
    let mut client = Frames::connect(pixy.agents(), &[]).await;
    let cases: [(&[(&str, &str)], u16); 16] = [
        (&[("host", "pixy")], 200),
        (&[(":authority", "absent"), ("host", "pixy")], 200),
        (&[("host", "evil")], 400),
        (&[("host", "PIXY")], 400),
        (&[("host", "pixy"), ("host", "pixy")], 400),
        (&[("host", "")], 400),
        (&[(":authority", "absent")], 400),
        (&[(":authority", "absent"), ("host", "a"), ("host", "b")], 400),
        (&[(":authority", "absent"), ("host", "a/b")], 400),
        (&[(":method", "TRACE")], 405),
        (&[("expect", "much")], 417),
        (&[(":path", "/a/v1/models|x")], 400),
        (&[("x-pixy-refused", "1")], 400),
        (&[("content-length", "0"), ("content-length", "0")], 400),
        (&[(":path", "/a/v1/..%2fadmin")], 400),
        (&[(":method", "FOO")], 405),
    ];
    let mut accepted = 0;
    for (number, (more, status)) in (0_u32..).zip(&cases) {
        let stream = 2 * number + 1;
        client.request(stream, &get(more), None).await;
        assert_eq!(client.status(stream).await, Ok(*status), "{more:?}");
        accepted += usize::from(*status == 200);
        assert_eq!(upstream.requests().len(), accepted, "{more:?}");
    }
}

#[tokio::test]
async fn attack_31_what_is_malformed_over_http_2_is_reset_and_never_forwarded() {
    let (pixy, _endpoint, upstream) = linked().await;
    for more in [
        &[("x-value", "a\r\nb")][..],
        &[("x-value", "a\0b")],
        &[("x-value", "a\nb")],
        &[("x value", "a")],
        &[("x-value\r\nx", "a")],
        &[("X-Value", "a")],
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "close")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("content-length", "5")],
        &[("content-length", "-1")],
        &[(":authority", "a b")],
        &[(":authority", "a\r\nb")],
        &[(":path", "")],
        &[(":path", "/a b")],
        &[(":path", "/a\r\nb")],
        &[(":path", "absent")],
        &[(":method", "absent")],
        &[(":method", "G T")],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
        &[(":scheme", "absent")],
    ] {
        let mut client = Frames::connect(pixy.agents(), &[]).await;
        client.request(1, &get(more), None).await;
        match client.status(1).await {
            Ok(status) => assert!((400..500).contains(&status), "{more:?}: {status}"),
            Err(frame) => assert!([RST_STREAM, GOAWAY].contains(&frame.kind), "{more:?}: {frame:?}"),
        }
    }
    // A body that is not as long as was said, either way.
    for length in ["4", "6"] {
        let mut client = Frames::connect(pixy.agents(), &[]).await;
        let post = get(&[(":method", "POST"), (":path", "/a/v1/messages"), ("content-length", length)]);
        client.request(1, &post, Some(b"hello")).await;
        assert_ne!(client.status(1).await, Ok(200), "{length}");
    }
    assert!(upstream.requests().iter().all(|seen| !seen.complete), "{:?}", upstream.requests());
}

#[tokio::test]
async fn attack_33_no_trailer_passes_whatever_it_says() {
    // Over HTTP/2, where trailers need no leave to be sent.
    let (endpoint, authority) = (TokenEndpoint::start().await, Authority::new());
    let upstream = Upstream::builder().tls(&authority, Protocols::Http2).start().await;
    let scratch = Scratch::new();
    let ca = scratch.write("ca.pem", authority.pem());
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let pixy = Pixy::with(&accounts, &json!({ "upstream": { "extra_ca_file": ca } })).await;
    pixy.link(&endpoint).await;
    let mut client = Frames::connect(pixy.agents(), &[]).await;
    let post = get(&[(":method", "POST"), (":path", "/a/v1/messages"), ("trailer", "authorization")]);
    let trailers = [("authorization", "Bearer evil"), ("host", "evil"), ("content-length", "9"), ("x-api-key", "evil")];
    let bytes = [
        frame(HEADERS, END_HEADERS, 1, &block(&post)),
        frame(DATA, 0, 1, b"hello"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers)),
    ];
    client.0.send(bytes.concat()).await;
    assert_eq!(client.status(1).await, Ok(200));
    let seen = &upstream.requests()[0];
    assert_eq!((seen.complete, seen.body.as_slice(), seen.trailers.len()), (true, &b"hello"[..], 0));
    assert!(!format!("{:?}", seen.headers).contains("evil"));
    // Over HTTP/1 the corpus has more of them.
    let request = "POST /a/v1/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\
                   Connection: close\r\n\r\n5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n";
    assert_eq!(pixy.send(request).await.status, 200);
    let seen = &upstream.requests()[1];
    assert_eq!((seen.complete, seen.body.as_slice(), seen.trailers.len()), (true, &b"hello"[..], 0));
    assert!(!format!("{:?}", seen.headers).contains("evil"));
}

/// Kilobytes: what a process holds, and the most that it held.
fn memory(program: &Program) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

#[tokio::test]
async fn attack_39_floods_end_with_their_connection_others_are_served_and_memory_stays_flat() {
    floods(1).await;
}

#[tokio::test]
async fn floods_end_with_their_connection_also_where_several_threads_serve() {
    floods(4).await;
}

async fn floods(io_threads: u32) {
    let (endpoint, upstream) = (TokenEndpoint::start().await, Upstream::start().await);
    let (scratch, _) = Pixy::linked(&endpoint, &upstream).await.dismantle().await;
    let accounts = json!({ "a": oauth_account(&endpoint, &upstream) });
    let config = scratch.config_with(&accounts, &json!({ "limits": { "io_threads": io_threads } }));
    let program = Program::start(&scratch, &config).await;
    assert_eq!(program.get("/a/v1/models").await.status, 200);

    let request = block(&GET);
    let reset =
        [frame(HEADERS, END_HEADERS | END_STREAM, 1, &request), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
    let numbered = |template: &[u8], stream: u32| {
        let mut bytes = template.to_vec();
        let second = 9 + request.len();
        bytes[5..9].copy_from_slice(&stream.to_be_bytes());
        if bytes.len() > second {
            bytes[second + 5..second + 9].copy_from_slice(&stream.to_be_bytes());
        }
        bytes
    };
    let post = block(&get(&[(":method", "POST"), (":path", "/a/v1/messages")]));
    let remembered = [vec![0x40, 1, b'x', 0x7f, 0x80 + 0x11, 0x1e], vec![b'x'; 127 + 17 + (0x1e << 7)]].concat();
    let bomb = [block(&GET), remembered, vec![0xbe; 16_000 - 4100]].concat();
    // With the word of h2's farewell. What is answered and not read (PING, SETTINGS) holds up itself alone.
    let floods: Vec<(&str, &str, Vec<u8>)> = vec![
        ("rapid reset", "too_many_resets", (0..10_000).flat_map(|number| numbered(&reset, 2 * number + 1)).collect()),
        (
            "CONTINUATION",
            "too_many_continuations",
            [
                frame(HEADERS, END_STREAM, 1, &request),
                frame(CONTINUATION, 0, 1, &block(&[("x", "y")]).repeat(3000)).repeat(2000),
            ]
            .concat(),
        ),
        (
            "empty CONTINUATION",
            "too_many_continuations",
            [frame(HEADERS, END_STREAM, 1, &request), frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat(),
        ),
        (
            "empty DATA",
            "too_many_data_frames",
            [frame(HEADERS, END_HEADERS, 1, &post), frame(DATA, 0, 1, &[]).repeat(500_000)].concat(),
        ),
        ("PING", "", frame(PING, 0, 0, &[0; 8]).repeat(500_000)),
        ("SETTINGS", "", frame(SETTINGS, 0, 0, &[]).repeat(500_000)),
        (
            "HPACK bomb",
            "header_list_way_too_large",
            (0..1000).flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &bomb)).collect(),
        ),
        (
            "streams",
            "too_many_internal_resets",
            (0..10_000).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &post)).collect(),
        ),
    ];
    for (name, word, flood) in floods {
        let (before, _) = memory(&program);
        let mut client = Frames::connect(program.agents(), &[]).await;
        // Sent without ever reading, as a flood is; whether all of it is taken is the program's choice.
        let sending = tokio::spawn(async move {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), client.0.send(flood)).await;
            client
        });
        for _ in 0..5 {
            assert_eq!(within(program.get("/a/v1/models")).await.status, 200, "{name}: others are served");
        }
        let mut client = within(sending).await.unwrap();
        if !word.is_empty() {
            let farewell = client.0.rest().await;
            let said = farewell.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(said, "{name}: {}", String::from_utf8_lossy(&farewell));
        }
        drop(client);
        assert_eq!(within(program.get("/a/v1/models")).await.status, 200, "{name}: others are served after it");
        let (_, most) = memory(&program);
        assert!(most.saturating_sub(before) <= 32 * 1024, "{name}: {before} KiB before, {most} KiB at the most");
    }
}

#[tokio::test]
async fn attack_39_a_client_that_makes_no_room_loses_its_stream_and_no_other() {
    let (pixy, _endpoint, upstream) = super::limited(&json!({ "idle_time": "500ms" })).await;
    for _ in 0..2 {
        upstream.answer(crate::support::Reply::new(200).body(vec![b'x'; 1 << 20]));
    }
    // A window of 10 bytes for each stream.
    let mut client = Frames::connect(pixy.agents(), &[(4, 10)]).await;
    client.request(1, &GET, None).await;
    assert_eq!(client.status(1).await, Ok(200));
    let reset = loop {
        let frame = client.next().await;
        match frame.kind {
            PING => client.0.send(frame_ack(&frame.payload)).await,
            RST_STREAM | GOAWAY => break frame,
            _ => {}
        }
    };
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    client.request(3, &GET, None).await;
    assert_eq!(client.status(3).await, Ok(200), "the connection goes on");
}

fn frame_ack(payload: &[u8]) -> Vec<u8> {
    frame(PING, 1, 0, payload)
}
