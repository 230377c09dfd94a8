//! Replaces the account's secrets in the headers and the body of one response, counts them and logs the first.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::request_id::RequestId;
use crate::metrics::Metrics;
use crate::name::AccountName;
use crate::scrub::{Scrubber, SecretPatterns};
use crate::upstream::{BoxError, innermost};

/// Scrubs the response to one request that carried the account's token.
pub struct ResponseScrub {
    id: RequestId,
    patterns: Arc<SecretPatterns>,
    body: Scrubber,
    account: AccountName,
    metrics: Arc<Metrics>,
    is_logged: bool,
}

impl ResponseScrub {
    /// For the response to a request of this account. The patterns are those of the token that it carries.
    pub fn new(id: RequestId, patterns: &Arc<SecretPatterns>, account: &AccountName, metrics: &Arc<Metrics>) -> Self {
        let patterns = Arc::clone(patterns);
        let body = Scrubber::new(Arc::clone(&patterns));
        Self { id, patterns, body, account: account.clone(), metrics: Arc::clone(metrics), is_logged: false }
    }

    /// Replaces secrets in field values; removes a field whose name holds one.
    pub fn headers(&mut self, headers: HeaderMap) -> HeaderMap {
        let is_clean = |name, value: &HeaderValue| {
            self.patterns.count_in_name(name) == 0 && self.patterns.scrub(value.as_bytes()).is_none()
        };
        if headers.iter().all(|(name, value)| is_clean(name, value)) {
            return headers; // the usual case
        }
        let mut scrubbed = HeaderMap::with_capacity(headers.len());
        let mut current = None;
        let mut found = 0;
        for (name, value) in headers {
            current = name.or(current);
            let Some(name) = &current else { continue };
            let in_name = self.patterns.count_in_name(name);
            if in_name > 0 {
                found += in_name;
                continue;
            }
            let value = match self.patterns.scrub(value.as_bytes()) {
                None => Some(value),
                Some((text, count)) => {
                    found += count;
                    HeaderValue::from_bytes(&text).ok() // never fails: visible ASCII replaces visible ASCII
                }
            };
            if let Some(value) = value {
                scrubbed.append(name.clone(), value);
            }
        }
        self.report(found, "header");
        scrubbed
    }

    /// A text of the upstream for a person, with secrets replaced.
    pub fn text(&self, text: &str) -> String {
        let scrubbed = self.patterns.scrub(text.as_bytes());
        scrubbed.map_or_else(|| text.to_owned(), |(text, _)| String::from_utf8_lossy(&text).into_owned())
    }

    /// Takes the next piece of the body and returns what can be forwarded now, perhaps nothing; with `last` all of the rest.
    pub fn piece(&mut self, piece: Bytes, last: bool) -> Bytes {
        let before = self.body.found();
        let passing = if last { self.body.finish_with(piece) } else { self.body.feed(piece) };
        self.report(self.body.found() - before, "body");
        passing
    }

    /// Bytes of the body that are held back because a secret may begin in them.
    pub fn held(&self) -> usize {
        self.body.held()
    }

    /// Logs why the response ended early.
    pub fn log_cut(&self, error: &BoxError) {
        let error = innermost(error.as_ref());
        tracing::warn!(request_id = %self.id, account = %self.account, %error, "the response ended early, and the agent's connection with it");
    }

    /// Counts secrets; logs one warning per response.
    fn report(&mut self, found: u64, place: &'static str) {
        if found == 0 {
            return;
        }
        self.metrics.record_redactions(&self.account, found);
        if !std::mem::replace(&mut self.is_logged, true) {
            tracing::warn!(request_id = %self.id, account = %self.account, place, "the upstream sent a secret of the account back; it was replaced");
        }
    }
}
