//! The authorization server's memory and rules, without HTTP.
//!
//! A grant is a *family*: the code, and every token that came from it. Using a refresh token or a code a second time means that
//! two parties hold it, so the whole family ends (RFC 9700 §4.14.2, RFC 6749 §4.1.2). Everything is forgotten when the process
//! ends.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// All that was asked for and granted.
pub(crate) struct Grants {
    lifetime: Duration,
    asked: HashMap<String, Asked>,
    codes: HashMap<String, Code>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
    ended: HashSet<Family>,
    families: Family,
}

/// An authorization request that waits for the person.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Where the answer goes, exactly as it was sent.
    pub(crate) redirect_uri: String,
    /// `BASE64URL(SHA256(verifier))` (RFC 7636 §4.2).
    pub(crate) challenge: String,
    /// Handed back as it came.
    pub(crate) state: String,
    /// What is asked for.
    pub(crate) scope: String,
}

/// What a successful token request gets.
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
    /// The family that came of it: set once, when the code is spent.
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
    /// Nothing granted yet; access tokens live for `lifetime`.
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

    /// Keeps a request until the person decides; the ticket names it in the consent form.
    pub(crate) fn ask(&mut self, asked: Asked) -> String {
        let ticket = random("ticket");
        self.asked.insert(ticket.clone(), asked);
        ticket
    }

    /// The person decided: a ticket works once.
    pub(crate) fn take(&mut self, ticket: &str) -> Option<Asked> {
        self.asked.remove(ticket)
    }

    /// A code for what was asked.
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
        // From here on the code is spent, whatever comes of it.
        let family = self.families;
        self.families += 1;
        known.family = Some(family);
        if known.issued.elapsed() > CODE_LIFETIME {
            return refuse("this code is too old");
        }
        if known.asked.redirect_uri != redirect_uri {
            return refuse("redirect_uri is not the one of the authorization request");
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != known.asked.challenge {
            return refuse("code_verifier does not fit code_challenge");
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

    /// Ends the grant that `token` belongs to (RFC 7009 §2.1); `false` when there is none.
    pub(crate) fn revoke(&mut self, token: &str) -> bool {
        let family = self.refresh.get(token).map(|known| known.family);
        let Some(family) = family.or_else(|| self.access.get(token).map(|known| known.family)) else { return false };
        self.ended.insert(family)
    }

    /// Whether the API lets this access token in.
    pub(crate) fn lets_in(&self, access_token: &str) -> bool {
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

/// 256 random bits; the prefix names the kind of a token that leaked into the output of a test.
fn random(kind: &str) -> String {
    format!("playground-{kind}-{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// Long enough for a person to copy it.
const CODE_LIFETIME: Duration = Duration::from_mins(10);
