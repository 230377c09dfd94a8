//! HTTP/2 by hyper: well-formed responses, or a reset of the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use super::super::reply::{self, Chunk, Kind, Reply, Step};
use super::super::wire::{Fields, text};
use super::{Seen, Shared};

pub(super) async fn serve(stream: TlsStream<TcpStream>, shared: Arc<Shared>, number: usize) {
    let mut going_away = shared.going_away.subscribe();
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    if let Some(limit) = shared.max_streams {
        server.max_concurrent_streams(limit);
    }
    let service = service_fn(move |request| answer(request, Arc::clone(&shared), number));
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // The result does not matter: each stream has recorded its own outcome.
        _ = &mut connection => return,
        _ = going_away.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>, number: usize) -> io::Result<Response<Streamed>> {
    let reply = {
        let seen = read(request, number).await;
        if !seen.complete {
            shared.count_disconnect();
            shared.record(seen);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        shared.reply_to(seen)
    };
    // hyper drops it before the end of the response if the client resets the stream.
    let mut guard = DisconnectGuard { shared, over: false };
    let Reply { kind, gate } = reply;
    if let Some(gate) = gate {
        let _ = gate.await; // a dropped gate opens too
    }
    match kind {
        Kind::WellFormed { status, fields, body } => {
            let mut response = Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(name, value);
            }
            response.body(Streamed { chunks: chunks(body), guard }).map_err(io::Error::other)
        }
        Kind::Raw(steps) => {
            if steps.iter().any(|step| matches!(step, Step::Hang)) {
                std::future::pending::<()>().await;
            }
            guard.over = true;
            Err(io::ErrorKind::ConnectionReset.into()) // becomes RST_STREAM
        }
    }
}

async fn read(request: Request<Incoming>, connection: usize) -> Seen {
    let (head, body) = request.into_parts();
    let pseudo = |name: &str, value: Option<&str>| value.map(|value| (name.to_owned(), value.to_owned()));
    let pseudo = [
        pseudo(":scheme", head.uri.scheme_str()),
        pseudo(":authority", head.uri.authority().map(http::uri::Authority::as_str)),
    ];
    let headers = pseudo.into_iter().flatten().chain(fields(&head.headers)).collect();
    let body = body.collect().await;
    let complete = body.is_ok();
    let (trailers, body) = match body {
        Ok(whole) => (whole.trailers().map(|found| fields(found).collect()).unwrap_or_default(), whole.to_bytes()),
        Err(_) => (Fields::new(), Bytes::new()),
    };
    Seen {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: format!("{:?}", head.version),
        headers,
        body: body.to_vec(),
        trailers,
        complete,
        connection,
    }
}

fn fields(map: &http::HeaderMap) -> impl Iterator<Item = (String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())))
}

fn chunks(body: reply::Body) -> mpsc::UnboundedReceiver<Chunk> {
    match body {
        reply::Body::Streamed(chunks) => chunks,
        reply::Body::Whole(whole) => {
            let (sender, receiver) = mpsc::unbounded_channel();
            // Cannot fail: the receiver is in scope.
            let _ = sender.send(Chunk::Data(whole));
            let _ = sender.send(Chunk::End);
            receiver
        }
    }
}

/// A body that counts a disconnect when it is dropped before its end.
struct Streamed {
    chunks: mpsc::UnboundedReceiver<Chunk>,
    guard: DisconnectGuard,
}

struct DisconnectGuard {
    shared: Arc<Shared>,
    over: bool,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = std::task::ready!(self.chunks.poll_recv(context));
        if let Some(Chunk::Data(data)) = chunk {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.guard.over = true;
        Poll::Ready(match chunk {
            Some(_) => None,
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())), // cut: the stream is reset
        })
    }
}

impl Drop for DisconnectGuard {
    fn drop(&mut self) {
        if !self.over {
            self.shared.count_disconnect();
        }
    }
}

impl fmt::Debug for DisconnectGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DisconnectGuard").field("over", &self.over).finish_non_exhaustive()
    }
}
