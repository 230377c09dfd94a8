//! One answer's scrubber: secrets of the account are replaced in its headers and its body, counted and told of, once.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::request_id::RequestId;
use crate::account::Bearer;
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::scrub::{Needles, Scrubber};

/// Watches one answer to a request that carried the account's token.
pub struct Scrub {
    id: RequestId,
    needles: Arc<Needles>,
    body: Scrubber,
    account: AccountName,
    metrics: Arc<Metrics>,
    told: bool,
}

impl Scrub {
    /// For the answer to a request that carries this token.
    pub fn new(id: RequestId, bearer: &Bearer, account: &AccountName, metrics: &Arc<Metrics>) -> Self {
        let needles = Arc::clone(bearer.needles());
        let body = Scrubber::new(Arc::clone(&needles));
        Self { id, needles, body, account: account.clone(), metrics: Arc::clone(metrics), told: false }
    }

    /// Replaces in values; a field whose very name holds a secret goes.
    pub fn headers(&mut self, headers: HeaderMap) -> HeaderMap {
        let is_clean = |text: &[u8]| self.needles.scrub(text).is_none();
        if headers.iter().all(|(name, value)| is_clean(name.as_str().as_bytes()) && is_clean(value.as_bytes())) {
            return headers; // nearly always
        }
        let mut scrubbed = HeaderMap::with_capacity(headers.len());
        let mut current = None;
        let mut found = 0;
        for (name, value) in headers {
            current = name.or(current);
            let Some(name) = &current else { continue };
            if let Some((_, count)) = self.needles.scrub(name.as_str().as_bytes()) {
                found += count;
                continue;
            }
            let value = match self.needles.scrub(value.as_bytes()) {
                None => Some(value),
                Some((text, count)) => {
                    found += count;
                    HeaderValue::from_bytes(&text).ok() // visible ASCII replaces visible ASCII, so it is one
                }
            };
            if let Some(value) = value {
                scrubbed.append(name.clone(), value);
            }
        }
        self.tell(found, "header");
        scrubbed
    }

    /// The next piece of the body, or with `last` the last one: what may leave now, perhaps nothing.
    pub fn piece(&mut self, piece: Bytes, last: bool) -> Bytes {
        let before = self.body.found();
        let passing = if last { self.body.finish_with(piece) } else { self.body.feed(piece) };
        self.tell(self.body.found() - before, "body");
        passing
    }

    /// So many bytes of the body wait for what follows.
    pub fn held(&self) -> usize {
        self.body.held()
    }

    /// Which upstream sends secrets back is worth a warning; a stream that is full of them is worth no more than one.
    fn tell(&mut self, found: u64, place: &'static str) {
        if found == 0 {
            return;
        }
        self.metrics.record_redactions(&self.account, found);
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(request_id = %self.id, account = %self.account, place, "the upstream sent a secret of the account back; it was replaced");
        }
    }
}
