//! HTTP/1.1 as bytes: reads a message exactly as it was sent, with the case and order of its header fields, which no HTTP library
//! shows.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Header fields in the order of the wire, names in their case. A byte of a value that is not ASCII becomes the character of that
/// number (ISO 8859-1), so nothing is lost.
pub(crate) type Fields = Vec<(String, String)>;

/// A socket and its read buffer.
pub(super) struct Wire<S> {
    pub(super) stream: S,
    buffer: Vec<u8>,
}

/// The start line and header fields of a message.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) start: String,
    pub(super) fields: Fields,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next head; `None` if the peer closed before its first byte.
    pub(super) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(Some(Head::parse(&bytes)));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Appends exactly this many bytes to `into`, also those before an early close.
    pub(super) async fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        let wanted = into.len() + length;
        loop {
            let take = (wanted - into.len()).min(self.buffer.len());
            into.extend(self.buffer.drain(..take));
            if into.len() == wanted {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Appends a chunked body (RFC 9112 §7.1) to `into`; returns its trailers.
    pub(super) async fn chunked(&mut self, into: &mut Vec<u8>) -> io::Result<Fields> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
            if size == 0 {
                break;
            }
            self.exactly(size, into).await?;
            self.line().await?;
        }
        let mut trailers = Fields::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.extend(field(&line));
        }
    }

    /// Appends all bytes until the peer closes to `into`. A reset is an error; bytes before it are in `into`.
    pub(super) async fn until_end(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            into.append(&mut self.buffer);
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
    }

    /// Resolves when the peer has closed or reset. Cancel safe: bytes are buffered.
    pub(super) async fn peer_gone(&mut self) {
        while self.fill().await.is_ok_and(|read| read > 0) {}
    }

    /// Echoes until the peer closes.
    pub(super) async fn echo(&mut self) -> io::Result<()> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await?;
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(text(&bytes[..end]));
            }
            if self.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let all = text(bytes);
        let mut lines = all.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        Self { start, fields: lines.filter_map(field).collect() }
    }

    /// The values of a field; the name is case-insensitive.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        values(&self.fields, name)
    }

    /// Whether a comma-separated list contains this member.
    pub(super) fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(member))
    }

    /// `Content-Length`; `None` if it is missing or no number.
    pub(super) fn length(&self) -> Option<usize> {
        self.all("content-length").next()?.parse().ok()
    }
}

/// The values of a field; the name is case-insensitive.
pub(super) fn values<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a str> {
    fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Bytes as text, one character per byte (ISO 8859-1).
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}
