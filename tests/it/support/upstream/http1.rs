//! HTTP/1.1, hand-written so that a test sees the exact bytes and can send malformed ones.

use std::io::{self, ErrorKind};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

use super::super::reply::{Body, Chunk, Kind, Reply, Step};
use super::super::wire::{Fields, Head, Wire};
use super::{Seen, Shared};

/// A connection that can be reset.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes a later close send RST.
    fn reset_when_closed(&self);
}

impl Socket for TcpStream {
    fn reset_when_closed(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_when_closed(&self) {
        self.get_ref().0.reset_when_closed();
    }
}

/// Whether the connection may carry another request.
#[derive(PartialEq, Eq)]
enum After {
    Keep,
    Close,
    Reset,
}

pub(super) async fn serve(stream: impl Socket, shared: &Shared, number: usize) {
    let mut wire = Wire::new(stream);
    while let Ok(Some(head)) = wire.head().await {
        let (seen, closes) = read(&mut wire, &head, number).await;
        if !seen.complete {
            shared.count_disconnect();
            return shared.record(seen);
        }
        let no_body = seen.method == "HEAD";
        match answer(&mut wire, shared.reply_to(seen), no_body).await {
            Ok(After::Keep) if !closes => {}
            Ok(After::Keep | After::Close) => break,
            Ok(After::Reset) => return wire.stream.reset_when_closed(),
            Err(_) => return shared.count_disconnect(),
        }
    }
    let _ = wire.stream.shutdown().await;
}

async fn read(wire: &mut Wire<impl Socket>, head: &Head, number: usize) -> (Seen, bool) {
    let mut words = head.start.splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (method, target, version) = (word(), word(), word());
    if head.lists("expect", "100-continue") {
        let _ = wire.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let mut body = Vec::new();
    let read = if head.lists("transfer-encoding", "chunked") {
        wire.chunked(&mut body).await
    } else {
        wire.exactly(head.length().unwrap_or(0), &mut body).await.map(|()| Fields::new())
    };
    let complete = read.is_ok();
    let closes = head.lists("connection", "close") || version == "HTTP/1.0";
    let (headers, trailers) = (head.fields.clone(), read.unwrap_or_default());
    (Seen { method, target, version, headers, body, trailers, complete, connection: number }, closes)
}

/// Any error means that the client has closed.
async fn answer(wire: &mut Wire<impl Socket>, reply: Reply, no_body: bool) -> io::Result<After> {
    if let Some(gate) = reply.gate {
        opened(wire, gate).await?;
    }
    match reply.kind {
        Kind::WellFormed { status, fields, body } => send_well_formed(wire, status, &fields, body, no_body).await,
        Kind::Raw(steps) => {
            for step in steps {
                if let Step::Reset = step {
                    return Ok(After::Reset);
                }
                run_step(wire, step).await?;
            }
            Ok(After::Close)
        }
    }
}

async fn opened(wire: &mut Wire<impl Socket>, gate: oneshot::Receiver<()>) -> io::Result<()> {
    tokio::select! {
        _ = gate => Ok(()), // a dropped gate opens too
        () = wire.peer_gone() => Err(ErrorKind::ConnectionAborted.into()),
    }
}

async fn send_well_formed(
    wire: &mut Wire<impl Socket>,
    status: u16,
    fields: &Fields,
    body: Body,
    no_body: bool,
) -> io::Result<After> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status)).into_bytes();
    for (name, value) in fields {
        head.extend(format!("{name}: ").into_bytes());
        // One byte per character, as `wire::text` decodes it.
        head.extend(value.chars().map(|character| u8::try_from(character).unwrap_or(b'?')));
        head.extend(b"\r\n");
    }
    let bodiless = no_body || matches!(status, 100..=199 | 204 | 304);
    match body {
        Body::Whole(whole) => {
            if !matches!(status, 100..=199 | 204) {
                head.extend(format!("content-length: {}\r\n", whole.len()).into_bytes());
            }
            head.extend(b"\r\n");
            if !bodiless {
                head.extend(&whole);
            }
            wire.stream.write_all(&head).await?;
        }
        Body::Streamed(mut chunks) => {
            head.extend(b"transfer-encoding: chunked\r\n\r\n");
            wire.stream.write_all(&head).await?;
            wire.stream.flush().await?;
            loop {
                let chunk = tokio::select! {
                    chunk = chunks.recv() => chunk,
                    () = wire.peer_gone() => return Err(ErrorKind::ConnectionAborted.into()),
                };
                match chunk {
                    Some(Chunk::Data(data)) if data.is_empty() => {} // a chunk of no bytes would end the body
                    Some(Chunk::Data(data)) => write_chunk(wire, &data).await?,
                    Some(Chunk::End) => break wire.stream.write_all(b"0\r\n\r\n").await?,
                    None => return Ok(After::Close), // cut: no last chunk
                }
            }
        }
    }
    wire.stream.flush().await?;
    Ok(After::Keep)
}

async fn write_chunk(wire: &mut Wire<impl Socket>, data: &Bytes) -> io::Result<()> {
    let framed = [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat();
    wire.stream.write_all(&framed).await?;
    wire.stream.flush().await
}

async fn run_step(wire: &mut Wire<impl Socket>, step: Step) -> io::Result<()> {
    match step {
        Step::Send(bytes) => wire.stream.write_all(&bytes).await?,
        Step::Flood(block, total) => {
            let mut sent = 0;
            while sent < total {
                wire.stream.write_all(&block).await?;
                sent += block.len() as u64;
            }
        }
        Step::Drip(bytes, pause) => {
            for byte in bytes {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = wire.peer_gone() => return Err(ErrorKind::ConnectionAborted.into()),
                }
                wire.stream.write_all(&[byte]).await?;
                wire.stream.flush().await?;
            }
        }
        Step::Echo => wire.echo().await?,
        Step::Hang => {
            wire.stream.flush().await?;
            wire.peer_gone().await;
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Step::Reset => {} // handled by the caller
    }
    wire.stream.flush().await
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}
