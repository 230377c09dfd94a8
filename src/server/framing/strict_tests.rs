//! Property tests: what passes is unchanged, however it is split, and has one reading.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::server::admission::ConnectionLimit;
use crate::server::stall::StallTracker;

/// A socket that reads these pieces, and then the end of file.
struct Pieces(VecDeque<Vec<u8>>);

impl Pieces {
    /// The bytes in pieces of these lengths, cyclically.
    fn of(bytes: &[u8], lengths: &[usize]) -> Self {
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
        Self(pieces)
    }
}

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

impl AsyncWrite for Pieces {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// All bytes that hyper would read, and whether the last read failed.
fn read_all(bytes: &[u8], lengths: &[usize], space: usize) -> (Vec<u8>, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut strict = Strict::new(
            Pieces::of(bytes, lengths),
            ServerLimits::default(),
            ConnectionState::new(Arc::new(StallTracker::new())),
            Buffers::new(ConnectionLimit::new(1)),
        );
        let mut read = Vec::new();
        let mut buffer = vec![0; space];
        loop {
            // After the substitute request, reads are pending forever.
            match tokio::time::timeout(Duration::from_secs(1), strict.read(&mut buffer)).await {
                Ok(Ok(0)) | Err(_) => return (read, false),
                Ok(Ok(length)) => read.extend_from_slice(&buffer[..length]),
                Ok(Err(_)) => return (read, true),
            }
        }
    })
}

/// A valid request.
fn valid_request() -> impl Strategy<Value = Vec<u8>> {
    let plain = Just(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec());
    let sized = prop::collection::vec(any::<u8>(), 0..300).prop_map(|body| {
        let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    });
    let chunk = (prop::collection::vec(any::<u8>(), 1..40), prop::sample::select(vec!["", ";a", ";a=b; c=d"]));
    let trailer = prop::sample::select(vec!["", "a: b\r\n", "Content-Length: 9\r\nHost:\r\n"]);
    let chunked = (prop::collection::vec(chunk, 0..6), trailer).prop_map(|(chunks, trailer)| {
        let mut bytes = b"POST /x HTTP/1.1\r\ntransfer-encoding: Chunked\r\nHost: a\r\n\r\n".to_vec();
        for (data, extension) in chunks {
            bytes.extend(format!("{:x}{extension}\r\n", data.len()).bytes());
            bytes.extend(data);
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
        bytes
    });
    prop_oneof![plain, sized, chunked]
}

/// Method, target, fields.
type Reading = (Vec<u8>, Vec<u8>, Vec<(String, Vec<u8>)>);

/// The reading of a naive parser.
fn naive_reading(head: &[u8]) -> Option<Reading> {
    let lines = head.strip_suffix(b"\r\n\r\n")?;
    let text: String = lines.iter().copied().map(char::from).collect();
    let mut lines = text.split("\r\n");
    let bytes = |text: &str| text.chars().map(|character| character as u8).collect::<Vec<u8>>();
    let first: Vec<&str> = lines.next()?.split(' ').collect();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), bytes(value.trim_matches([' ', '\t']))))
    });
    Some((bytes(first[0]), bytes(first[1]), fields.collect::<Option<_>>()?))
}

/// The reading of hyper's parser.
fn hyper_reading(head: &[u8]) -> Option<Reading> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut fields);
    if request.parse(head) != Ok(httparse::Status::Complete(head.len())) {
        return None;
    }
    let fields = request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    Some((request.method?.into(), request.path?.into(), fields.collect()))
}

const PARTS: [&str; 24] = [
    "GET ",
    "POST ",
    "/x",
    "?a=b",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "Host: a",
    "host: b",
    "Host: ",
    "Content-Length: 5",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "X-Value:",
    " ",
    "\t",
    ":",
    "\0",
    "%41",
    "Expect: 100-continue",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn valid_requests_pass_unchanged_however_split(
        requests in prop::collection::vec(valid_request(), 1..5),
        lengths in prop::collection::vec(1_usize..60, 1..8),
        space in 1_usize..200,
    ) {
        let bytes = requests.concat();
        prop_assert_eq!(read_all(&bytes, &lengths, space), (bytes, false));
    }

    #[test]
    fn nothing_from_a_rejected_head_on_passes(
        requests in prop::collection::vec(valid_request(), 0..3),
        fault in prop::sample::select(vec![
            "GET /x HTTP/1.1\r\n\r\n", "GET /x HTTP/1.1\nHost: a\r\n\r\n", "GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", "\r\n",
        ]),
        lengths in prop::collection::vec(1_usize..60, 1..8),
        space in 1_usize..200,
    ) {
        let before = requests.concat();
        let bytes = [&before[..], fault.as_bytes(), b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        prop_assert_eq!(read_all(&bytes, &lengths, space), ([&before[..], SUBSTITUTE].concat(), false));
    }

    #[test]
    fn a_malformed_body_is_an_error_however_split(
        requests in prop::collection::vec(valid_request(), 0..3),
        fault in prop::sample::select(vec!["5\n", "g", "5\r\nhellox", "0\r\n \r\n", "5;\"", "0\r\na b\r\n", "5\r\nhello\r\n\n"]),
        lengths in prop::collection::vec(1_usize..60, 1..8),
        space in 1_usize..200,
    ) {
        let head = &b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        let bytes = [&requests.concat()[..], head, fault.as_bytes(), b"\r\n0\r\n\r\nGET /behind HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let (read, failed) = read_all(&bytes, &lengths, space);
        prop_assert!(failed && bytes.starts_with(&read) && !read.ends_with(b"0\r\n\r\n"));
    }

    #[test]
    fn a_head_that_passes_has_one_reading(
        parts in prop::collection::vec(prop_oneof![
            8 => prop::sample::select(PARTS.to_vec()).prop_map(|part| part.as_bytes().to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ], 0..10),
        valid_start in prop::bool::ANY,
    ) {
        let start = if valid_start { "GET /x HTTP/1.1\r\nHost: a\r\n" } else { "" };
        let head = [start.as_bytes(), &parts.concat(), b"\r\n\r\n"].concat();
        let mut framer = Framer::new(ServerLimits::default());
        // Without what follows the head, if it ends early.
        let (passed, error) = framer.check(&head);
        let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        if error.is_none() || passed >= end {
            let head = &head[..end];
            let reading = naive_reading(head);
            prop_assert!(reading.is_some());
            prop_assert_eq!(&reading, &hyper_reading(head));
            let (_, target, fields) = reading.unwrap();
            prop_assert!(http::Uri::try_from(&target[..]).is_ok());
            prop_assert_eq!(fields.iter().filter(|(name, _)| name == "host").count(), 1);
        }
    }
}

#[test]
fn every_target_that_passes_is_valid_for_hyper() {
    for byte in 0..=u8::MAX {
        for before in ["/x", "/x?y"] {
            let target = [before.as_bytes(), &[byte]].concat();
            if super::super::request_target::check(&target, &ServerLimits::default()).is_ok() {
                assert!(http::Uri::try_from(&target[..]).is_ok(), "{byte:#04x} after {before}");
            }
        }
    }
}
