//! HTTP/2 frames, written by hand: no library sends what these tests must send.

use std::net::SocketAddr;

use crate::support::RawClient;

/// A client that speaks in frames.
pub(super) struct Frames(pub(super) RawClient);

/// A frame as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frames {
    /// Connects, and says with these settings (id, value) that it speaks HTTP/2.
    pub(super) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = RawClient::connect(address).await;
        // 1, 0: no table on our side, so that every status comes as it is.
        let settings = [&[(1, 0)], settings].concat();
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        client.send([PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await;
        Self(client)
    }

    /// Sends a whole request.
    pub(super) async fn request(&mut self, stream: u32, fields: &[(&str, &str)], body: Option<&[u8]>) {
        let last = if body.is_none() { END_STREAM } else { 0 };
        let mut bytes = frame(HEADERS, END_HEADERS | last, stream, &block(fields));
        if let Some(body) = body {
            bytes.extend(frame(DATA, END_STREAM, stream, body));
        }
        self.0.send(bytes).await;
    }

    /// The next frame.
    pub(super) async fn next(&mut self) -> Frame {
        let head = self.0.bytes(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], flags: head[4], stream, payload: self.0.bytes(length).await }
    }

    /// How the answer of a stream begins: the status, if it is an indexed or literal one, else what the frame was.
    pub(super) async fn status(&mut self, stream: u32) -> Result<u16, Frame> {
        loop {
            let frame = self.next().await;
            match frame.kind {
                HEADERS if frame.stream == stream => return Ok(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Err(frame),
                GOAWAY => return Err(frame),
                _ => {}
            }
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that no table remembers (RFC 7541 §6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let bytes: Vec<u8> = text.chars().map(|character| u8::try_from(character).unwrap()).collect();
        assert!(bytes.len() < 127, "longer ones need more than one byte of length");
        [&[u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// `GET` of what always works.
pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/a/v1/models"), (":authority", "pixy")];

/// The status that a block of ours starts with: an entry of the static table, or a literal with its name from there.
fn status(block: &[u8]) -> u16 {
    let block = block.strip_prefix(&[0x20]).unwrap_or(block); // the table's size, agreed on
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => {
            let (huffman, length) = (block[1] & 0x80 != 0, usize::from(block[1] & 0x7f));
            let bytes = &block[2..2 + length];
            if huffman { digits(bytes) } else { std::str::from_utf8(bytes).unwrap().parse().unwrap() }
        }
    }
}

/// Huffman codes of digits (RFC 7541, appendix B): five bits for 0, 1 and 2, six for the others.
fn digits(bytes: &[u8]) -> u16 {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut number) = (bits.as_str(), 0);
    for _ in 0..3 {
        let five = u16::from_str_radix(&rest[..5], 2).unwrap();
        let (digit, length) =
            if five < 3 { (five, 5) } else { (u16::from_str_radix(&rest[..6], 2).unwrap() - 0x19 + 3, 6) };
        number = number * 10 + digit;
        rest = &rest[length..];
    }
    number
}
