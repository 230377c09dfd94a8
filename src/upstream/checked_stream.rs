//! A socket wrapper that checks the framing of HTTP/1.1 responses before hyper parses them. It buffers a head until the head is
//! checked, and nothing of a body. What is malformed never reaches hyper: the connection fails instead, and with it the exchange.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::response_framer::ResponseFramer;
use crate::lock::lock;

/// A socket from which hyper reads checked bytes only.
pub(super) struct CheckedStream<S> {
    inner: S,
    /// Shared with the owner of the connection, which announces its requests.
    framer: Arc<Mutex<ResponseFramer>>,
    /// Bytes that were read and not passed on; empty unless a head arrived in pieces.
    buffered: BytesMut,
    /// How many bytes of `buffered` are checked.
    checked: usize,
    wrong: Option<&'static str>,
}

impl<S> CheckedStream<S> {
    /// The stream, and what judges its responses.
    pub(super) fn new(inner: S) -> (Self, Arc<Mutex<ResponseFramer>>) {
        let framer = Arc::new(Mutex::new(ResponseFramer::new()));
        let (buffered, checked, wrong) = (BytesMut::new(), 0, None);
        (Self { inner, framer: Arc::clone(&framer), buffered, checked, wrong }, framer)
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
}

impl<S: AsyncRead + Unpin> AsyncRead for CheckedStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.checked > 0 {
                this.take_checked(buffer);
                return Poll::Ready(Ok(()));
            }
            if let Some(wrong) = this.wrong {
                let message = format!("the upstream's response is malformed: {wrong}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(())); // hyper knows whether a message is incomplete
            }
            let mut framer = lock(&this.framer);
            if this.buffered.is_empty() {
                // Bytes that pass are not copied; only an incomplete head moves to `buffered`.
                let (passed, wrong) = framer.check(fresh);
                this.wrong = wrong;
                this.buffered.extend_from_slice(&fresh[passed..]);
                buffer.set_filled(before + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.buffered.extend_from_slice(fresh);
                buffer.set_filled(before);
                (this.checked, this.wrong) = framer.check(&this.buffered);
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CheckedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        lock(&this.framer).record_write();
        Pin::new(&mut this.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        lock(&this.framer).record_write();
        Pin::new(&mut this.inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
