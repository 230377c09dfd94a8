//! Stands between the socket and hyper, which is lenient in places: it watches how the requests of an HTTP/1 connection are
//! framed, and hands on nothing that has two readings. It holds a head until it was judged, and of bodies nothing.
//!
//! A head that is refused never reaches hyper. In its place comes a small request of our own, so that the answer is made
//! where all answers are made, and nothing of what follows is looked at. A fault within a body is an error of the
//! connection, so that the request to the upstream is aborted and never completed.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framer::{Framer, Position, Stop};
use crate::server::Limits;
use crate::server::connection::{ConnectionState, IdleTimer};

/// A socket of which hyper sees no more than it should.
pub(in crate::server) struct Strict<S> {
    inner: S,
    framer: Framer,
    limits: Limits,
    pulse: Arc<ConnectionState>,
    /// What was read and cannot be passed yet; empty unless a head came in pieces.
    held: BytesMut,
    /// So much of it can.
    judged: usize,
    stop: Option<Stop>,
    /// No head has passed yet.
    first: bool,
    phase: Phase,
    reading: IdleTimer,
    writing: IdleTimer,
    /// The request that stands in for the refused one was handed on.
    stood_in: bool,
    /// Bytes thrown away at the end.
    drained: usize,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Protocol {
    Http1,
    /// With prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// What is waited for when nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a head.
    Head,
    /// A next request.
    Idle,
    /// Nothing: an answer is under way.
    Answering,
    /// More of a body.
    Body,
    /// The client to hang up.
    Lingering,
}

/// What an HTTP/2 connection starts with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Marks the request that stands in for a refused one.
pub(in crate::server) const REFUSED: &str = "x-pixy-refused";

const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: pixy\r\nconnection: close\r\nx-pixy-refused: 1\r\n\r\n";

/// After a refusal, what the client still sends is read and thrown away for so long and so much: closing at once would reset
/// the connection, and the client might never see why (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

impl<S: AsyncRead + AsyncWrite + Unpin> Strict<S> {
    pub(in crate::server) fn new(inner: S, limits: Limits, pulse: Arc<ConnectionState>) -> Self {
        Self {
            inner,
            framer: Framer::new(limits),
            limits,
            pulse,
            held: BytesMut::new(),
            judged: 0,
            stop: None,
            first: true,
            phase: Phase::Head,
            reading: IdleTimer::default(),
            writing: IdleTimer::default(),
            stood_in: false,
            drained: 0,
        }
    }

    /// Reads until it is clear what the client speaks; that counts as a head's time.
    pub(in crate::server) async fn protocol(&mut self) -> io::Result<Protocol> {
        while self.held.len() < PREFACE.len() && PREFACE.starts_with(&self.held) {
            if poll_fn(|context| self.poll_more(context)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if self.held.starts_with(PREFACE) {
            self.framer.settle(true);
            self.judge_held();
            return Ok(Protocol::Http2);
        }
        self.judge_held();
        Ok(Protocol::Http1)
    }

    /// Reads into what is held.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut self.inner).poll_read(context, &mut buffer)? {
            Poll::Ready(()) => {
                self.held.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Pending => {
                ready!(self.reading.poll(self.limits.header_time, context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn judge_held(&mut self) {
        let (passed, stop) = self.framer.pass(&self.held);
        self.judged = passed;
        self.judged_more(passed, stop);
    }

    fn judged_more(&mut self, passed: usize, stop: Option<Stop>) {
        self.stop = stop;
        if passed > 0 {
            self.first = false;
            self.reading.renew();
            self.pulse.waits().reading.moved(passed);
        }
    }

    /// Hands on what was held and has passed.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.judged.min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.judged -= length;
        if self.held.is_empty() {
            self.held = BytesMut::new(); // an idle connection holds no memory
        }
    }

    /// Nothing came: how long may that last?
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (phase, time) = match self.framer.place() {
            Position::Raw => return Poll::Pending,
            Position::Head | Position::Upgrading if self.pulse.poll_busy(context) => (Phase::Answering, None),
            Position::Head | Position::Upgrading if self.held.is_empty() && !self.first => {
                (Phase::Idle, Some(self.limits.idle_time))
            }
            Position::Head | Position::Upgrading => (Phase::Head, Some(self.limits.header_time)),
            Position::Length(_) | Position::Chunked(_) => (Phase::Body, Some(self.limits.idle_time)),
        };
        if self.phase != phase {
            self.phase = phase;
            self.reading.renew();
            self.pulse.waits().reading.end();
        }
        if phase == Phase::Body {
            self.pulse.waits().reading.begin();
        }
        let Some(time) = time else { return Poll::Pending };
        ready!(self.reading.poll(time, context));
        Poll::Ready(match phase {
            Phase::Body => Err(io::Error::new(io::ErrorKind::TimedOut, "the body of a request stopped coming")),
            // As if the client had hung up.
            Phase::Head | Phase::Idle | Phase::Answering | Phase::Lingering => Ok(()),
        })
    }

    /// Throws away what still comes.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.phase != Phase::Lingering {
            self.phase = Phase::Lingering;
            self.reading.renew();
        }
        let mut space = [0; 4096];
        while self.drained < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.drained += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.reading.poll(LINGER, context),
            }
        }
        Poll::Ready(())
    }

    /// A write that waits for the client is waited for only so long.
    fn poll_taken(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(taken) = &written {
            self.writing.renew();
            self.pulse.waits().writing.moved(*taken.as_ref().unwrap_or(&0));
            return written;
        }
        self.pulse.waits().writing.begin();
        ready!(self.writing.poll(self.limits.idle_time, context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped taking the answer")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.judged > 0 {
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            match this.stop {
                Some(Stop::Rejection(refused)) if !this.stood_in => {
                    this.pulse.refuse(refused);
                    this.held = BytesMut::from(STAND_IN);
                    this.judged = STAND_IN.len();
                    this.stood_in = true;
                    continue;
                }
                // Not an end of file: hyper would take it for a client that does not wait for its answer.
                Some(Stop::Rejection(_)) => return Poll::Pending,
                Some(Stop::Broken(why)) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why))),
                None => {}
            }
            if this.framer.place() == Position::Upgrading {
                if this.pulse.switched() || !this.pulse.poll_busy(context) {
                    this.framer.settle(this.pulse.switched());
                    this.judge_held();
                    if !this.held.is_empty() {
                        continue;
                    }
                } else if this.held.len() >= this.limits.header_bytes {
                    return Poll::Pending; // so much is enough before the answer
                }
            }
            let before = buffer.filled().len();
            if Pin::new(&mut this.inner).poll_read(context, buffer)?.is_pending() {
                return this.poll_silence(context);
            }
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                // What passes stays where it is; only the beginning of a head is taken back.
                let (passed, stop) = this.framer.pass(fresh);
                this.held.extend_from_slice(&fresh[passed..]);
                this.judged_more(passed, stop);
                buffer.set_filled(before + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(fresh);
                buffer.set_filled(before);
                this.judge_held();
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.poll_taken(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, pieces);
        this.poll_taken(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase != Phase::Lingering {
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
        }
        if this.stop.is_some() {
            ready!(this.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
