//! A minimal HTTP/1.1 client for the load generator.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Result;

/// Where requests go.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// The path before `/chat/completions`.
    pub prefix: &'static str,
    /// The client's credential.
    pub key: &'static str,
    /// The TLS configuration of a direct connection.
    pub tls: Option<TlsConnector>,
}

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    target: Target,
    buffer: BytesMut,
    rest: Rest,
}

/// The rest of a response body.
#[derive(Clone, Copy)]
enum Rest {
    Nothing,
    Length(u64),
    /// Before a chunk size.
    Size,
    /// Within a chunk.
    Chunk(u64),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub async fn connect(target: &Target) -> Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(tcp),
            Some(tls) => Box::new(tls.connect("localhost".try_into()?, tcp).await?),
        };
        Ok(Self { stream, target: target.clone(), buffer: BytesMut::with_capacity(8 * 1024), rest: Rest::Nothing })
    }

    /// Sends a request for a model, with a prompt of that many bytes, and waits for the head of the response.
    pub async fn ask(&mut self, model: &str, prompt: usize) -> Result<()> {
        let body = format!(
            "{{\"model\":\"{model}\",\"stream\":{},\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            !matches!(model, "json" | "upload"),
            "x".repeat(prompt)
        );
        let request = format!(
            "POST {}/chat/completions HTTP/1.1\r\nhost: localhost\r\nuser-agent: OpenAI/JS 5.12.2\r\naccept: application/json\r\n\
             accept-encoding: identity\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\nx-stainless-lang: js\r\n\
             x-stainless-package-version: 5.12.2\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: node\r\n\
             x-stainless-runtime-version: v22.12.0\r\nx-stainless-retry-count: 0\r\ncontent-length: {}\r\n\r\n{body}",
            self.target.prefix,
            self.target.key,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        match self.head().await? {
            200 => Ok(()),
            other => Err(format!("the answer was {other}: {}", String::from_utf8_lossy(&self.buffer)).into()),
        }
    }

    /// Sends a request and reads the response to its end.
    pub async fn exchange(&mut self, model: &str, prompt: usize) -> Result<usize> {
        self.ask(model, prompt).await?;
        let (mut body, mut length) = (Vec::new(), 0);
        while self.read(&mut body).await? {
            length += body.len();
            body.clear();
        }
        Ok(length + body.len())
    }

    async fn head(&mut self) -> Result<u16> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(length) = response.parse(&self.buffer)? {
                let field = |name: &str| {
                    let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                    found.map(|field| String::from_utf8_lossy(field.value).into_owned())
                };
                self.rest = match (field("transfer-encoding"), field("content-length")) {
                    (Some(_), _) => Rest::Size,
                    (None, Some(length)) => Rest::Length(length.parse()?),
                    (None, None) => Rest::Nothing,
                };
                let status = response.code.unwrap_or(0);
                self.buffer.advance(length);
                return Ok(status);
            }
            self.fill().await?;
        }
    }

    /// Waits for a part of the body and appends it to `body`. `false`: the body has ended.
    pub async fn read(&mut self, body: &mut Vec<u8>) -> Result<bool> {
        loop {
            let before = body.len();
            if self.decode(body)? {
                return Ok(false);
            }
            if body.len() > before {
                return Ok(true);
            }
            self.fill().await?;
        }
    }

    /// Whether the body has ended.
    fn decode(&mut self, body: &mut Vec<u8>) -> Result<bool> {
        loop {
            match self.rest {
                Rest::Nothing | Rest::Length(0) => return Ok(true),
                Rest::Length(left) => {
                    let taken = self.take(left, body);
                    self.rest = Rest::Length(left - taken);
                    if taken == 0 {
                        return Ok(false);
                    }
                }
                Rest::Chunk(0) => {
                    if self.buffer.len() < 2 {
                        return Ok(false);
                    }
                    self.buffer.advance(2);
                    self.rest = Rest::Size;
                }
                Rest::Chunk(left) => {
                    let taken = self.take(left, body);
                    self.rest = Rest::Chunk(left - taken);
                    if taken == 0 {
                        return Ok(false);
                    }
                }
                Rest::Size => match httparse::parse_chunk_size(&self.buffer).map_err(|_| "no chunk size")? {
                    // No peer sends trailers: an empty line is left.
                    httparse::Status::Complete((length, 0)) if self.buffer.len() >= length + 2 => {
                        self.buffer.advance(length + 2);
                        self.rest = Rest::Nothing;
                    }
                    httparse::Status::Partial | httparse::Status::Complete((_, 0)) => return Ok(false),
                    httparse::Status::Complete((length, size)) => {
                        self.buffer.advance(length);
                        self.rest = Rest::Chunk(size);
                    }
                },
            }
        }
    }

    fn take(&mut self, most: u64, body: &mut Vec<u8>) -> u64 {
        let length = self.buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        body.extend_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        length as u64
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the connection ended early".into());
        }
        Ok(())
    }

    /// Upgrades to a WebSocket.
    pub async fn upgrade(&mut self) -> Result<()> {
        let request = format!(
            "GET {}/realtime HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.target.prefix, self.target.key,
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        match self.head().await? {
            101 => Ok(()),
            other => Err(format!("no WebSocket: {other}").into()),
        }
    }

    /// Sends a short message and reads the echo.
    pub async fn echo(&mut self) -> Result<()> {
        const MESSAGE: [u8; 100] = [b'x'; 100];
        let frame = [&[0x81, 0x80 | MESSAGE.len() as u8, 0, 0, 0, 0], &MESSAGE[..]].concat();
        self.stream.write_all(&frame).await?;
        self.stream.flush().await?;
        while self.buffer.len() < 2 + MESSAGE.len() {
            self.fill().await?;
        }
        if self.buffer[2..2 + MESSAGE.len()] != MESSAGE {
            return Err("the echo is another message".into());
        }
        self.buffer.advance(2 + MESSAGE.len());
        Ok(())
    }
}
