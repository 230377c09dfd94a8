//! Replies that are too large or too complex for a literal.

use bytes::Bytes;

use super::super::reply::{Reply, Step};
use super::serve::Issued;

/// 8 KiB: long for a header, normal for a JWT with many claims.
pub(super) fn long_access_token(issued: &Issued) -> Reply {
    with_access_token(issued, 8 << 10)
}

/// 4 MiB.
pub(super) fn huge_access_token(issued: &Issued) -> Reply {
    with_access_token(issued, 4 << 20)
}

/// `[[[[…` ten thousand deep, before the tokens.
pub(super) fn deep_nesting(issued: &Issued) -> Reply {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    json(issued.fill(&format!("{{\"x\":{deep},$OK}}")))
}

/// A hundred thousand members, 1.9 MB, and the tokens at the end.
pub(super) fn many_members(issued: &Issued) -> Reply {
    use std::fmt::Write as _;
    let mut body = String::from("{");
    for number in 0..100_000 {
        let _ = write!(body, "\"member_{number:06}\":0,"); // writing to a String cannot fail
    }
    json(issued.fill(&format!("{body}$OK}}")))
}

/// Two gigabytes of spaces after a good reply: valid JSON if all of it is read.
pub(super) fn two_gigabytes(issued: &Issued) -> Reply {
    let body = issued.fill("{$OK}");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", TWO_GIGABYTES + body.len() as u64);
    Reply::raw([Step::send(head), Step::send(body), Step::Flood(Bytes::from(vec![b' '; BLOCK]), TWO_GIGABYTES)])
}

/// The same, chunked.
pub(super) fn two_gigabytes_chunked(_: &Issued) -> Reply {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = [format!("{BLOCK:x}\r\n").as_bytes(), &vec![b' '; BLOCK], b"\r\n"].concat();
    Reply::raw([Step::send(head), Step::Flood(chunk.into(), TWO_GIGABYTES), Step::send("0\r\n\r\n")])
}

/// 60 kB that decompress to 9 MiB: a good reply, then spaces.
pub(super) fn gzip_bomb(issued: &Issued) -> Reply {
    zipped(&issued.fill("{$OK}"), 9 << 20)
}

/// A good reply, compressed without `Accept-Encoding`.
pub(super) fn gzip(issued: &Issued) -> Reply {
    zipped(&issued.fill("{$OK}"), 0)
}

/// UTF-16 with a byte order mark and a matching content type.
pub(super) fn utf16(issued: &Issued) -> Reply {
    let text = format!("\u{feff}{}", issued.fill("{$OK}"));
    let body: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    Reply::new(200).header("content-type", "application/json; charset=utf-16").body(body)
}

/// A name in ISO 8859-1, after the tokens: no UTF-8, so no JSON (RFC 8259 §8.1).
pub(super) fn latin1(issued: &Issued) -> Reply {
    let mut body = issued.fill("{$OK,\"name\":\"Ren").into_bytes();
    body.extend(b"\xe9\"}");
    json(body)
}

/// In two chunks, with an extension and a trailer.
pub(super) fn chunked_with_trailers(issued: &Issued) -> Reply {
    let body = issued.fill("{$OK}");
    let (first, second) = body.split_at(10);
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n";
    let chunks = format!("a;kind=first\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\nx-checksum: 1\r\n\r\n", second.len());
    Reply::bytes(format!("{head}{chunks}"))
}

/// `Content-Length` and `Transfer-Encoding` in one reply: the latter is used (RFC 9112 §6.3), and the connection must be closed.
pub(super) fn length_and_chunked(issued: &Issued) -> Reply {
    let body = issued.fill("{$OK}");
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    Reply::bytes(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
}

/// The whole reply, then RST: the reply counts.
pub(super) fn reset_after_reply(issued: &Issued) -> Reply {
    let body = issued.fill("{$OK}");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    Reply::raw([Step::send(format!("{head}{body}")), Step::Reset])
}

fn with_access_token(issued: &Issued, length: usize) -> Reply {
    let access = format!("{}{}", issued.access, "a".repeat(length));
    json(Issued { access, ..issued.clone() }.fill("{$OK}"))
}

fn json(body: impl Into<Bytes>) -> Reply {
    Reply::new(200).header("content-type", "application/json").body(body)
}

fn zipped(text: &str, spaces: usize) -> Reply {
    json(gzip_of(text.as_bytes(), spaces)).header("content-encoding", "gzip")
}

/// RFC 1952 around RFC 1951: `text` in a stored block, then at least `spaces` spaces in a block of fixed Huffman codes, 258 at a time.
fn gzip_of(text: &[u8], spaces: usize) -> Vec<u8> {
    let runs = spaces.div_ceil(258);
    let mut zip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u16::try_from(text.len()).expect("a token reply is short");
    zip.push(u8::from(runs == 0)); // BFINAL, BTYPE = 00 (stored)
    zip.extend(length.to_le_bytes());
    zip.extend((!length).to_le_bytes());
    zip.extend(text);
    let mut whole = text.to_vec();
    if runs > 0 {
        let mut bits = Bits { bytes: zip, free: 0 };
        bits.put(0b011, 3); // BFINAL = 1, BTYPE = 01 (fixed), lowest bit first
        bits.put_code(0x30 + u32::from(b' '), 8); // one space to repeat
        for _ in 0..runs {
            bits.put_code(0b1100_0101, 8); // length 258 (symbol 285)
            bits.put_code(0, 5); // distance 1
        }
        bits.put_code(0, 7); // end of block
        zip = bits.bytes;
        whole.resize(text.len() + 1 + runs * 258, b' ');
    }
    zip.extend(crc32(&whole).to_le_bytes());
    zip.extend(u32::try_from(whole.len()).expect("far below 4 GiB").to_le_bytes());
    zip
}

/// Deflate's bit order: values lowest bit first, Huffman codes highest bit first (RFC 1951 §3.1.1).
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        (0..count).for_each(|bit| self.push(value >> bit & 1 == 1));
    }

    fn put_code(&mut self, code: u32, count: u32) {
        (0..count).rev().for_each(|bit| self.push(code >> bit & 1 == 1));
    }

    fn push(&mut self, bit: bool) {
        if self.free == 0 {
            self.bytes.push(0);
            self.free = 8;
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (8 - self.free);
        }
        self.free -= 1;
    }
}

/// RFC 1952 §8.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |value: u32| if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
    let table: Vec<u32> = (0..256).map(|byte| (0..8).fold(byte, |value, _| step(value))).collect();
    !bytes.iter().fold(!0, |crc: u32, byte| table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

const TWO_GIGABYTES: u64 = 2 << 30;
const BLOCK: usize = 64 << 10;
