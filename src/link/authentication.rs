//! Authentication of the link surface. On TCP the source address proves nothing (containers of a pod share loopback), so every
//! call needs a secret; on the control socket the kernel reports the peer's user id.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method};

use super::problem::Problem;
use crate::clock::{Clock, Tick};
use crate::lock::lock;
use crate::secret::Secret;

/// A setup code expires after this.
const CODE_LIFETIME: Duration = Duration::from_mins(15);

/// A session expires after this long without a call.
const SESSION_IDLE: Duration = Duration::from_mins(15);

/// A session expires after this in any case.
const SESSION_LIFETIME: Duration = Duration::from_hours(8);

/// This many wrong setup codes within [`LOCKOUT`] lock out all setup codes; open sessions stay valid.
const WRONG_CODES: usize = 5;

/// See [`WRONG_CODES`].
const LOCKOUT: Duration = Duration::from_mins(1);

/// Most setup codes, and most sessions, at once; a new one replaces the oldest.
const MAX_OPEN: usize = 16;

/// Proof that a call has a valid session or setup code, or came by the control socket. Only this module makes one.
///
/// ```
/// fn needs(_: &pixy::link::authentication::Authenticated) {}
/// ```
///
/// No other module can make one:
///
/// ```compile_fail
/// fn needs(_: &pixy::link::authentication::Authenticated) {}
/// needs(&pixy::link::authentication::Authenticated(()));
/// ```
pub struct Authenticated(());

/// Setup codes and sessions.
pub struct Guard {
    clock: Clock,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    codes: Vec<(Secret, Tick)>,
    open: Vec<Session>,
    wrong: VecDeque<Tick>,
}

struct Session {
    token: Secret,
    opened: Tick,
    used: Tick,
}

impl Guard {
    /// Without any code or session.
    pub fn new(clock: Clock) -> Self {
        Self { clock, sessions: Mutex::default() }
    }

    /// Makes a setup code of 128 bits, for the link that `pixy url` prints.
    pub fn setup_code(&self) -> Secret {
        let code = Secret::random(16);
        let mut sessions = lock(&self.sessions);
        let now = self.clock.tick();
        sessions.codes.retain(|(_, until)| now < *until);
        if sessions.codes.len() >= MAX_OPEN {
            sessions.codes.remove(0);
        }
        sessions.codes.push((code.clone(), now.after(CODE_LIFETIME)));
        code
    }

    /// Opens a session for a setup code, which is then used.
    pub fn open_session(&self, code: &str) -> Result<Secret, Problem> {
        let now = self.clock.tick();
        let mut sessions = lock(&self.sessions);
        sessions.check_code(code, now)?;
        sessions.codes.retain(|(known, _)| !known.matches(code));
        let token = Secret::random(32);
        if sessions.open.len() >= MAX_OPEN {
            sessions.open.remove(0);
        }
        sessions.open.push(Session { token: token.clone(), opened: now, used: now });
        Ok(token)
    }

    /// Authenticates a call on TCP by its bearer: a session token or a setup code.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Problem> {
        let presented = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        if presented.is_empty() {
            return Err(Problem::not_signed_in());
        }
        let now = self.clock.tick();
        let mut sessions = lock(&self.sessions);
        sessions
            .open
            .retain(|session| now.since(session.used) < SESSION_IDLE && now.since(session.opened) < SESSION_LIFETIME);
        if let Some(session) = sessions.open.iter_mut().find(|session| session.token.matches(presented)) {
            session.used = now;
            return Ok(Authenticated(()));
        }
        sessions.check_code(presented, now).map(|()| Authenticated(()))
    }
}

/// Authenticates a call on the control socket, whose mode is 0600: by the kernel, the peer must be the user of Pixy, or root.
pub fn authenticate_peer(peer: Option<u32>) -> Result<Authenticated, Problem> {
    match peer {
        Some(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Ok(Authenticated(())),
        _ => Err(Problem::not_signed_in()),
    }
}

/// Rejects requests that a page of another origin makes a browser send (row 8). The server has checked the name in `Host` (DNS
/// rebinding, rows 7 and 89). `is_callback` allows the navigation by which a provider redirects the browser.
pub fn check_origin(method: &Method, headers: &HeaderMap, is_callback: bool) -> Result<(), Problem> {
    let refused = Problem::foreign_origin;
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host = host.filter(|_| hosts.next().is_none()).ok_or_else(refused)?;
    if let Some(origin) = headers.get(ORIGIN)
        && origin.as_bytes() != format!("http://{host}").as_bytes()
    {
        return Err(refused());
    }
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    match site {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) if is_callback && method == Method::GET => Ok(()),
        Some(_) => Err(refused()),
    }
}

impl Sessions {
    fn check_code(&mut self, code: &str, now: Tick) -> Result<(), Problem> {
        while self.wrong.front().is_some_and(|&at| now.since(at) >= LOCKOUT) {
            self.wrong.pop_front();
        }
        if self.wrong.len() >= WRONG_CODES {
            return Err(Problem::locked());
        }
        self.codes.retain(|(_, until)| now < *until);
        // Compares every code, so that the time reveals nothing.
        let known = self.codes.iter().fold(false, |known, (candidate, _)| known | candidate.matches(code));
        if known {
            return Ok(());
        }
        self.wrong.push_back(now);
        if self.wrong.len() == WRONG_CODES {
            tracing::warn!("too many wrong setup codes: the link page accepts none for a minute");
        }
        Err(Problem::wrong_code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use http::HeaderValue;

    fn bearer(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        headers
    }

    #[tokio::test(start_paused = true)]
    async fn attack_02_five_wrong_codes_lock_codes_but_not_sessions() {
        let guard = Guard::new(Clock::tokio(Timestamp::EPOCH));
        let session = guard.open_session(guard.setup_code().expose()).unwrap();
        let code = guard.setup_code();
        for _ in 0..5 {
            assert_eq!(guard.open_session("guess").unwrap_err().status, 401);
        }
        assert_eq!(guard.open_session(code.expose()).unwrap_err().status, 429, "the right code is locked out too");
        assert!(guard.authenticate(&bearer(session.expose())).is_ok());
        tokio::time::advance(LOCKOUT).await;
        assert!(guard.open_session(code.expose()).is_ok());
        assert_eq!(guard.open_session(code.expose()).unwrap_err().status, 401, "a setup code opens one session");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_expire_when_idle_and_after_eight_hours() {
        let guard = Guard::new(Clock::tokio(Timestamp::EPOCH));
        let session = bearer(guard.open_session(guard.setup_code().expose()).unwrap().expose());
        for _ in 0..(8 * 6 - 1) {
            tokio::time::advance(Duration::from_mins(10)).await;
            assert!(guard.authenticate(&session).is_ok());
        }
        tokio::time::advance(Duration::from_mins(10)).await;
        assert!(guard.authenticate(&session).is_err(), "eight hours are over");
        let idle = bearer(guard.open_session(guard.setup_code().expose()).unwrap().expose());
        tokio::time::advance(SESSION_IDLE).await;
        assert!(guard.authenticate(&idle).is_err());
    }

    #[test]
    fn attack_08_other_origins_are_rejected() {
        let check = |fields: &[(&'static str, &'static str)], is_callback| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_origin(&Method::GET, &headers, is_callback).map_err(|problem| problem.status)
        };
        assert_eq!(check(&[("host", "127.0.0.1:8701")], false), Ok(()));
        assert_eq!(check(&[("host", "localhost:8701"), ("origin", "http://localhost:8701")], false), Ok(()));
        assert_eq!(check(&[("host", "[::1]:8701"), ("sec-fetch-site", "same-origin")], false), Ok(()));
        assert_eq!(check(&[], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1"), ("host", "127.0.0.1")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("origin", "http://127.0.0.1:9999")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("origin", "null")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "cross-site")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "same-site")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "cross-site")], true), Ok(()));
    }
}
