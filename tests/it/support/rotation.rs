//! A model of refresh token rotation at a strict authorization server, without sockets or clocks. Property tests use it directly,
//! [`super::TokenEndpoint`] serves it over HTTP.

use std::collections::HashMap;
use std::time::Duration;

/// All grants of the server. The caller passes the time since the server started.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// How long after its first use a refresh token may be used again; later a second use ends the family.
    pub(crate) grace: Duration,
    /// The lifetime of an access token.
    pub(crate) lifetime: Duration,
    /// Whether a rotation revokes older access tokens immediately.
    pub(crate) kills_old_access: bool,
    families: Vec<Family>,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
}

/// The tokens of a good response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The access token.
    pub(crate) access: String,
    /// The refresh token.
    pub(crate) refresh: String,
}

/// Why a refresh token is refused; always reported as `invalid_grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Never issued here.
    Unknown,
    /// Used a second time after the grace: this ends the family.
    Reused,
    /// Its family had ended before.
    Ended,
}

/// The state of a refresh token at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It will be accepted.
    Fresh,
    /// It was used; whether it is accepted once more depends on the grace.
    Spent,
    /// The family is revoked: the account must be linked again.
    Ended,
    /// Never issued here.
    Unknown,
}

#[derive(Debug, Clone, Default)]
struct Family {
    ended: bool,
    issued: usize,
    /// Refresh tokens that were used a second time within the grace.
    saved: usize,
}

#[derive(Debug, Clone)]
struct Refresh {
    family: usize,
    spent: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Access {
    family: usize,
    until: Duration,
}

impl Rotation {
    /// Without grants.
    pub(crate) fn new(lifetime: Duration, grace: Duration) -> Self {
        Self {
            grace,
            lifetime,
            kills_old_access: false,
            families: Vec::new(),
            refresh: HashMap::new(),
            access: HashMap::new(),
        }
    }

    /// A new grant, as after consent.
    pub(crate) fn link(&mut self, now: Duration) -> Pair {
        self.families.push(Family::default());
        self.issue(self.families.len() - 1, now)
    }

    /// Spends a refresh token for a new pair (RFC 6749 §6, RFC 9700 §4.14.2).
    pub(crate) fn refresh(&mut self, token: &str, now: Duration) -> Result<Pair, Refused> {
        let known = self.refresh.get_mut(token).ok_or(Refused::Unknown)?;
        let family = known.family;
        if self.families[family].ended {
            return Err(Refused::Ended);
        }
        match known.spent {
            None => known.spent = Some(now),
            Some(first) if now.saturating_sub(first) < self.grace => self.families[family].saved += 1,
            Some(_) => {
                self.families[family].ended = true;
                return Err(Refused::Reused);
            }
        }
        if self.kills_old_access {
            self.access.retain(|_, access| access.family != family);
        }
        Ok(self.issue(family, now))
    }

    /// Issues an access token only (a server that does not rotate).
    pub(crate) fn access_only(&mut self, token: &str, now: Duration) -> Result<String, Refused> {
        let family = self.refresh.get(token).ok_or(Refused::Unknown)?.family;
        match self.standing(token) {
            Standing::Fresh => Ok(self.issue_access(family, now)),
            Standing::Spent => Err(Refused::Reused),
            Standing::Ended | Standing::Unknown => Err(Refused::Ended),
        }
    }

    /// Ends the grant of an access or refresh token; `false` if there is none or it had ended.
    pub(crate) fn revoke(&mut self, token: &str) -> bool {
        let family = self.refresh.get(token).map(|known| known.family);
        let Some(family) = family.or_else(|| self.access.get(token).map(|known| known.family)) else { return false };
        !std::mem::replace(&mut self.families[family].ended, true)
    }

    /// The state of a refresh token at the server.
    pub(crate) fn standing(&self, token: &str) -> Standing {
        match self.refresh.get(token) {
            None => Standing::Unknown,
            Some(known) if self.families[known.family].ended => Standing::Ended,
            Some(known) if known.spent.is_some() => Standing::Spent,
            Some(_) => Standing::Fresh,
        }
    }

    /// Whether the API accepts this access token.
    pub(crate) fn lets_in(&self, access: &str, now: Duration) -> bool {
        self.access.get(access).is_some_and(|known| known.until > now && !self.families[known.family].ended)
    }

    /// Ends every access token; refresh tokens stay valid.
    pub(crate) fn end_access_tokens(&mut self) {
        self.access.clear();
    }

    /// How many second uses the grace allowed; with a correct client, only after a crash.
    pub(crate) fn saved_by_grace(&self) -> usize {
        self.families.iter().map(|family| family.saved).sum()
    }

    fn issue(&mut self, family: usize, now: Duration) -> Pair {
        let access = self.issue_access(family, now);
        let refresh = format!("marked-refresh-{family}-{}", self.families[family].issued);
        self.refresh.insert(refresh.clone(), Refresh { family, spent: None });
        Pair { access, refresh }
    }

    fn issue_access(&mut self, family: usize, now: Duration) -> String {
        self.families[family].issued += 1;
        let access = format!("marked-access-{family}-{}", self.families[family].issued);
        self.access.insert(access.clone(), Access { family, until: now + self.lifetime });
        access
    }
}
