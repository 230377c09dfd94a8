//! An authorization server that rotates refresh tokens with reuse detection (RFC 9700 §4.14.2), with one grant.

use std::time::Duration;

/// The server; its clock is correct. The `n`th pair is the access token `at-n` and the refresh token `rt-n`.
pub struct Server {
    /// A refresh token may be used again for this long after its first use; a later use ends the grant.
    pub grace: Duration,
    /// The lifetime of access tokens.
    pub lifetime: Duration,
    /// A new pair may be refreshed after this share of its lifetime, in percent.
    pub not_before: Option<u32>,
    /// The grant is over.
    pub ended: bool,
    pairs: Vec<Pair>,
}

/// The tokens of one token response.
#[derive(Clone, Copy)]
pub struct Pair {
    pub number: usize,
    /// When the access token expires.
    pub until: Duration,
    /// The refresh token must not be used before.
    pub not_before: Option<Duration>,
    /// First use of the refresh token.
    spent: Option<Duration>,
}

impl Server {
    /// One grant, made at time zero; its first pair is number 0.
    pub fn new(grace: Duration, lifetime: Duration, not_before: Option<u32>) -> Self {
        let mut server = Self { grace, lifetime, not_before, ended: false, pairs: Vec::new() };
        server.issue(lifetime, Duration::ZERO);
        server
    }

    /// Spends a refresh token; `None` is `invalid_grant`.
    pub fn refresh(&mut self, number: usize, lifetime: Duration, now: Duration) -> Option<Pair> {
        match self.pairs[number].spent {
            None => self.pairs[number].spent = Some(now),
            Some(first) if now.saturating_sub(first) < self.grace => {}
            Some(_) => self.ended = true,
        }
        (!self.ended).then(|| self.issue(lifetime, now))
    }

    /// The pair of that number.
    pub fn pair(&self, number: usize) -> Pair {
        self.pairs[number]
    }

    /// Whether the refresh token was used.
    pub fn is_spent(&self, number: usize) -> bool {
        self.pairs[number].spent.is_some()
    }

    fn issue(&mut self, lifetime: Duration, now: Duration) -> Pair {
        let not_before = self.not_before.map(|percent| now + lifetime * percent / 100);
        let pair = Pair { number: self.pairs.len(), until: now + lifetime, not_before, spent: None };
        self.pairs.push(pair);
        pair
    }
}
