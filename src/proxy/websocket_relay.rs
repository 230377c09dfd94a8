//! Relays the frames of a WebSocket (RFC 6455) in both directions after the upstream's 101, until one side ends.
//!
//! The handshake takes all the steps of a request, and no byte of the agent is forwarded before the 101. Frames are forwarded
//! unchanged, but for secrets in those of the upstream.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::agent::AgentGrant;
use super::request_id::RequestId;
use super::response_body::ResponseBody;
use super::response_scrub::ResponseScrub;
use super::websocket_frames::{FrameError, FrameParser, FramePart};
use super::websocket_handshake::Handshake;
use crate::account::UsageMeter;
use crate::lock::lock;
use crate::metrics::OpenStream;
use crate::name::AccountName;
use crate::server::Upgraded;
use crate::upstream::Incoming;

/// The resources held for the lifetime of a WebSocket.
pub struct WebSocketRelay {
    /// The request that opened it.
    pub id: RequestId,
    /// The account whose token opened it.
    pub account: AccountName,
    /// The agent's permission.
    pub grant: AgentGrant,
    /// Scrubs the upstream's frames.
    pub scrub: ResponseScrub,
    /// Counts the account's usage.
    pub usage: UsageMeter,
    /// Closes the WebSocket after this time without a byte in either direction.
    pub idle_timeout: Duration,
    /// Counts the WebSocket as an open stream.
    pub open: OpenStream,
}

/// Why a WebSocket ended.
#[derive(Debug)]
enum CloseReason {
    /// A peer closed its connection.
    Closed(Peer),
    /// A peer's connection failed.
    Failed(Peer, io::Error),
    /// A peer sent invalid frames.
    Invalid(Peer, FrameError),
    /// No byte in either direction within the idle timeout.
    IdleTimeout,
    /// Pixy shuts down, and no message was in progress.
    Shutdown,
    /// The agent stalled, and a new connection needs the place.
    Evicted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Agent,
    Upstream,
}

/// Forwards the frames of one direction.
struct FrameForwarder<P> {
    from: Peer,
    parser: FrameParser,
    payload: P,
    /// A write is in progress: how much of it was sent is unknown.
    writing: bool,
}

/// When a byte was read last, from either peer.
struct LastActivity(Mutex<Instant>);

/// Size of a read, in bytes.
const READ_SIZE: usize = 8 * 1024;

/// On shutdown, a WebSocket without a byte for this long is between two messages.
const SHUTDOWN_IDLE: Duration = Duration::from_secs(1);

/// Time for each step of closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Close codes (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;

/// Sends the 101 to the agent, and relays frames once both connections are upgraded.
pub fn start(handshake: Handshake, mut accepted: Response<Incoming>, relay: WebSocketRelay) -> Response<ResponseBody> {
    debug_assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upstream = hyper::upgrade::on(&mut accepted);
    let (agent, upgraded) = (handshake.agent, handshake.upgrade.accept());
    tokio::spawn(async move {
        // The agent may disconnect before it has the 101; the upstream's connection is upgraded already.
        if let (Ok(agent), Ok(upstream)) = tokio::join!(agent, upstream) {
            relay.run(TokioIo::new(agent), TokioIo::new(upstream), upgraded).await;
        }
    });
    accepted.map(|_| ResponseBody::fixed(""))
}

/// Forwards the frames of an upstream until it closes.
#[cfg(test)]
pub(super) async fn forward_frames(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut scrub: ResponseScrub,
) {
    let scrub = |piece: Bytes, ends_frame, _| scrub.piece(piece, ends_frame);
    let mut down = FrameForwarder::new(Peer::Upstream, FrameParser::of_upstream(), scrub);
    down.run(&mut from, &mut to, &LastActivity(Mutex::new(Instant::now()))).await;
}

impl WebSocketRelay {
    async fn run<S: AsyncRead + AsyncWrite>(self, agent: S, upstream: S, upgraded: Upgraded) {
        let Self { id, account, grant, mut scrub, mut usage, idle_timeout, open } = self;
        let (mut from_agent, mut to_agent) = tokio::io::split(agent);
        let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
        let scrub_and_count = |piece: Bytes, ends_frame, ends_message| {
            usage.feed(&piece);
            if ends_message {
                grant.count_tokens(usage.count().total()); // each message is a response of its own
            }
            scrub.piece(piece, ends_frame)
        };
        let mut down = FrameForwarder::new(Peer::Upstream, FrameParser::of_upstream(), scrub_and_count);
        let note_progress = |piece, _, ends_message| {
            if ends_message {
                upgraded.waits_for_upstream();
            } else {
                upgraded.waits_for_client();
            }
            piece
        };
        let mut up = FrameForwarder::new(Peer::Agent, FrameParser::of_agent(), note_progress);
        let activity = LastActivity(Mutex::new(Instant::now()));
        let reason = tokio::select! {
            reason = down.run(&mut from_upstream, &mut to_agent, &activity) => reason,
            reason = up.run(&mut from_agent, &mut to_upstream, &activity) => reason,
            () = activity.idle_for(idle_timeout) => CloseReason::IdleTimeout,
            () = async { upgraded.process_shutdown().await; activity.idle_for(SHUTDOWN_IDLE).await } => CloseReason::Shutdown,
            () = upgraded.evicted() => CloseReason::Evicted,
        };
        tracing::info!(request_id = %id, %account, reason = reason.message(), "a WebSocket ended");
        if let CloseReason::Evicted = reason {
            return; // at once: a newcomer waits
        }
        if let Some(code) = reason.close_code() {
            let [high, low] = code.to_be_bytes();
            if down.is_between_frames() {
                let _ = timeout(CLOSE_TIMEOUT, to_agent.write_all(&[0x88, 2, high, low])).await;
            }
            if up.is_between_frames() {
                // Masked, as all frames to a server (RFC 6455 §5.3); there is nothing to hide, so the mask is zero.
                let _ = timeout(CLOSE_TIMEOUT, to_upstream.write_all(&[0x88, 0x82, 0, 0, 0, 0, high, low])).await;
            }
        }
        let _ = timeout(CLOSE_TIMEOUT, async { tokio::join!(to_agent.shutdown(), to_upstream.shutdown()) }).await;
        // Closing a socket with unread bytes resets the connection, and the agent could lose the last frames.
        let mut unread = [0; 1024];
        let drain = async { while matches!(from_agent.read(&mut unread).await, Ok(1..)) {} };
        let _ = timeout(CLOSE_TIMEOUT, drain).await;
        drop((open, upgraded));
    }
}

impl<P: FnMut(Bytes, bool, bool) -> Bytes> FrameForwarder<P> {
    fn new(from: Peer, parser: FrameParser, payload: P) -> Self {
        Self { from, parser, payload, writing: false }
    }

    /// Only whole frames were sent so far.
    fn is_between_frames(&self) -> bool {
        !self.writing && self.parser.is_between_frames()
    }

    /// Forwards frames until a peer closes, fails or sends invalid frames.
    async fn run(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        activity: &LastActivity,
    ) -> CloseReason {
        let mut out = BytesMut::new();
        loop {
            let mut piece = BytesMut::with_capacity(READ_SIZE);
            match from.read_buf(&mut piece).await {
                Ok(0) => return CloseReason::Closed(self.from),
                Ok(_) => activity.update(),
                Err(error) => return CloseReason::Failed(self.from, error),
            }
            let parsed = self.parse(piece.freeze(), &mut out);
            self.writing = true;
            let written = async {
                to.write_all(&out).await?;
                to.flush().await
            };
            if let Err(error) = written.await {
                return CloseReason::Failed(self.from.other(), error);
            }
            self.writing = false;
            out.clear();
            if let Err(error) = parsed {
                return CloseReason::Invalid(self.from, error);
            }
        }
    }

    /// Appends to `out` what may be forwarded of a piece; nothing of an invalid frame.
    fn parse(&mut self, mut piece: Bytes, out: &mut BytesMut) -> Result<(), FrameError> {
        while !piece.is_empty() {
            match self.parser.next(&piece)? {
                FramePart::PartialHeader(length) => drop(piece.split_to(length)),
                FramePart::Header(length) => {
                    drop(piece.split_to(length));
                    self.parser.write_header(out);
                }
                FramePart::Payload { length, ends_frame, ends_message } => {
                    out.extend_from_slice(&(self.payload)(piece.split_to(length), ends_frame, ends_message));
                }
            }
        }
        Ok(())
    }
}

impl Peer {
    fn other(self) -> Self {
        match self {
            Self::Agent => Self::Upstream,
            Self::Upstream => Self::Agent,
        }
    }
}

impl CloseReason {
    /// The close code for both peers; `None` where a peer has ended the WebSocket itself, or does not read.
    fn close_code(&self) -> Option<u16> {
        match self {
            Self::Closed(_) | Self::Failed(..) | Self::Evicted => None,
            Self::Invalid(..) => Some(PROTOCOL_ERROR),
            Self::IdleTimeout | Self::Shutdown => Some(GOING_AWAY),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Closed(Peer::Agent) => "the agent closed the connection".to_owned(),
            Self::Closed(Peer::Upstream) => "the upstream closed the connection".to_owned(),
            Self::Failed(Peer::Agent, error) => format!("the agent's connection failed: {error}"),
            Self::Failed(Peer::Upstream, error) => format!("the upstream's connection failed: {error}"),
            Self::Invalid(Peer::Agent, error) => format!("invalid frame from the agent: {}", error.0),
            Self::Invalid(Peer::Upstream, error) => format!("invalid frame from the upstream: {}", error.0),
            Self::IdleTimeout => "idle timeout".to_owned(),
            Self::Shutdown => "Pixy shuts down".to_owned(),
            Self::Evicted => "the agent stalled, and a new connection needed the place".to_owned(),
        }
    }
}

impl LastActivity {
    fn update(&self) {
        *lock(&self.0) = Instant::now();
    }

    /// Resolves after `time` without a byte.
    async fn idle_for(&self, time: Duration) {
        loop {
            let until = *lock(&self.0) + time;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
