//! The stand-in's logins: an authorization code with PKCE (RFC 7636), and a token endpoint that delays a refresh.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::{Result, now};

/// The lifetime of an access token: Pixy refreshes one of 4 s after 2.5 s, and uses it for at most 2.9 s.
pub const LIFETIME: Duration = Duration::from_secs(4);

/// The delay of a refresh.
const REFRESH_DELAY: Duration = Duration::from_millis(200);

/// The issued codes and tokens, and their use.
#[derive(Default)]
pub struct Tokens(Mutex<TokenStore>);

#[derive(Default)]
struct TokenStore {
    serial: usize,
    /// Codes that are not redeemed yet, with their challenges.
    codes: HashMap<String, String>,
    /// Unused refresh tokens.
    refresh: HashSet<String>,
    /// Access tokens with their expiry.
    access: HashMap<String, u64>,
    refreshes: Vec<Refresh>,
    rejected: usize,
}

/// A refresh; times are in [`now`]'s nanoseconds.
#[derive(Clone)]
pub struct Refresh {
    /// When the token endpoint was called.
    pub called: u64,
    /// When the first request used the new token.
    pub used: Option<u64>,
    /// Requests with the old token between the two.
    pub old: usize,
    new: Option<String>,
}

impl Tokens {
    /// Grants an authorization request and returns the redirect address.
    pub fn authorize(&self, request: &str, redirect: &str) -> Result<String> {
        let query = request.split_once('?').ok_or("no authorization request")?.1;
        let one = |name: &str| value(query, name).ok_or_else(|| format!("no {name} in the authorization request"));
        if one("code_challenge_method")? != "S256" {
            return Err("another challenge than S256".into());
        }
        let (state, challenge) = (one("state")?, one("code_challenge")?);
        let mut store = self.store();
        let code = store.new_token("code");
        store.codes.insert(code.clone(), challenge.to_owned());
        Ok(format!("{redirect}?code={code}&state={state}"))
    }

    /// Answers a token request; returns status and body.
    pub async fn grant(&self, body: &[u8]) -> (u16, String) {
        let called = now();
        let body = String::from_utf8_lossy(body);
        let field = |name| value(&body, name).unwrap_or_default();
        let refreshed = field("grant_type") == "refresh_token";
        let is_valid = if refreshed {
            let is_valid = self.store().refresh.remove(field("refresh_token"));
            self.store().refreshes.push(Refresh { called, used: None, old: 0, new: None });
            tokio::time::sleep(REFRESH_DELAY).await;
            is_valid
        } else {
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes()));
            self.store().codes.remove(field("code")) == Some(challenge)
        };
        let mut store = self.store();
        if !is_valid {
            store.rejected += 1;
            return (400, "{\"error\":\"invalid_grant\"}".to_owned());
        }
        let (access, refresh) = (store.new_token("access"), store.new_token("refresh"));
        // Counted from the request, as by the strictest servers.
        store.access.insert(access.clone(), called + LIFETIME.as_nanos() as u64);
        store.refresh.insert(refresh.clone());
        if let Some(last) = store.refreshes.last_mut().filter(|_| refreshed) {
            last.new = Some(access.clone());
        }
        let seconds = LIFETIME.as_secs();
        let text = format!(
            "{{\"access_token\":\"{access}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds},\"refresh_token\":\"{refresh}\"}}"
        );
        (200, text)
    }

    /// Whether this access token is valid now; records its use.
    pub fn accepts(&self, access: &str) -> bool {
        let (now, mut store) = (now(), self.store());
        if store.access.get(access).is_none_or(|until| now >= *until) {
            store.rejected += 1;
            return false;
        }
        if let Some(last) = store.refreshes.last_mut().filter(|last| last.used.is_none()) {
            match &last.new {
                Some(new) if new == access => last.used = Some(now),
                _ => last.old += 1,
            }
        }
        true
    }

    /// Takes the refreshes since the last call, and the number of rejected tokens and codes.
    pub fn take(&self) -> (Vec<Refresh>, usize) {
        let mut store = self.store();
        (std::mem::take(&mut store.refreshes), std::mem::take(&mut store.rejected))
    }

    /// The number of complete refreshes.
    pub fn complete(&self) -> usize {
        self.store().refreshes.iter().filter(|refresh| refresh.used.is_some()).count()
    }

    fn store(&self) -> MutexGuard<'_, TokenStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore {
    /// A new token of a typical length.
    fn new_token(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}-{:08}-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", self.serial)
    }
}

/// A field of a form or query; the fields used here need no decoding.
fn value<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.split('&').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}
