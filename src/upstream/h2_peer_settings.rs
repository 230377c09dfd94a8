//! Observes an HTTP/2 server's limit of concurrent streams and its GOAWAY in the bytes that hyper reads: hyper does not expose them.
//!
//! Reads frame headers (RFC 9113 §4.1) and the payload of SETTINGS alone; copies, delays and validates nothing: h2 validates the same
//! bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::watch;

/// The server's settings so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PeerSettings {
    /// SETTINGS_MAX_CONCURRENT_STREAMS; `None` before the first SETTINGS, which must be the first frame (RFC 9113 §3.4).
    pub(super) max_streams: Option<u32>,
    /// The server sent GOAWAY: it takes no new streams.
    pub(super) going_away: bool,
}

/// Reports the settings in what is read from `stream`.
pub(super) fn observe<T: AsyncRead + AsyncWrite>(
    stream: T,
    settings: watch::Sender<PeerSettings>,
) -> Join<ObservedReader<ReadHalf<T>>, WriteHalf<T>> {
    let (inner, writer) = tokio::io::split(stream);
    tokio::io::join(ObservedReader { inner, parser: SettingsParser::default(), settings }, writer)
}

/// A reader whose frames are observed.
pub(super) struct ObservedReader<T> {
    inner: T,
    parser: SettingsParser,
    settings: watch::Sender<PeerSettings>,
}

impl<T: AsyncRead + Unpin> AsyncRead for ObservedReader<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let this = &mut *self;
        ready!(Pin::new(&mut this.inner).poll_read(context, into))?;
        if this.parser.feed(&into.filled()[before..]) {
            this.settings.send_replace(this.parser.settings);
        }
        Poll::Ready(Ok(()))
    }
}

/// Finds SETTINGS and GOAWAY in a sequence of frames, which may be cut anywhere.
#[derive(Default)]
struct SettingsParser {
    /// A frame's header, or one parameter of SETTINGS, of which `filled` bytes were received.
    piece: [u8; 9],
    filled: usize,
    /// Bytes of the frame's payload still to come.
    remaining: usize,
    in_settings: bool,
    settings: PeerSettings,
}

impl SettingsParser {
    /// Returns whether the settings changed.
    fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let before = self.settings;
        while !bytes.is_empty() {
            if self.remaining > 0 && !self.in_settings {
                let skipped = self.remaining.min(bytes.len());
                self.remaining -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let whole = if self.remaining > 0 { PARAMETER } else { HEADER };
            let taken = (whole - self.filled).min(bytes.len());
            self.piece[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == whole {
                self.filled = 0;
                if whole == HEADER { self.header() } else { self.parameter() }
            }
        }
        self.settings != before
    }

    fn header(&mut self) {
        let [l0, l1, l2, kind, flags, ..] = self.piece;
        self.remaining = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // A SETTINGS whose length is no multiple of 6 is a connection error (RFC 9113 §6.5), which h2 reports.
        self.in_settings = kind == SETTINGS && flags & ACK == 0 && self.remaining.is_multiple_of(PARAMETER);
        self.settings.going_away |= kind == GOAWAY;
        if self.in_settings && self.settings.max_streams.is_none() && self.remaining == 0 {
            self.settings.max_streams = Some(u32::MAX);
        }
    }

    fn parameter(&mut self) {
        self.remaining -= PARAMETER;
        let [id0, id1, v0, v1, v2, v3, ..] = self.piece;
        if u16::from_be_bytes([id0, id1]) == MAX_CONCURRENT_STREAMS {
            self.settings.max_streams = Some(u32::from_be_bytes([v0, v1, v2, v3]));
        } else if self.remaining == 0 && self.settings.max_streams.is_none() {
            // The first SETTINGS does not contain it: no limit (RFC 9113 §6.5.2).
            self.settings.max_streams = Some(u32::MAX);
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

    fn observed(bytes: &[u8], cut: usize) -> PeerSettings {
        let mut parser = SettingsParser::default();
        bytes.chunks(cut).for_each(|piece| {
            parser.feed(piece);
        });
        parser.settings
    }

    #[test]
    fn the_limit_is_found_however_frames_are_cut() {
        let window = [0, 4, 0, 1, 0, 0];
        let limit = [0, 3, 0, 0, 0, 10];
        let data = frame(0, 0, &[4; 100]); // its payload looks like SETTINGS
        let lower = frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 7]);
        let end = frame(GOAWAY, 0, &[0; 8]);
        for first in [[window, limit].concat(), [limit, window].concat(), limit.to_vec()] {
            let mut bytes = frame(SETTINGS, 0, &first);
            for cut in 1..40 {
                assert_eq!(observed(&bytes, cut), PeerSettings { max_streams: Some(10), going_away: false }, "{cut}");
            }
            bytes.extend([frame(SETTINGS, ACK, &[]), data.clone(), lower.clone(), data.clone(), end.clone()].concat());
            for cut in 1..200 {
                assert_eq!(observed(&bytes, cut), PeerSettings { max_streams: Some(7), going_away: true }, "{cut}");
            }
        }
    }

    #[test]
    fn settings_without_a_limit_mean_no_limit() {
        let none = PeerSettings { max_streams: Some(u32::MAX), going_away: false };
        assert_eq!(observed(&frame(SETTINGS, 0, &[]), 3), none);
        assert_eq!(observed(&frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0]), 3), none);
        // Later SETTINGS without the parameter do not change it.
        let both = [frame(SETTINGS, 0, &[0, 3, 0, 0, 0, 1]), frame(SETTINGS, 0, &[0, 4, 0, 1, 0, 0])].concat();
        assert_eq!(observed(&both, 5), PeerSettings { max_streams: Some(1), going_away: false });
        let mut parser = SettingsParser::default();
        assert!(!parser.feed(&frame(SETTINGS, ACK, &[])) && !parser.feed(&frame(0, 0, &[1; 9])));
        assert_eq!(parser.settings, PeerSettings::default());
        assert!(parser.feed(&frame(SETTINGS, 0, &[])) && !parser.feed(&frame(SETTINGS, 0, &[])));
    }
}
