//! Tokens, errors and clock readings of the model.

use std::time::Duration;

use super::server::Pair;
use crate::account::login::{Login, RefreshCredential};
use crate::account::state::Record;
use crate::clock::Timestamp;
use crate::oauth::token_response::{NotBefore, TokenError, TokenErrorKind, TokenResponse};
use crate::secret::Secret;

pub fn wall(now: Duration, ahead: i64) -> Timestamp {
    // Far enough after 1970 for a clock that is set back by sixty years.
    const START: i64 = 3_000_000_000_000;
    let millis = START + ahead + i64::try_from(now.as_millis()).expect("a test lasts less than a lifetime");
    Timestamp::EPOCH.after(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

/// The token response at the true time `now`.
pub fn tokens(pair: Pair, lifetime: Duration, now: Duration) -> TokenResponse {
    TokenResponse {
        id_token: None,
        access_token: Secret::new(format!("at-{}", pair.number)),
        refresh_token: Some(Secret::new(format!("rt-{}", pair.number))),
        lifetime: Some(lifetime),
        not_before: not_before(pair, now),
        scopes: None,
        subject: None,
        identity: Vec::new(),
        claim_headers: Vec::new(),
    }
}

pub fn not_before(pair: Pair, now: Duration) -> Option<NotBefore> {
    pair.not_before.map(|at| NotBefore { moment: wall(at, 0), wait: at.saturating_sub(now) })
}

pub fn token_error(kind: TokenErrorKind) -> TokenError {
    TokenError { kind, code: None, what: "it failed".into(), retry_after: None, certainly_unspent: false }
}

pub fn login(record: &Record) -> String {
    serde_json::to_string(&record.login).expect("a login has string keys only")
}

pub fn access_number(login: &Login) -> usize {
    number(&login.access_token)
}

pub fn refresh_number(login: &Login) -> usize {
    match &login.refresh_credential {
        RefreshCredential::RefreshToken { token } => number(token),
        RefreshCredential::None | RefreshCredential::ClientSecret { .. } => panic!("the refresh token is gone"),
    }
}

pub fn number(token: &Secret) -> usize {
    token.expose()[3..].parse().expect("tokens are numbered")
}
