//! An HTTP/2 server at the level of frames (RFC 9113 §4.1), to send what no library sends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::support::{Authority, Protocols, Validity, within};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const GOAWAY: u8 = 7;
pub(super) const ALTSVC: u8 = 10;
pub(super) const ORIGIN: u8 = 12;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK (RFC 7541, appendix A, index 8).
pub(super) const OK: &[u8] = &[0x88];
/// `:status: 103`, a literal that is not indexed.
pub(super) const EARLY_HINTS: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

/// A TLS listener that negotiates `h2`.
pub(super) struct ByHand {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

/// One connection.
pub(super) struct Frames {
    stream: TlsStream<TcpStream>,
    /// The client's SETTINGS, as pairs.
    pub(super) settings: Vec<(u16, u32)>,
}

impl ByHand {
    pub(super) async fn start(authority: &Authority) -> Self {
        let acceptor = authority.acceptor(Protocols::Http2, &["localhost"], Validity::Now);
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), acceptor }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/", self.listener.local_addr().unwrap().port())
    }

    /// The next connection, after the client's preface (RFC 9113 §3.4).
    pub(super) async fn accept(&self) -> Frames {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        let mut stream = within(self.acceptor.accept(stream)).await.unwrap();
        let mut preface = [0; 24];
        within(stream.read_exact(&mut preface)).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Frames { stream, settings: Vec::new() };
        let (kind, _, settings) = frames.read().await.unwrap();
        assert_eq!(kind, SETTINGS);
        let pair = |six: &[u8]| {
            (u16::from_be_bytes(six[..2].try_into().unwrap()), u32::from_be_bytes(six[2..].try_into().unwrap()))
        };
        frames.settings = settings.chunks(6).map(pair).collect();
        frames
    }
}

impl Frames {
    /// The next frame: type, stream, payload; `None` when the client has disconnected.
    pub(super) async fn read(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        within(self.stream.read_exact(&mut header)).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        within(self.stream.read_exact(&mut payload)).await.ok()?;
        Some((header[3], u32::from_be_bytes(header[5..].try_into().unwrap()), payload))
    }

    /// The next stream that the client opens; `None` when it has disconnected.
    pub(super) async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, stream, _) = self.read().await?;
            if kind == HEADERS {
                return Some(stream);
            }
        }
    }

    pub(super) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        // The client may have disconnected; a test that depends on it reads.
        let _ = within(self.stream.write_all(&frame)).await;
        let _ = within(self.stream.flush()).await;
    }

    /// Waits until the client disconnects.
    pub(super) async fn until_closed(&mut self) {
        while self.read().await.is_some() {}
    }
}
