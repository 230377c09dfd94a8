//! A socket wrapper that checks the framing of HTTP/1 requests before hyper, which is lenient in places, parses them: it passes
//! on nothing that has two readings. It buffers a head until the head is checked, and nothing of a body.
//!
//! A rejected head never reaches hyper. hyper gets a substitute request instead, so that it writes the response to the rejection
//! after those to earlier requests, and no byte after the rejected head is parsed. An error within a body is an I/O error of the
//! connection, so that the request to the upstream is aborted and never completed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf, Take};

use super::framer::{Framer, FramerState, FramingError};
use crate::server::buffers::Buffers;
use crate::server::connection::{ConnectionState, IdleTimer};
use crate::server::limits::ServerLimits;
use crate::server::rejection::Rejection;

/// A socket from which hyper reads checked bytes only.
pub(in crate::server) struct Strict<S> {
    inner: Take<S>,
    framer: Framer,
    limits: ServerLimits,
    memory: Buffers,
    connection: Arc<ConnectionState>,
    /// Bytes that were read and not passed on; empty unless a head arrived in pieces.
    buffered: BytesMut,
    /// How many bytes of `buffered` are checked.
    checked: usize,
    error: Option<FramingError>,
    /// No byte of a request has passed yet.
    is_new: bool,
    phase: Phase,
    read_timer: IdleTimer,
    write_timer: IdleTimer,
    /// The substitute for the rejected request was passed on.
    substituted: bool,
    /// Bytes discarded while lingering.
    discarded: usize,
}

/// What a read without data waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The rest of a head.
    Head,
    /// The next request.
    Idle,
    /// Not the client: an exchange is open.
    Exchange,
    /// More of a body.
    Body,
    /// The client to close the connection.
    Lingering,
}

/// The header that marks the substitute for a rejected request.
pub(in crate::server) const SUBSTITUTE_MARK: &str = "x-pixy-refused";

const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nhost: pixy\r\nconnection: close\r\nx-pixy-refused: 1\r\n\r\n";

/// After a framing error, what the client still sends is read and discarded up to these bounds: to close at once would reset
/// the connection, and the client might never see the response (RFC 9112 §9.6).
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// The most bytes of one read. Below 16 KiB, so that hyper, which doubles its buffer when a read fills it, stays at 16 KiB; its
/// maximum must have room for the longest head.
const READ_SIZE: u64 = 16 * 1024 - 1;

impl<S: AsyncRead + AsyncWrite + Unpin> Strict<S> {
    pub(in crate::server) fn new(
        inner: S,
        limits: ServerLimits,
        connection: Arc<ConnectionState>,
        memory: Buffers,
    ) -> Self {
        Self {
            inner: inner.take(READ_SIZE),
            framer: Framer::new(limits),
            limits,
            memory,
            connection,
            buffered: BytesMut::new(),
            checked: 0,
            error: None,
            is_new: true,
            phase: Phase::Head,
            read_timer: IdleTimer::default(),
            write_timer: IdleTimer::default(),
            substituted: false,
            discarded: 0,
        }
    }

    fn check_buffered(&mut self) {
        let (passed, error) = self.framer.check(&self.buffered);
        self.checked = passed;
        self.record_check(passed, error);
    }

    fn record_check(&mut self, passed: usize, error: Option<FramingError>) {
        self.error = error;
        if passed > 0 {
            self.is_new = false;
            self.read_timer.reset();
            self.connection.stall().reading.record_progress(passed);
        }
    }

    /// Passes on buffered bytes that are checked.
    fn take_checked(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.checked.min(buffer.remaining());
        buffer.put_slice(&self.buffered[..length]);
        self.buffered.advance(length);
        self.checked -= length;
        if self.buffered.is_empty() {
            self.buffered = BytesMut::new(); // an idle connection holds no memory
        }
    }

    /// Nothing arrived: applies the timeout of the current phase.
    fn poll_read_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (phase, timeout) = match self.framer.state() {
            FramerState::Upgraded => return Poll::Pending,
            FramerState::Head | FramerState::Upgrading if self.connection.poll_busy(context) => (Phase::Exchange, None),
            FramerState::Head | FramerState::Upgrading if self.buffered.is_empty() && !self.is_new => {
                (Phase::Idle, Some(self.limits.idle_time))
            }
            FramerState::Head | FramerState::Upgrading => (Phase::Head, Some(self.limits.header_time)),
            FramerState::Length(_) | FramerState::Chunked(_) => (Phase::Body, Some(self.limits.idle_time)),
        };
        if self.phase != phase {
            self.phase = phase;
            self.read_timer.reset();
            self.connection.stall().reading.reset();
        }
        if phase == Phase::Body {
            self.connection.stall().reading.start();
        }
        let Some(timeout) = timeout else { return Poll::Pending };
        self.connection.waits_for_request();
        ready!(self.read_timer.poll_elapsed(timeout, context));
        Poll::Ready(match phase {
            Phase::Body => Err(io::Error::new(io::ErrorKind::TimedOut, "the request body timed out")),
            // Like an end of file: hyper closes the connection without a response.
            Phase::Head | Phase::Idle | Phase::Exchange | Phase::Lingering => Ok(()),
        })
    }

    /// Discards what the client still sends.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.phase != Phase::Lingering {
            self.phase = Phase::Lingering;
            self.read_timer.reset();
        }
        let mut space = [0; 4096];
        while self.discarded < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(self.inner.get_mut()).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.discarded += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.read_timer.poll_elapsed(LINGER_TIME, context),
            }
        }
        Poll::Ready(())
    }

    /// Applies the timeout to a write that waits for the client.
    fn poll_write_timeout(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(accepted) = &written {
            let accepted = *accepted.as_ref().unwrap_or(&0);
            self.write_timer.reset();
            self.connection.stall().writing.record_progress(accepted);
            self.connection.record_written(accepted, context);
            self.memory.release_unread();
            return written;
        }
        self.connection.stall().writing.start();
        if !self.memory.reserve_unread() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, "no memory for a response that waits")));
        }
        ready!(self.write_timer.poll_elapsed(self.limits.idle_time, context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading the response")))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Strict<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.checked > 0 {
                this.take_checked(buffer);
                return Poll::Ready(Ok(()));
            }
            match this.error {
                Some(FramingError::Head(rejection)) if !this.substituted => {
                    this.connection.reject(rejection);
                    this.buffered = BytesMut::from(SUBSTITUTE);
                    this.checked = SUBSTITUTE.len();
                    this.substituted = true;
                    continue;
                }
                // Not an end of file: hyper would take it for a client that does not wait for its response.
                Some(FramingError::Head(_)) => return Poll::Pending,
                Some(FramingError::Body(reason)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                None => {}
            }
            if this.framer.state() == FramerState::Upgrading {
                if this.connection.is_upgraded() || !this.connection.poll_busy(context) {
                    this.framer.finish_upgrade(this.connection.is_upgraded());
                    this.check_buffered();
                    if !this.buffered.is_empty() {
                        continue;
                    }
                } else if this.buffered.len() >= this.limits.header_bytes {
                    return Poll::Pending; // enough to buffer before the response
                }
            }
            let before = buffer.filled().len();
            this.inner.set_limit(READ_SIZE);
            if Pin::new(&mut this.inner).poll_read(context, buffer)?.is_pending() {
                return this.poll_read_timeout(context);
            }
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if this.buffered.is_empty() {
                // Bytes that pass are not copied; only an incomplete head moves to `buffered`.
                let (passed, error) = this.framer.check(fresh);
                let rest = &fresh[passed..];
                let error = error.or_else(|| keep(&mut this.memory, &mut this.buffered, rest));
                this.record_check(passed, error);
                buffer.set_filled(before + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let error = keep(&mut this.memory, &mut this.buffered, fresh);
                buffer.set_filled(before);
                match error {
                    Some(error) => this.record_check(0, Some(error)),
                    None => this.check_buffered(),
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(this.inner.get_mut()).poll_write(context, bytes);
        this.poll_write_timeout(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(this.inner.get_mut()).poll_write_vectored(context, pieces);
        this.poll_write_timeout(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.get_ref().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().inner.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase != Phase::Lingering {
            ready!(Pin::new(this.inner.get_mut()).poll_shutdown(context))?;
        }
        if this.error.is_some() {
            ready!(this.poll_linger(context));
        }
        Poll::Ready(Ok(()))
    }
}

/// Appends bytes of an incomplete head, if there is memory for it.
fn keep(memory: &mut Buffers, buffered: &mut BytesMut, bytes: &[u8]) -> Option<FramingError> {
    if !memory.reserve_head(buffered.len() + bytes.len()) {
        return Some(FramingError::Head(Rejection::Overloaded));
    }
    buffered.extend_from_slice(bytes);
    None
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
