//! WebSockets (RFC 6455). A handshake takes all the steps of a request; after the upstream's 101, and not one byte before,
//! frames pass in both directions until one side ends.
//!
//! Extensions are not offered to the upstream: what `permessage-deflate` compresses cannot be scrubbed, as little as what
//! `content-encoding` does, and a client that offers it goes on without it (RFC 7692 §5). Everything else passes as it is.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use hyper::body::Body;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::agent::Grant;
use super::forward::members;
use super::refusal::Refusal;
use super::request_id::RequestId;
use super::response_scrub::Scrub;
use super::stream::ReplyBody;
use super::websocket_frames::{Frames, NotFrames, Part};
use crate::account::UsageMeter;
use crate::metrics::OpenStream;
use crate::name::AccountName;
use crate::server::{Upgrade, Upgraded};
use crate::upstream::Incoming;

/// What an agent said to open a WebSocket, and the way to its end of it. Made by [`Handshake::take`] alone.
pub struct Handshake {
    key: HeaderValue,
    protocols: Option<HeaderValue>,
    agent: OnUpgrade,
    switch: Upgrade,
}

/// What lives as long as a WebSocket does.
pub struct Tunnel {
    /// The request that opened it.
    pub id: RequestId,
    /// Whose login opened it.
    pub account: AccountName,
    /// The agent's leave.
    pub grant: Grant,
    /// Watches what comes from the upstream.
    pub scrub: Scrub,
    /// Counts what is used of the account.
    pub spending: UsageMeter,
    /// A silence of both sides that ends it.
    pub idle: Duration,
    /// Counted as open.
    pub open: OpenStream,
}

/// Why a WebSocket ended.
#[derive(Debug)]
enum Ended {
    /// One side hung up.
    HungUp(Side),
    /// One side's connection broke.
    Broken(Side, io::Error),
    /// One side sent something else than frames.
    NotFrames(Side, NotFrames),
    /// Neither side said anything for too long.
    Silent,
    /// Pixy is going down, and nothing was under way.
    GoingDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Agent,
    Upstream,
}

/// One direction.
struct Direction<P> {
    from: Side,
    frames: Frames,
    payload: P,
    /// A write is under way: nobody knows how much of it is out.
    writing: bool,
}

/// When a byte passed last.
struct Activity(Mutex<Instant>);

/// How many bytes are read at once.
const READ: usize = 8 * 1024;

/// When Pixy goes down, a WebSocket without a byte for so long is between two answers.
const QUIET: Duration = Duration::from_secs(1);

/// For a farewell to be taken.
const FAREWELL: Duration = Duration::from_secs(1);

/// Close codes (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;

/// A credential that clients put where a browser leaves them no other place.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    members(headers, &UPGRADE).any(|protocol| protocol == "websocket")
}

/// What a client hears that asked for a WebSocket. After a 401 it would ask again and again; after a 426 it goes on by plain
/// requests at once, and hears there what is wrong.
pub fn as_heard(refusal: Refusal) -> Refusal {
    if refusal.is_unauthorized() { Refusal::NoWebSocket } else { refusal }
}

/// Whether a 101 opens the WebSocket that was asked for, without extensions: none was offered (RFC 6455 §4.1).
pub fn is_accepted(headers: &HeaderMap) -> bool {
    members(headers, &UPGRADE).eq(["websocket".to_owned()])
        && headers.contains_key(SEC_WEBSOCKET_ACCEPT)
        && !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
}

/// Makes an answer the 101 that it stands for, with the upstream's end in its extensions.
pub fn accept(answer: &mut Response<Incoming>, upstream: OnUpgrade) {
    let headers = answer.headers_mut();
    headers.remove(CONTENT_LENGTH); // has no meaning here (RFC 9110 §8.6)
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.extensions_mut().insert(upstream);
}

/// The base64 of 16 bytes.
fn is_key(value: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    value.len() == 24 && value.ends_with(b"==") && value[..22].iter().all(is_digit)
}

impl Handshake {
    /// Takes the handshake out of a request (RFC 6455 §4.2.1).
    pub fn take(head: &mut request::Parts, body: &impl Body) -> Result<Self, Refusal> {
        let headers = &head.headers;
        let one = |name| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).cloned()
        };
        let key = one(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
        // An upstream that switches before it has read a body would take it for frames, sent before its 101.
        let is_whole = body.is_end_stream()
            && members(headers, &CONNECTION).any(|option| option == "upgrade")
            && one(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let (Some(key), true) = (key, is_whole) else {
            return Err(Refusal::BadRequest("this is no handshake of a WebSocket (RFC 6455, section 4.2.1)"));
        };
        let named = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let passing: Vec<&str> = named
            .flat_map(|value| value.split(',').map(str::trim))
            .filter(|protocol| !protocol.is_empty() && !protocol.starts_with(KEY_PROTOCOL))
            .collect();
        let protocols = HeaderValue::try_from(passing.join(", ")).ok().filter(|value| !value.is_empty());
        // Absent over HTTP/2, where nothing can be upgraded (RFC 9113 §8.6).
        let (agent, switch) = (head.extensions.remove::<OnUpgrade>(), head.extensions.remove::<Upgrade>());
        let (Some(agent), Some(switch)) = (agent, switch) else { return Err(Refusal::NoWebSocket) };
        Ok(Self { key, protocols, agent, switch })
    }

    /// Adds what the upstream is to hear.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        if let Some(protocols) = &self.protocols {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.clone());
        }
    }

    /// Answers the agent, and lets frames pass from then on.
    pub fn complete(self, mut accepted: Response<Incoming>, tunnel: Tunnel) -> Response<ReplyBody> {
        debug_assert_eq!(accepted.status(), StatusCode::SWITCHING_PROTOCOLS);
        let upstream = hyper::upgrade::on(&mut accepted);
        let (agent, switched) = (self.agent, self.switch.switch());
        tokio::spawn(async move {
            // The agent may leave before it has the 101; the upstream's end is there already.
            if let (Ok(agent), Ok(upstream)) = tokio::join!(agent, upstream) {
                tunnel.run(TokioIo::new(agent), TokioIo::new(upstream), switched).await;
            }
        });
        accepted.map(|_| ReplyBody::fixed(""))
    }
}

impl Tunnel {
    async fn run<S: AsyncRead + AsyncWrite>(self, agent: S, upstream: S, mut switched: Upgraded) {
        let Self { id, account, grant, mut scrub, mut spending, idle, open } = self;
        let (mut agent_says, mut to_agent) = tokio::io::split(agent);
        let (mut upstream_says, mut to_upstream) = tokio::io::split(upstream);
        let mut down =
            Direction::new(Side::Upstream, Frames::of_upstream(), |piece: Bytes, ends_frame, ends_message| {
                spending.feed(&piece);
                if ends_message {
                    grant.count_tokens(spending.count().total()); // one answer of several
                }
                scrub.piece(piece, ends_frame)
            });
        let mut up = Direction::new(Side::Agent, Frames::of_agent(), |piece, _, _| piece);
        let activity = Activity(Mutex::new(Instant::now()));
        let ended = tokio::select! {
            ended = down.pass(&mut upstream_says, &mut to_agent, &activity) => ended,
            ended = up.pass(&mut agent_says, &mut to_upstream, &activity) => ended,
            () = activity.silent(idle) => Ended::Silent,
            () = async { switched.going_down().await; activity.silent(QUIET).await } => Ended::GoingDown,
        };
        tracing::info!(request_id = %id, %account, reason = ended.reason(), "a WebSocket ended");
        if let Some(code) = ended.close_code() {
            let [high, low] = code.to_be_bytes();
            if down.is_between() {
                let _ = timeout(FAREWELL, to_agent.write_all(&[0x88, 2, high, low])).await;
            }
            if up.is_between() {
                // Masked, as all that goes to a server (RFC 6455 §5.3); a mask of zeros hides nothing and need not.
                let _ = timeout(FAREWELL, to_upstream.write_all(&[0x88, 0x82, 0, 0, 0, 0, high, low])).await;
            }
        }
        let _ = timeout(FAREWELL, async { tokio::join!(to_agent.shutdown(), to_upstream.shutdown()) }).await;
        // Closing with bytes unread would reset the connection, and what was sent last might never be seen.
        let mut rest = [0; 1024];
        let read_on = async { while matches!(agent_says.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(FAREWELL, read_on).await;
        drop((open, switched));
    }
}

impl<P: FnMut(Bytes, bool, bool) -> Bytes> Direction<P> {
    fn new(from: Side, frames: Frames, payload: P) -> Self {
        Self { from, frames, payload, writing: false }
    }

    /// Everything out so far is whole frames.
    fn is_between(&self) -> bool {
        !self.writing && self.frames.is_between()
    }

    /// Passes frames on until one side ends.
    async fn pass(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        activity: &Activity,
    ) -> Ended {
        let mut out = BytesMut::new();
        loop {
            let mut piece = BytesMut::with_capacity(READ);
            match from.read_buf(&mut piece).await {
                Ok(0) => return Ended::HungUp(self.from),
                Ok(_) => activity.now(),
                Err(error) => return Ended::Broken(self.from, error),
            }
            let judged = self.judge(piece.freeze(), &mut out);
            self.writing = true;
            let written = async {
                to.write_all(&out).await?;
                to.flush().await
            };
            if let Err(error) = written.await {
                return Ended::Broken(self.from.other(), error);
            }
            self.writing = false;
            out.clear();
            if let Err(error) = judged {
                return Ended::NotFrames(self.from, error);
            }
        }
    }

    /// What may pass of a piece; nothing of a frame that is none.
    fn judge(&mut self, mut piece: Bytes, out: &mut BytesMut) -> Result<(), NotFrames> {
        while !piece.is_empty() {
            match self.frames.next(&piece)? {
                Part::HeaderBegins(length) => drop(piece.split_to(length)),
                Part::Header(length) => {
                    drop(piece.split_to(length));
                    self.frames.give_header(out);
                }
                Part::Payload { length, ends_frame, ends_message } => {
                    out.extend_from_slice(&(self.payload)(piece.split_to(length), ends_frame, ends_message));
                }
            }
        }
        Ok(())
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Agent => Self::Upstream,
            Self::Upstream => Self::Agent,
        }
    }
}

impl Ended {
    /// What both sides are told, where nobody else has told them.
    fn close_code(&self) -> Option<u16> {
        match self {
            Self::HungUp(_) | Self::Broken(..) => None,
            Self::NotFrames(..) => Some(PROTOCOL_ERROR),
            Self::Silent | Self::GoingDown => Some(GOING_AWAY),
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::HungUp(Side::Agent) => "the agent hung up".to_owned(),
            Self::HungUp(Side::Upstream) => "the upstream hung up".to_owned(),
            Self::Broken(Side::Agent, error) => format!("the agent's connection broke: {error}"),
            Self::Broken(Side::Upstream, error) => format!("the upstream's connection broke: {error}"),
            Self::NotFrames(Side::Agent, error) => format!("the agent: {}", error.0),
            Self::NotFrames(Side::Upstream, error) => format!("the upstream: {}", error.0),
            Self::Silent => "nothing was said for too long".to_owned(),
            Self::GoingDown => "Pixy is going down".to_owned(),
        }
    }
}

impl Activity {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves when no byte passed for so long.
    async fn silent(&self, time: Duration) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + time;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}
