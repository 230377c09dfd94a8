//! Property tests: what passes is unchanged and has one reading, and no chunking changes what passes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::super::checked_stream::CheckedStream;
use super::*;
use crate::lock::lock;

/// A socket that reads these pieces, and then the end of file.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pieces = &mut self.get_mut().0;
        if let Some(mut piece) = pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What hyper would read of the responses to one request that arrive in pieces of these lengths, cyclically: the bytes, whether the
/// last read failed, and whether the connection is idle then.
fn read_as(exchange: Exchange, bytes: &[u8], lengths: &[usize], space: usize) -> (Vec<u8>, bool, bool) {
    let mut rest = bytes;
    let mut pieces = VecDeque::new();
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, more) = rest.split_at((*length).min(rest.len()));
        pieces.push_back(piece.to_vec());
        rest = more;
    }
    let (mut stream, framer) = CheckedStream::new(Pieces(pieces));
    lock(&framer).announce(exchange.kind, exchange.ambiguous);
    lock(&framer).record_write();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut read, mut buffer) = (Vec::new(), vec![0; space]);
    let failed = runtime.block_on(async {
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return false,
                Ok(length) => read.extend_from_slice(&buffer[..length]),
                Err(_) => return true,
            }
        }
    });
    let is_idle = lock(&framer).is_idle();
    (read, failed, is_idle)
}

fn read_all(bytes: &[u8], lengths: &[usize], space: usize) -> (Vec<u8>, bool, bool) {
    read_as(Exchange { kind: RequestKind::Other, ambiguous: AmbiguousFraming::Refuse }, bytes, lengths, space)
}

/// A valid response that ends before its connection, perhaps after interim ones.
fn valid_response() -> impl Strategy<Value = Vec<u8>> {
    let interim = prop::collection::vec(
        prop::sample::select(vec!["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early\r\nlink: </x>\r\n\r\n"]),
        0..3,
    );
    let none = prop::sample::select(vec![
        "HTTP/1.1 204\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
    ]);
    let none = none.prop_map(|head| head.as_bytes().to_vec());
    let sized = prop::collection::vec(any::<u8>(), 0..300).prop_map(|body| {
        let head = format!("HTTP/1.1 200 \r\nx: \u{e9}\r\nContent-Length:{}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), prop::sample::select(vec!["", ";a", ";a=b; c=d"]));
    let trailer = prop::sample::select(vec!["", "a: b\r\n", "Content-Length: 9\r\nHost:\r\n"]);
    let chunked = (prop::collection::vec(chunk, 0..6), trailer).prop_map(|(chunks, trailer)| {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n".to_vec();
        for (data, extension) in chunks {
            bytes.extend(format!("{:04X}{extension}\r\n", data.len()).bytes());
            bytes.extend(data);
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
        bytes
    });
    (interim, prop_oneof![none, sized, chunked])
        .prop_map(|(interim, last)| [interim.concat().as_bytes(), &last].concat())
}

const PARTS: [&str; 26] = [
    "HTTP/1.1 ",
    "HTTP/1.0 ",
    "200",
    "204",
    "103",
    " OK",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Content-Length: 5",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "X-Value:",
    " ",
    "\t",
    ":",
    "\0",
    "\u{e9}",
    "hello",
    "5\r\nhello\r\n",
    "5 \r\n",
    "5;a=\"",
    "0\r\n\r\n",
    "0\r\n",
];

fn parts() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => prop::sample::select(PARTS.to_vec()).prop_map(|part| part.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    let start = prop::sample::select(vec![
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    ]);
    (start, prop::collection::vec(part, 0..12)).prop_map(|(start, parts)| [start.as_bytes(), &parts.concat()].concat())
}

/// Version, status, fields.
type Reading = (u8, u16, Vec<(String, Vec<u8>)>);

/// The reading of a naive parser.
fn naive_reading(head: &[u8]) -> Option<Reading> {
    let text: String = head.strip_suffix(b"\r\n\r\n")?.iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let bytes = |text: &str| text.chars().map(|character| character as u8).collect::<Vec<u8>>();
    let first = lines.next()?.strip_prefix("HTTP/1.")?;
    let (version, status) = (first[..1].parse().ok()?, first[2..5].parse().ok()?);
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), bytes(value.trim_matches([' ', '\t']))))
    });
    Some((version, status, fields.collect::<Option<_>>()?))
}

/// The reading of hyper's parser.
fn hyper_reading(head: &[u8]) -> Option<Reading> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    if response.parse(head) != Ok(httparse::Status::Complete(head.len())) {
        return None;
    }
    let fields = response.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    Some((response.version?, response.code?, fields.collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_response_passes_unchanged_however_split(
        bytes in valid_response(),
        lengths in prop::collection::vec(1_usize..60, 1..8),
        space in 1_usize..200,
    ) {
        prop_assert_eq!(read_all(&bytes, &lengths, space), (bytes.clone(), false, true));
        // What follows does not pass.
        let more = [&bytes[..], b"HTTP/1.1 200 OK\r\n\r\n"].concat();
        prop_assert_eq!(read_all(&more, &lengths, space), (bytes, true, true));
    }

    #[test]
    fn attack_97_no_chunking_changes_what_passes(
        bytes in parts(),
        lengths in prop::collection::vec(1_usize..20, 1..8),
        space in 1_usize..50,
    ) {
        let at_once = read_all(&bytes, &[bytes.len().max(1)], bytes.len().max(1));
        prop_assert_eq!(read_all(&bytes, &lengths, space), at_once);
    }

    #[test]
    fn attack_97_a_head_that_passes_has_one_reading(bytes in parts()) {
        let head = [&bytes[..], b"\r\n\r\n"].concat();
        let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (passed, failed, _) = read_all(&head[..end], &[end], end);
        if !failed && !passed.is_empty() {
            let reading = naive_reading(&head[..end]);
            prop_assert!(reading.is_some());
            prop_assert_eq!(reading, hyper_reading(&head[..end]));
        }
    }

    #[test]
    fn a_response_that_pixy_reads_itself_passes_whatever_it_is(
        bytes in parts(),
        lengths in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let lenient = Exchange { kind: RequestKind::Other, ambiguous: AmbiguousFraming::Accept };
        let (strict, refused, _) = read_all(&bytes, &lengths, 50);
        let (read, failed, is_idle) = read_as(lenient, &bytes, &lengths, 50);
        if failed {
            // Bytes after a complete response.
            prop_assert!(is_idle && read == strict);
        } else if refused {
            prop_assert!(!is_idle && read == bytes, "all of it, and its connection is not used again");
        } else {
            prop_assert_eq!(read, strict);
        }
    }
}

#[test]
fn a_response_to_head_or_to_an_upgrade_ends_with_its_head() {
    let read = |kind, bytes: &str| {
        let exchange = Exchange { kind, ambiguous: AmbiguousFraming::Refuse };
        let (read, failed, is_idle) = read_as(exchange, bytes.as_bytes(), &[7], 50);
        (read.len() == bytes.len(), failed, is_idle)
    };
    for head in
        ["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]
    {
        assert_eq!(read(RequestKind::Head, head), (true, false, true));
        assert_eq!(read(RequestKind::Other, head), (true, false, false));
        assert_eq!(read(RequestKind::Head, &format!("{head}hello")), (false, true, true));
    }
    let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\u{81}\u{1}x";
    assert_eq!(read(RequestKind::Upgrade, switch), (true, false, false));
    assert_eq!(read(RequestKind::Other, switch), (false, true, false));
}

#[test]
fn what_arrives_before_the_request_is_no_response() {
    let mut framer = ResponseFramer::new();
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    framer.announce(RequestKind::Other, AmbiguousFraming::Refuse);
    assert_eq!(framer.check(response).0, 0);
    framer.record_write();
    assert_eq!(framer.check(response), (response.len(), None));
    framer.record_write(); // the rest of the request's body
    assert!(framer.is_idle() && framer.check(response).1.is_some());
}
