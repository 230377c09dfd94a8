//! The test harness: fake servers, a raw client, and a whole Pixy.
//!
//! Every fake listens on `127.0.0.1:0`, records its requests, never sleeps (except for the faults that are delays) and stops when
//! it is dropped. For example:
//!
//! ```ignore
//! let upstream = Upstream::start().await;
//! let (reply, chunks) = Reply::stream(200);
//! upstream.answer(reply);
//! // … send a request through the proxy …
//! chunks.send("first");            // the test decides when each chunk is sent
//! assert_eq!(upstream.requests()[0].headers, [("host", "…"), ("authorization", "Bearer …")]);
//! ```
#![allow(dead_code, reason = "not every helper is always used")]
#![allow(unused_imports, reason = "re-exported for all test modules")]

mod client;
mod fault;
mod openid;
mod pixy;
mod program;
mod reply;
mod rotation;
mod scratch;
pub(crate) mod source;
mod tls;
mod token_endpoint;
mod upstream;
mod wire;

use std::time::Duration;

pub(crate) use self::client::{HANDSHAKE, RawClient, RawResponse, opened};
pub(crate) use self::fault::{Effect, Fault, RefreshToken, Sorting};
pub(crate) use self::openid::OpenId;
pub(crate) use self::pixy::Pixy;
pub(crate) use self::program::Program;
pub(crate) use self::reply::{Chunks, Gate, Reply, Step};
pub(crate) use self::rotation::{Pair, Refused, Rotation, Standing};
pub(crate) use self::scratch::{Scratch, oauth_account};
pub(crate) use self::tls::{Authority, Protocols, Validity};
pub(crate) use self::token_endpoint::{Call, Consent, TokenEndpoint};
pub(crate) use self::upstream::{Seen, Upstream};

/// Awaits `future`, with a timeout: a test that would hang fails.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIMEOUT, future).await.expect("this takes milliseconds when it works")
}

/// Reached only by a test that fails.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);
