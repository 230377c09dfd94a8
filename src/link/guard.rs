//! Who may use the link surface. On TCP the source address proves nothing (containers of a pod share loopback), so every call
//! needs a secret; on the control socket the kernel says who is there.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use super::problem::Problem;
use crate::clock::{Clock, Tick};
use crate::secret::Secret;
use crate::upstream::is_loopback_host;

/// A setup code opens sessions for this long.
const CODE_LIFETIME: Duration = Duration::from_mins(15);

/// A session ends after this long without a call.
const SESSION_IDLE: Duration = Duration::from_mins(15);

/// A session ends after this long in any case.
const SESSION_LIFETIME: Duration = Duration::from_hours(8);

/// So many wrong codes within [`LOCK_SPAN`] lock the door for codes; open sessions go on.
const WRONG_TRIES: usize = 5;

/// See [`WRONG_TRIES`].
const LOCK_SPAN: Duration = Duration::from_mins(1);

/// Open codes and sessions at once; the oldest gives way.
const MOST: usize = 16;

/// Proof that a person's session, setup code or the control socket stands behind a call: made by [`Guard`] alone.
///
/// ```
/// fn needs(_: &pixy::link::guard::Person) {}
/// ```
///
/// Nobody else can make one:
///
/// ```compile_fail
/// fn needs(_: &pixy::link::guard::Person) {}
/// needs(&pixy::link::guard::Person(()));
/// ```
pub struct Person(());

/// Setup codes and sessions.
pub struct Guard {
    clock: Clock,
    doors: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    codes: Vec<(Secret, Tick)>,
    sessions: Vec<Session>,
    wrong: VecDeque<Tick>,
}

struct Session {
    token: Secret,
    opened: Tick,
    used: Tick,
}

impl Guard {
    /// Nobody is in.
    pub fn new(clock: Clock) -> Self {
        Self { clock, doors: Mutex::default() }
    }

    /// A fresh setup code of 128 bits, for the address that `pixy url` prints.
    pub fn setup_code(&self) -> Secret {
        let code = Secret::random(16);
        let mut doors = self.doors();
        let now = self.clock.tick();
        doors.codes.retain(|(_, until)| now < *until);
        if doors.codes.len() >= MOST {
            doors.codes.remove(0);
        }
        doors.codes.push((code.clone(), now.after(CODE_LIFETIME)));
        code
    }

    /// Opens a session for a setup code, which is used up by it.
    pub fn open_session(&self, code: &str) -> Result<Secret, Problem> {
        let now = self.clock.tick();
        let mut doors = self.doors();
        doors.check_code(code, now)?;
        doors.codes.retain(|(known, _)| !known.matches(code));
        let token = Secret::random(32);
        if doors.sessions.len() >= MOST {
            doors.sessions.remove(0);
        }
        doors.sessions.push(Session { token: token.clone(), opened: now, used: now });
        Ok(token)
    }

    /// The person behind a call on TCP: a session token, or a setup code, as bearer.
    pub fn person(&self, headers: &HeaderMap) -> Result<Person, Problem> {
        let presented = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        if presented.is_empty() {
            return Err(not_in());
        }
        let now = self.clock.tick();
        let mut doors = self.doors();
        doors
            .sessions
            .retain(|session| now.since(session.used) < SESSION_IDLE && now.since(session.opened) < SESSION_LIFETIME);
        if let Some(session) = doors.sessions.iter_mut().find(|session| session.token.matches(presented)) {
            session.used = now;
            return Ok(Person(()));
        }
        doors.check_code(presented, now).map(|()| Person(()))
    }

    fn doors(&self) -> MutexGuard<'_, Sessions> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The person behind a call on the control socket: the socket is 0600, and the kernel says that the peer is the same user,
/// or root.
pub fn socket_person(peer: Option<u32>) -> Result<Person, Problem> {
    match peer {
        Some(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Ok(Person(())),
        _ => Err(not_in()),
    }
}

/// Refuses what a page of another origin can make a browser send (row 8), and names that resolve here but are not ours (DNS
/// rebinding, row 7). `arrives_from_provider` is for the one page to which a provider sends the browser.
pub fn check_origin(method: &Method, headers: &HeaderMap, arrives_from_provider: bool) -> Result<(), Problem> {
    let refused = || {
        Problem::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            "This page is used from its own address alone.",
            "Open the address that `pixy url` prints.",
        )
    };
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let host = host.filter(|_| hosts.next().is_none()).ok_or_else(refused)?;
    if !is_loopback_host(without_port(host)) {
        return Err(Problem { status: StatusCode::MISDIRECTED_REQUEST.as_u16(), ..refused() });
    }
    if let Some(origin) = headers.get(ORIGIN)
        && origin.as_bytes() != format!("http://{host}").as_bytes()
    {
        return Err(refused());
    }
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    match site {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) if arrives_from_provider && method == Method::GET => Ok(()),
        Some(_) => Err(refused()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

fn not_in() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "not_signed_in",
        "Pixy does not know you here.",
        "Run `pixy url` in a terminal and open the address that it prints.",
    )
}

impl Sessions {
    fn check_code(&mut self, code: &str, now: Tick) -> Result<(), Problem> {
        while self.wrong.front().is_some_and(|&at| now.since(at) >= LOCK_SPAN) {
            self.wrong.pop_front();
        }
        if self.wrong.len() >= WRONG_TRIES {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "locked",
                "Too many wrong setup codes were tried.",
                "Wait a minute, then run `pixy url` for a fresh one. If it was not you, something on this machine is guessing.",
            ));
        }
        self.codes.retain(|(_, until)| now < *until);
        // Every code is compared, so that the time taken tells nothing.
        let known = self.codes.iter().fold(false, |known, (candidate, _)| known | candidate.matches(code));
        if known {
            return Ok(());
        }
        self.wrong.push_back(now);
        if self.wrong.len() == WRONG_TRIES {
            tracing::warn!("wrong setup codes: the link page is locked for a minute");
        }
        Err(not_in())
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
    async fn attack_02_guessing_is_locked_after_five_tries_and_sessions_go_on() {
        let guard = Guard::new(Clock::tokio(Timestamp::EPOCH));
        let session = guard.open_session(guard.setup_code().expose()).unwrap();
        let code = guard.setup_code();
        for _ in 0..5 {
            assert_eq!(guard.open_session("guess").unwrap_err().status, 401);
        }
        assert_eq!(guard.open_session(code.expose()).unwrap_err().status, 429, "locked for the right one too");
        assert!(guard.person(&bearer(session.expose())).is_ok());
        tokio::time::advance(LOCK_SPAN).await;
        assert!(guard.open_session(code.expose()).is_ok());
        assert_eq!(guard.open_session(code.expose()).unwrap_err().status, 401, "a setup code opens one session");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_end_when_idle_and_after_eight_hours() {
        let guard = Guard::new(Clock::tokio(Timestamp::EPOCH));
        let session = bearer(guard.open_session(guard.setup_code().expose()).unwrap().expose());
        for _ in 0..(8 * 6 - 1) {
            tokio::time::advance(Duration::from_mins(10)).await;
            assert!(guard.person(&session).is_ok());
        }
        tokio::time::advance(Duration::from_mins(10)).await;
        assert!(guard.person(&session).is_err(), "eight hours are over");
        let idle = bearer(guard.open_session(guard.setup_code().expose()).unwrap().expose());
        tokio::time::advance(SESSION_IDLE).await;
        assert!(guard.person(&idle).is_err());
    }

    #[test]
    fn attack_07_and_08_only_our_own_origin_is_served() {
        let check = |fields: &[(&'static str, &'static str)], from_provider| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_origin(&Method::GET, &headers, from_provider).map_err(|problem| problem.status)
        };
        assert_eq!(check(&[("host", "127.0.0.1:8701")], false), Ok(()));
        assert_eq!(check(&[("host", "localhost:8701"), ("origin", "http://localhost:8701")], false), Ok(()));
        assert_eq!(check(&[("host", "[::1]:8701"), ("sec-fetch-site", "same-origin")], false), Ok(()));
        assert_eq!(check(&[("host", "evil.example:8701")], false), Err(421));
        assert_eq!(check(&[("host", "127.0.0.1.evil.example")], false), Err(421));
        assert_eq!(check(&[], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1"), ("host", "127.0.0.1")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("origin", "http://127.0.0.1:9999")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("origin", "null")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "cross-site")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "same-site")], false), Err(403));
        assert_eq!(check(&[("host", "127.0.0.1:8701"), ("sec-fetch-site", "cross-site")], true), Ok(()));
    }
}
