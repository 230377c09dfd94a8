//! A client that sends the bytes it is given, including those that no HTTP library would send.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::wire::{Fields, Wire, values};
use super::within;

/// One connection. Every wait has a timeout and fails the test when it is reached.
pub(crate) struct RawClient {
    wire: Wire<TcpStream>,
}

/// A whole response over HTTP/1.1.
#[derive(Debug)]
pub(crate) struct RawResponse {
    /// `HTTP/1.1`.
    pub(crate) version: String,
    /// The status code; 0 when the status line has none.
    pub(crate) status: u16,
    /// Every header field, in order.
    pub(crate) headers: Fields,
    /// The body's bytes, without framing.
    pub(crate) body: Vec<u8>,
    /// Trailer fields.
    pub(crate) trailers: Fields,
    /// The body ended as its framing says; `false` if it was cut.
    pub(crate) complete: bool,
    /// The server closed the connection after it, not only announced it. Checked only after `Connection: close`; otherwise see
    /// [`RawClient::until_closed`].
    pub(crate) closed: bool,
}

/// The header fields of a WebSocket handshake, apart from Host.
pub(crate) const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                    Sec-WebSocket-Key: Zh90cFBo5liuwDwihenzkA==\r\n";

/// Accepts the next connection of an upstream that the test implements itself; returns it and the request head.
pub(crate) async fn opened(server: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = within(server.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

impl RawClient {
    /// Connects and sends a WebSocket handshake.
    pub(crate) async fn ask_for_socket(address: SocketAddr, path: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: pixy\r\n{HANDSHAKE}\r\n")).await;
        client
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("the socket is open");
        Self { wire: Wire::new(stream) }
    }

    /// Connects, sends, reads one response.
    pub(crate) async fn once(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<RawResponse> {
        let mut client = Self::connect(address).await;
        client.send(bytes).await;
        client.response().await
    }

    /// Sends these bytes. Ignores errors: the server may have refused after the first bytes and closed.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within(self.wire.stream.write_all(bytes.as_ref())).await;
    }

    /// Closes the sending side; still reads.
    pub(crate) async fn finish_sending(&mut self) {
        let _ = self.wire.stream.shutdown().await;
    }

    /// Closes with a reset (TCP RST).
    pub(crate) fn reset(self) {
        let _ = self.wire.stream.set_zero_linger();
    }

    /// The next final response (not 1xx, except 101); `None` if the connection ended before its head did.
    pub(crate) async fn response(&mut self) -> Option<RawResponse> {
        self.response_to("GET").await
    }

    /// As [`RawClient::response`], for another method: a response to `HEAD` has no body, whatever its headers say.
    pub(crate) async fn response_to(&mut self, method: &str) -> Option<RawResponse> {
        let mut response = self.head().await?;
        let ended = within(self.body(method, &mut response)).await;
        response.complete = ended.is_ok();
        let announced = values(&response.headers, "connection").any(|value| value.eq_ignore_ascii_case("close"));
        response.closed |= announced && self.until_closed().await;
        Some(response)
    }

    /// The head of the next response, without its body.
    pub(crate) async fn head(&mut self) -> Option<RawResponse> {
        loop {
            let head = within(self.wire.head()).await.ok().flatten()?;
            let mut words = head.start.split(' ');
            let version = words.next().unwrap_or_default().to_owned();
            let status = words.next().and_then(|code| code.parse().ok()).unwrap_or(0);
            if status == 101 || !(100..200).contains(&status) {
                let (headers, body, trailers) = (head.fields, Vec::new(), Fields::new());
                return Some(RawResponse { version, status, headers, body, trailers, complete: true, closed: false });
            }
        }
    }

    /// The next `length` bytes.
    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        within(self.wire.exactly(length, &mut bytes)).await.expect("the server sends so many bytes");
        bytes
    }

    /// All bytes until the server closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = within(self.wire.until_end(&mut rest)).await;
        rest
    }

    /// Waits until the server closes or resets the connection; `false` if it sends a byte first. Fails the test if it does
    /// neither.
    pub(crate) async fn until_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    async fn body(&mut self, method: &str, response: &mut RawResponse) -> io::Result<()> {
        if method == "HEAD" || matches!(response.status, 100..=199 | 204 | 304) {
            return Ok(());
        }
        let chunked = values(&response.headers, "transfer-encoding").any(|value| value.ends_with("chunked"));
        let length = values(&response.headers, "content-length").next().map(str::parse);
        match length {
            _ if chunked => response.trailers = self.wire.chunked(&mut response.body).await?,
            Some(Ok(length)) => self.wire.exactly(length, &mut response.body).await?,
            Some(Err(_)) => return Err(io::ErrorKind::InvalidData.into()),
            None => {
                self.wire.until_end(&mut response.body).await?;
                response.closed = true;
            }
        }
        Ok(())
    }
}

impl RawResponse {
    /// The values of a header field; the name is case-insensitive.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is not JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
