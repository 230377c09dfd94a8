//! The stand-in's logins: an authorization code with PKCE (RFC 7636), and a token endpoint that delays a refresh.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::{Result, now};

/// The lifetime of an access token: Pixy renews one of 4 s after 2.5 s, and uses it for 2.9 s at most.
pub const LIFETIME: Duration = Duration::from_secs(4);

/// The delay of a refresh.
const TAKES: Duration = Duration::from_millis(200);

/// The issued codes and tokens, and their use.
#[derive(Default)]
pub struct Tokens(Mutex<Book>);

#[derive(Default)]
struct Book {
    serial: usize,
    /// Codes that are not redeemed yet, each with its challenge.
    codes: HashMap<String, String>,
    /// Refresh tokens that are not used yet.
    refresh: HashSet<String>,
    /// Access tokens, each with its expiry.
    access: HashMap<String, u64>,
    refreshes: Vec<Refresh>,
    refused: usize,
}

/// A refresh, in [`now`]'s nanoseconds.
#[derive(Clone)]
pub struct Refresh {
    /// The token endpoint was called.
    pub called: u64,
    /// The first request came with the new token.
    pub used: Option<u64>,
    /// The number of requests with the old token between the two.
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
        let mut book = self.book();
        let code = book.made("code");
        book.codes.insert(code.clone(), challenge.to_owned());
        Ok(format!("{redirect}?code={code}&state={state}"))
    }

    /// The token endpoint: status and body.
    pub async fn grant(&self, body: &[u8]) -> (u16, String) {
        let called = now();
        let body = String::from_utf8_lossy(body);
        let field = |name| value(&body, name).unwrap_or_default();
        let refreshed = field("grant_type") == "refresh_token";
        let is_good = if refreshed {
            let is_good = self.book().refresh.remove(field("refresh_token"));
            self.book().refreshes.push(Refresh { called, used: None, old: 0, new: None });
            tokio::time::sleep(TAKES).await;
            is_good
        } else {
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, field("code_verifier").as_bytes()));
            self.book().codes.remove(field("code")) == Some(challenge)
        };
        let mut book = self.book();
        if !is_good {
            book.refused += 1;
            return (400, "{\"error\":\"invalid_grant\"}".to_owned());
        }
        let (access, refresh) = (book.made("access"), book.made("refresh"));
        // From the time of the request, as the strictest server counts.
        book.access.insert(access.clone(), called + LIFETIME.as_nanos() as u64);
        book.refresh.insert(refresh.clone());
        if let Some(last) = book.refreshes.last_mut().filter(|_| refreshed) {
            last.new = Some(access.clone());
        }
        let seconds = LIFETIME.as_secs();
        let text = format!(
            "{{\"access_token\":\"{access}\",\"token_type\":\"Bearer\",\"expires_in\":{seconds},\"refresh_token\":\"{refresh}\"}}"
        );
        (200, text)
    }

    /// Whether a request may come with this access token, now.
    pub fn admits(&self, access: &str) -> bool {
        let (now, mut book) = (now(), self.book());
        if book.access.get(access).is_none_or(|until| now >= *until) {
            book.refused += 1;
            return false;
        }
        if let Some(last) = book.refreshes.last_mut().filter(|last| last.used.is_none()) {
            match &last.new {
                Some(new) if new == access => last.used = Some(now),
                _ => last.old += 1,
            }
        }
        true
    }

    /// The refreshes that were completed since the last call, and the number of refused tokens and codes.
    pub fn take(&self) -> (Vec<Refresh>, usize) {
        let mut book = self.book();
        (std::mem::take(&mut book.refreshes), std::mem::take(&mut book.refused))
    }

    /// The number of complete refreshes.
    pub fn complete(&self) -> usize {
        self.book().refreshes.iter().filter(|refresh| refresh.used.is_some()).count()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// A token of a usual length.
    fn made(&mut self, kind: &str) -> String {
        self.serial += 1;
        format!("{kind}-{:08}-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ", self.serial)
    }
}

/// A field of a form, or of a query; what is asked for here needs no decoding.
fn value<'a>(form: &'a str, name: &str) -> Option<&'a str> {
    form.split('&').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}
