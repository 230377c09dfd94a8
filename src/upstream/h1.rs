//! HTTP/1.1: one request at a time, and the connection goes on only after a clean end of both messages.

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::client::conn::http1;
use tokio::sync::{mpsc, oneshot};

use super::body::{Held, Incoming, Outbound};
use super::dial::Stream;
use super::pool::Origin;
use super::{Body, BoxError, Failure, Unclear, head};

/// A connection that somebody holds, or that lies in the pool. Dropping it closes the connection.
pub(super) struct Http1 {
    sender: http1::SendRequest<Outbound>,
    id: u64,
    reused: bool,
    /// It carries no other request.
    last: bool,
    origin: Weak<Origin>,
    /// The way back to the task that drives the connection.
    back: mpsc::UnboundedSender<Self>,
}

type Connection = http1::Connection<Stream, Outbound>;

/// Begins HTTP/1.1 on a stream, for the pool.
pub(super) async fn open(origin: &Arc<Origin>, stream: Stream) -> Result<Http1, BoxError> {
    let (sender, connection) = http1::handshake(stream).await?;
    let (back, given_back) = mpsc::unbounded_channel();
    let (id, origin) = (origin.number(), Arc::downgrade(origin));
    tokio::spawn(drive(connection, given_back, Weak::clone(&origin), id));
    Ok(Http1 { sender, id, reused: false, last: false, origin, back })
}

/// Sends a request on a connection of its own that may become another protocol (RFC 9110 §7.8).
pub(super) async fn upgrade(stream: Stream, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
    let (mut sender, connection) = http1::handshake(stream).await?;
    let (held, mut let_go) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection.with_upgrades());
        tokio::select! {
            biased;
            _ = &mut connection => {}
            switched = &mut let_go => if switched.is_ok() {
                // Ends as soon as the stream is handed over.
                let _ = connection.await;
            }
        }
    });
    let response = sender.send_request(outgoing(request)).await?;
    if !head::is_clear(&response) {
        return Err(head::UNCLEAR.into());
    }
    Ok(if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let _ = held.send(());
        response.map(|body| Incoming::new(body, Held::Nothing))
    } else {
        response.map(|body| Incoming::new(body, Held::Own(held)))
    })
}

impl Http1 {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it carried a request before: then its server may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        mut self,
        request: Request<Body>,
        unclear: Unclear,
    ) -> Result<Response<Incoming>, Failure> {
        let uri = request.uri().clone();
        match self.sender.try_send_request(outgoing(request)).await {
            Ok(response) => {
                // Nobody asked for another protocol (RFC 9110 §15.2.2).
                let clear = response.status() != StatusCode::SWITCHING_PROTOCOLS && head::is_clear(&response);
                if !clear && unclear == Unclear::Refused {
                    return Err(Failure::Broken(head::UNCLEAR.into()));
                }
                self.last |= !clear;
                Ok(response.map(|body| Incoming::new(body, Held::Http1(self))))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => {
                    let mut request = request.map(Outbound::into_inner);
                    *request.uri_mut() = uri;
                    Failure::NeverSent(Box::new(request), error.into_error().into())
                }
                None => Failure::Broken(error.into_error().into()),
            }),
        }
    }

    /// The answer has ended as it should. The connection is free as soon as the request has ended too, which it
    /// nearly always has.
    pub(super) fn give_back(mut self) {
        self.reused = true;
        if self.last {
            return;
        }
        if self.sender.is_ready() {
            if let Some(origin) = self.origin.upgrade() {
                origin.park(self);
            }
        } else {
            let back = self.back.clone();
            // When the driver is gone, so is the connection.
            let _ = back.send(self);
        }
    }
}

/// Moves the bytes of a connection for as long as it lives.
async fn drive(connection: Connection, mut back: mpsc::UnboundedReceiver<Http1>, origin: Weak<Origin>, id: u64) {
    let mut connection = std::pin::pin!(connection);
    let mut look = std::pin::pin!(tokio::time::sleep(origin.upgrade().map_or(ENDING, |origin| origin.tuning.idle)));
    loop {
        tokio::select! {
            biased;
            _ = &mut connection => break,
            given_back = back.recv() => {
                // Nobody holds it: it was let go of before a clean end, and closing it says so to the upstream.
                let Some(mut held) = given_back else { break };
                let ready = async {
                    tokio::select! {
                        biased;
                        _ = &mut connection => false,
                        ready = held.sender.ready() => ready.is_ok(),
                    }
                };
                match (tokio::time::timeout(ENDING, ready).await, origin.upgrade()) {
                    (Ok(true), Some(origin)) => origin.park(held),
                    _ => break,
                }
            }
            () = &mut look => {
                let Some(origin) = origin.upgrade() else { break };
                match origin.expired(id) {
                    Err(again) => look.as_mut().reset(again),
                    Ok(unused) => {
                        // hyper says goodbye (TLS close_notify) when nobody can send any more.
                        drop(unused);
                        let _ = tokio::time::timeout(ENDING, connection).await;
                        return;
                    }
                }
            }
        }
    }
    if let Some(origin) = origin.upgrade() {
        origin.forget(id);
    }
}

/// The request as HTTP/1.1 wants it: origin form (RFC 9112 §3.2.1) and the host in `Host`.
fn outgoing(mut request: Request<Body>) -> Request<Outbound> {
    let uri = std::mem::take(request.uri_mut());
    if let Some(host) = host(&uri) {
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    request.map(|body| Outbound::new(body, None))
}

/// The authority without a default port (RFC 9110 §7.2).
fn host(uri: &Uri) -> Option<HeaderValue> {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    let host = uri.host()?;
    match uri.port_u16() {
        Some(port) if port != default => HeaderValue::try_from(format!("{host}:{port}")).ok(),
        _ => HeaderValue::from_str(host).ok(),
    }
}

/// How long a request may go on after its answer has ended, and a closing connection after its end.
const ENDING: Duration = Duration::from_secs(1);
