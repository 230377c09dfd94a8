//! What a fake server answers.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::wire::Fields;

/// One answer of a fake server: a decent one ([`Reply::new`], [`Reply::json`], [`Reply::stream`]) or bytes and mischief
/// ([`Reply::raw`]).
#[derive(Debug)]
pub(crate) struct Reply {
    pub(super) kind: Kind,
    pub(super) gate: Option<oneshot::Receiver<()>>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Decent { status: u16, fields: Fields, body: Body },
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

/// One step of a raw answer over HTTP/1.1; after the last one the connection is closed.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// These bytes.
    Send(Bytes),
    /// This block again and again until so many bytes have left or the client hangs up.
    Flood(Bytes, u64),
    /// These bytes one by one, with a pause before each.
    Drip(Bytes, Duration),
    /// Whatever the client sends, back to it, until it closes (after a 101).
    Echo,
    /// Nothing more, until the client hangs up.
    Hang,
    /// Now the connection is reset (TCP RST), not closed.
    Reset,
}

/// The test's end of a streamed body. Dropped without [`Chunks::finish`], the body is cut in the middle.
#[derive(Debug)]
pub(crate) struct Chunks(mpsc::UnboundedSender<Chunk>);

/// Holds back a reply until it is opened or dropped.
#[derive(Debug)]
pub(crate) struct Gate(oneshot::Sender<()>);

impl Reply {
    /// A status, no body yet.
    pub(crate) fn new(status: u16) -> Self {
        Self::decent(status, Body::Whole(Bytes::new()))
    }

    /// A JSON body.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self::new(status).header("content-type", "application/json").body(value.to_string())
    }

    /// A body of chunks that the test releases one by one.
    pub(crate) fn stream(status: u16) -> (Self, Chunks) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self::decent(status, Body::Streamed(receiver)), Chunks(sender))
    }

    /// These steps and nothing else: no header is added, no framing is checked.
    pub(crate) fn raw(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { kind: Kind::Raw(steps.into_iter().collect()), gate: None }
    }

    /// Exactly these bytes, then the connection is closed.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::raw([Step::Send(bytes.into())])
    }

    /// Adds a header field, after those that are there. The framing fields come by themselves.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Kind::Decent { fields, .. } = &mut self.kind {
            fields.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets the whole body.
    pub(crate) fn body(mut self, whole: impl Into<Bytes>) -> Self {
        if let Kind::Decent { body, .. } = &mut self.kind {
            *body = Body::Whole(whole.into());
        }
        self
    }

    /// Nothing of it leaves before the gate opens.
    pub(crate) fn gated(mut self) -> (Self, Gate) {
        let (sender, receiver) = oneshot::channel();
        self.gate = Some(receiver);
        (self, Gate(sender))
    }

    fn decent(status: u16, body: Body) -> Self {
        Self { kind: Kind::Decent { status, fields: Fields::new(), body }, gate: None }
    }
}

impl Step {
    /// Text as bytes to send.
    pub(crate) fn send(text: impl Into<Bytes>) -> Self {
        Self::Send(text.into())
    }
}

impl Chunks {
    /// Lets a chunk go. It leaves at once, as a chunk (or DATA frame) of its own.
    pub(crate) fn send(&self, bytes: impl Into<Bytes>) {
        // The client may be gone; the test that cares asks `closed`.
        let _ = self.0.send(Chunk::Data(bytes.into()));
    }

    /// Ends the body as it should end.
    pub(crate) fn finish(self) {
        let _ = self.0.send(Chunk::End);
    }

    /// Resolves when nobody takes this body any more: the client hung up.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Gate {
    /// A gate and what waits for it.
    pub(super) fn pair() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Lets the reply go.
    pub(crate) fn open(self) {
        let _ = self.0.send(());
    }
}
