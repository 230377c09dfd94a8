//! What an HTTP/2 server says about its connection, read as the bytes pass: hyper keeps it to itself.
//!
//! Only frame headers (RFC 9113 §4.1) and the payload of SETTINGS are looked at; nothing is copied, held back or judged:
//! that is for h2, which reads the same bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// What the server has said so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// How many streams it allows at once; `None` before its first SETTINGS, which must be its first frame (RFC 9113 §3.4).
    pub(super) streams: Option<u32>,
    /// It sent GOAWAY: it takes no new streams.
    pub(super) going_away: bool,
}

/// A connection that is listened to.
pub(super) struct Tap<T> {
    inner: T,
    walker: Walker,
    told: watch::Sender<Settings>,
}

impl<T> Tap<T> {
    pub(super) fn new(inner: T, told: watch::Sender<Settings>) -> Self {
        Self { inner, walker: Walker::default(), told }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let this = &mut *self;
        ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
        if this.walker.walk(&into.filled()[before..]) {
            this.told.send_replace(this.walker.told);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Steps from frame to frame, however the bytes are cut.
#[derive(Default)]
struct Walker {
    /// A frame's header, or one parameter of SETTINGS, as far as it has come.
    piece: [u8; 9],
    come: usize,
    /// What is left of the frame's payload.
    left: usize,
    in_settings: bool,
    told: Settings,
}

impl Walker {
    /// Whether anything was said that we did not know.
    fn walk(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.told;
        while !bytes.is_empty() {
            if self.left > 0 && !self.in_settings {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let whole = if self.left > 0 { PARAMETER } else { HEADER };
            let taken = (whole - self.come).min(bytes.len());
            self.piece[self.come..self.come + taken].copy_from_slice(&bytes[..taken]);
            self.come += taken;
            bytes = &bytes[taken..];
            if self.come == whole {
                self.come = 0;
                if whole == HEADER { self.header() } else { self.parameter() }
            }
        }
        self.told != before
    }

    fn header(&mut self) {
        let [l0, l1, l2, kind, flags, ..] = self.piece;
        self.left = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // A SETTINGS whose length is no multiple of 6 is a connection error (RFC 9113 §6.5), which h2 will find.
        self.in_settings = kind == SETTINGS && flags & ACK == 0 && self.left.is_multiple_of(PARAMETER);
        self.told.going_away |= kind == GOAWAY;
        if self.in_settings && self.told.streams.is_none() && self.left == 0 {
            self.told.streams = Some(u32::MAX);
        }
    }

    fn parameter(&mut self) {
        self.left -= PARAMETER;
        let [id0, id1, v0, v1, v2, v3, ..] = self.piece;
        if u16::from_be_bytes([id0, id1]) == MAX_CONCURRENT_STREAMS {
            self.told.streams = Some(u32::from_be_bytes([v0, v1, v2, v3]));
        } else if self.left == 0 && self.told.streams.is_none() {
            // The first SETTINGS does not name it: no limit (RFC 9113 §6.5.2).
            self.told.streams = Some(u32::MAX);
        }
    }
}

const HEADER: usize = 9;
const PARAMETER: usize = 6;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn told(bytes: &[u8], cut: usize) -> Settings {
        let mut walker = Walker::default();
        bytes.chunks(cut).for_each(|piece| {
            walker.walk(piece);
        });
        walker.told
    }

    #[test]
    fn the_limit_is_found_wherever_the_bytes_are_cut() {
        let window = [0, 4, 0, 1, 0, 0];
        let limit = [0, 3, 0, 0, 0, 10];
        let data = frame(0, 0, &[4; 100]); // looks like SETTINGS inside
        let lower = frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 7]);
        let end = frame(GOAWAY, 0, &[0; 8]);
        for first in [[window, limit].concat(), [limit, window].concat(), limit.to_vec()] {
            let mut bytes = frame(SETTINGS, 0, &first);
            for cut in 1..40 {
                assert_eq!(told(&bytes, cut), Settings { streams: Some(10), going_away: false }, "{cut}");
            }
            bytes.extend([frame(SETTINGS, ACK, &[]), data.clone(), lower.clone(), data.clone(), end.clone()].concat());
            for cut in 1..200 {
                assert_eq!(told(&bytes, cut), Settings { streams: Some(7), going_away: true }, "{cut}");
            }
        }
    }

    #[test]
    fn settings_without_a_limit_mean_no_limit_and_no_settings_mean_nothing() {
        let none = Settings { streams: Some(u32::MAX), going_away: false };
        assert_eq!(told(&frame(SETTINGS, 0, &[]), 3), none);
        assert_eq!(told(&frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0]), 3), none);
        // Later SETTINGS without it leave it as it was.
        let both = [frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 1]), frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0])].concat();
        assert_eq!(told(&both, 5), Settings { streams: Some(1), going_away: false });
        let mut walker = Walker::default();
        assert!(!walker.walk(&frame(SETTINGS, ACK, &[])) && !walker.walk(&frame(0, 0, &[1; 9])));
        assert_eq!(walker.told, Settings::default());
        assert!(walker.walk(&frame(SETTINGS, 0, &[])) && !walker.walk(&frame(SETTINGS, 0, &[])));
    }
}
