//! Responses of a fake server.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::wire::Fields;

/// One response of a fake server: well-formed ([`Reply::new`], [`Reply::json`], [`Reply::stream`]) or raw bytes
/// ([`Reply::raw`]).
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) kind: Kind,
    pub(super) gate: Option<oneshot::Receiver<()>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    WellFormed { status: u16, fields: Fields, body: Body },
    Raw(Vec<Step>),
}

#[derive(Debug)]
pub(super) enum Body {
    Whole(Bytes),
    Streamed(mpsc::UnboundedReceiver<Chunk>),
}

#[derive(Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    End,
}

/// One step of a raw response over HTTP/1.1; after the last one the connection is closed.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Repeats this block until at least so many bytes are sent or the client closes.
    Flood(Bytes, u64),
    /// Sends these bytes one by one, with a pause before each.
    Drip(Bytes, Duration),
    /// Echoes until the client closes (after a 101).
    Echo,
    /// Sends nothing more and waits until the client closes.
    Hang,
    /// Resets the connection (TCP RST).
    Reset,
}

/// Sends the chunks of a streamed body. Dropped without [`Chunks::finish`], it cuts the body.
#[derive(Debug)]
pub(crate) struct Chunks(mpsc::UnboundedSender<Chunk>);

/// Delays a reply until it is opened or dropped.
#[derive(Debug)]
pub(crate) struct Gate(oneshot::Sender<()>);

impl Reply {
    /// An empty body.
    pub(crate) fn new(status: u16) -> Self {
        Self::well_formed(status, Body::Whole(Bytes::new()))
    }

    /// A JSON body.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::new(status).header("content-type", "application/json").body(value.to_string())
    }

    /// A body whose chunks the test sends one by one.
    pub(crate) fn stream(status: u16) -> (Self, Chunks) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::well_formed(status, Body::Streamed(receiver)), Chunks(sender))
    }

    /// These steps only: adds no header fields, checks no framing.
    pub(crate) fn raw(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { kind: Kind::Raw(steps.into_iter().collect()), gate: None }
    }

    /// Sends exactly these bytes, then closes.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::raw([Step::Send(bytes.into())])
    }

    /// Appends a header field. Content-Length and Transfer-Encoding are added automatically.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Kind::WellFormed { fields, .. } = &mut self.kind {
            fields.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets the whole body.
    pub(crate) fn body(mut self, whole: impl Into<Bytes>) -> Self {
        if let Kind::WellFormed { body, .. } = &mut self.kind {
            *body = Body::Whole(whole.into());
        }
        self
    }

    /// Sends nothing before the gate opens.
    pub(crate) fn gated(mut self) -> (Self, Gate) {
        let (sender, receiver) = oneshot::channel();
        self.gate = Some(receiver);
        (self, Gate(sender))
    }

    fn well_formed(status: u16, body: Body) -> Self {
        Self { kind: Kind::WellFormed { status, fields: Fields::new(), body }, gate: None }
    }
}

impl Step {
    pub(crate) fn send(text: impl Into<Bytes>) -> Self {
        Self::Send(text.into())
    }
}

impl Chunks {
    /// Sends one chunk (or DATA frame).
    pub(crate) fn send(&self, bytes: impl Into<Bytes>) {
        // The client may have closed; see `closed`.
        let _ = self.0.send(Chunk::Data(bytes.into()));
    }

    /// Ends the body correctly.
    pub(crate) fn finish(self) {
        let _ = self.0.send(Chunk::End);
    }

    /// Resolves when the client has closed.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Gate {
    /// A gate and the receiver that resolves when it opens.
    pub(super) fn pair() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Releases the reply.
    pub(crate) fn open(self) {
        let _ = self.0.send(());
    }
}
