//! The authorization server's state and rules, without HTTP.
//!
//! A grant is a *family*: the code, and every token that came from it. Using a refresh token or a code a second time means that
//! two parties have it, so the whole family is revoked (RFC 9700 §4.14.2, RFC 6749 §4.1.2). The state is in memory only.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// All authorization requests and grants.
pub(crate) struct Grants {
    lifetime: Duration,
    asked: HashMap<String, Asked>,
    codes: HashMap<String, Code>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
    ended: HashSet<Family>,
    families: Family,
}

/// An authorization request that waits for consent.
#[derive(Clone)]
pub(crate) struct Asked {
    /// The redirect target, unchanged from the request.
    pub(crate) redirect_uri: String,
    /// `BASE64URL(SHA256(verifier))` (RFC 7636 §4.2).
    pub(crate) challenge: String,
    /// Returned unchanged.
    pub(crate) state: String,
    /// The requested scopes.
    pub(crate) scope: String,
}

/// The response to a successful token request.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) lifetime: Duration,
    pub(crate) scope: String,
    /// How many times this grant was refreshed.
    pub(crate) rotation: u32,
}

/// Why a token request was refused (RFC 6749 §5.2).
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) why: &'static str,
}

type Family = u64;

struct Code {
    asked: Asked,
    issued: Instant,
    /// The family of its tokens: set once, when the code is used.
    family: Option<Family>,
}

struct Refresh {
    family: Family,
    scope: String,
    rotation: u32,
    spent: bool,
}

struct Access {
    family: Family,
    until: Instant,
}

impl Grants {
    /// No grants; access tokens are valid for `lifetime`.
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            asked: HashMap::new(),
            codes: HashMap::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
            ended: HashSet::new(),
            families: 0,
        }
    }

    /// Stores a request until the user decides; returns its ticket for the consent form.
    pub(crate) fn ask(&mut self, asked: Asked) -> String {
        let ticket = random("ticket");
        self.asked.insert(ticket.clone(), asked);
        ticket
    }

    /// Takes the request of a ticket, which works once.
    pub(crate) fn take(&mut self, ticket: &str) -> Option<Asked> {
        self.asked.remove(ticket)
    }

    /// Issues a code for a request.
    pub(crate) fn allow(&mut self, asked: Asked) -> String {
        let code = random("code");
        self.codes.insert(code.clone(), Code { asked, issued: Instant::now(), family: None });
        code
    }

    /// Exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.6).
    pub(crate) fn exchange(&mut self, code: &str, redirect_uri: &str, verifier: &str) -> Result<Tokens, Refusal> {
        let Some(known) = self.codes.get_mut(code) else { return refuse("this code was never issued") };
        if let Some(family) = known.family {
            self.ended.insert(family);
            return refuse("this code was used twice: the grant has ended");
        }
        // From here on the code is used, even if the checks below fail.
        let family = self.families;
        self.families += 1;
        known.family = Some(family);
        if known.issued.elapsed() > CODE_LIFETIME {
            return refuse("this code has expired");
        }
        if known.asked.redirect_uri != redirect_uri {
            return refuse("redirect_uri is not the one of the authorization request");
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != known.asked.challenge {
            return refuse("code_verifier does not match code_challenge");
        }
        let scope = known.asked.scope.clone();
        Ok(self.issue(family, scope, 0))
    }

    /// Rotates a refresh token (RFC 6749 §6).
    pub(crate) fn refresh(&mut self, token: &str) -> Result<Tokens, Refusal> {
        let Some(known) = self.refresh.get_mut(token) else { return refuse("this refresh token is not known") };
        if self.ended.contains(&known.family) {
            return refuse("this grant has ended");
        }
        if known.spent {
            self.ended.insert(known.family);
            return refuse("this refresh token was used twice: the grant has ended");
        }
        known.spent = true;
        let (family, scope, rotation) = (known.family, known.scope.clone(), known.rotation + 1);
        Ok(self.issue(family, scope, rotation))
    }

    /// Revokes the grant of `token` (RFC 7009 §2.1); `false` if there is none.
    pub(crate) fn revoke(&mut self, token: &str) -> bool {
        let family = self.refresh.get(token).map(|known| known.family);
        let Some(family) = family.or_else(|| self.access.get(token).map(|known| known.family)) else { return false };
        self.ended.insert(family)
    }

    /// Whether an access token is valid.
    pub(crate) fn is_valid(&self, access_token: &str) -> bool {
        let known = self.access.get(access_token);
        known.is_some_and(|known| known.until > Instant::now() && !self.ended.contains(&known.family))
    }

    fn issue(&mut self, family: Family, scope: String, rotation: u32) -> Tokens {
        let now = Instant::now();
        self.access.retain(|_, known| known.until > now);
        let tokens =
            Tokens { access: random("access"), refresh: random("refresh"), lifetime: self.lifetime, scope, rotation };
        self.access.insert(tokens.access.clone(), Access { family, until: now + self.lifetime });
        let refresh = Refresh { family, scope: tokens.scope.clone(), rotation, spent: false };
        self.refresh.insert(tokens.refresh.clone(), refresh);
        tokens
    }
}

fn refuse(why: &'static str) -> Result<Tokens, Refusal> {
    Err(Refusal { code: "invalid_grant", why })
}

/// 256 random bits; the prefix identifies the kind of a token in test output.
fn random(kind: &str) -> String {
    format!("playground-{kind}-{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// The lifetime of a code: long enough for a user to copy it.
const CODE_LIFETIME: Duration = Duration::from_mins(10);
