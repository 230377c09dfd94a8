//! Private steps, re-exported so that `fuzz/` and `benches/micro.rs` can drive them one by one. Compiled only with the feature
//! `internals`, which no shipped build has.

use http::Request;

pub use crate::cli::log::plain as plain_log;
pub use crate::link::paste::{Client, Expected, read as read_pasted};
pub use crate::proxy::attach::{Outgoing, attach};
pub use crate::proxy::route::{Purpose, Route, find as find_route};
pub use crate::proxy::strip::{Stripped, strip};
pub use crate::scrub::encodings::{Encoded, encodings};
pub use crate::vault::seal::{Header, OpenError, RecordId, RecordKey, StoreId, open, seal};

/// The request that `forward` would send.
pub fn into_request(outgoing: Outgoing) -> Request<crate::upstream::Body> {
    outgoing.into_request()
}
