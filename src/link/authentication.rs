//! Authentication of the link surface. On TCP the source address proves nothing (containers of a pod share loopback), so every
//! call needs a secret; on the control socket the kernel reports the peer's user id.

use std::sync::Mutex;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, Method};
use tokio::sync::{Semaphore, watch};

use super::problem::Problem;
use crate::clock::{Clock, Tick};
use crate::lock::lock;
use crate::secret::Secret;

/// A setup code expires after this.
const CODE_LIFETIME: Duration = Duration::from_mins(15);

/// A session expires after this long without a call; an open event stream is none.
const SESSION_IDLE: Duration = Duration::from_mins(15);

/// A session expires after this in any case.
const SESSION_LIFETIME: Duration = Duration::from_hours(8);

/// Most setup codes, and most sessions, at once; a new one replaces the oldest.
const MAX_OPEN: usize = 16;

/// A wrong secret is answered after this.
const WRONG_DELAY: Duration = Duration::from_millis(100);

/// Most answers that are delayed at once, so that they cannot occupy the page's connections; further wrong secrets get a 429.
const MAX_DELAYED: usize = 8;

/// Wrong secrets are counted for this long, and this many are reported.
const COUNTED_FOR: Duration = Duration::from_mins(1);

/// See [`COUNTED_FOR`].
const REPORTED: u64 = 5;

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
pub struct Authenticated(Basis);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    ControlSocket,
    /// The number of a session.
    Session(u64),
    /// The number of a setup code.
    Code(u64),
}

/// Why a call on TCP is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It presents no secret.
    NothingPresented,
    /// It presents one that is wrong, used or expired.
    Wrong,
}

/// Setup codes and sessions.
///
/// With 128 bits and more, a secret cannot be guessed. Wrong ones are counted and slowed, and never keep the right one out.
pub struct Guard {
    clock: Clock,
    sessions: Mutex<Sessions>,
    /// Sent when a session or a setup code ends before its time.
    ended: watch::Sender<()>,
    delayed: Semaphore,
}

#[derive(Default)]
struct Sessions {
    codes: Vec<SetupCode>,
    open: Vec<Session>,
    /// Of the next code or session.
    next: u64,
    /// Wrong secrets since the tick.
    wrong: (Option<Tick>, u64),
}

struct SetupCode {
    code: Secret,
    number: u64,
    expires: Tick,
}

struct Session {
    token: Secret,
    number: u64,
    opened: Tick,
    used: Tick,
}

impl Guard {
    /// Without any code or session.
    pub fn new(clock: Clock) -> Self {
        let (ended, _) = watch::channel(());
        Self { clock, sessions: Mutex::default(), ended, delayed: Semaphore::new(MAX_DELAYED) }
    }

    /// Makes a setup code of 128 bits, for the link that `pixy url` prints.
    pub fn setup_code(&self) -> Secret {
        let code = Secret::random(16);
        let mut sessions = lock(&self.sessions);
        let (now, number) = (self.clock.tick(), sessions.number());
        sessions.codes.retain(|code| now < code.expires);
        if sessions.codes.len() >= MAX_OPEN {
            sessions.codes.remove(0);
        }
        sessions.codes.push(SetupCode { code: code.clone(), number, expires: now.after(CODE_LIFETIME) });
        code
    }

    /// Opens a session for a setup code, which is then used.
    pub fn open_session(&self, code: &str) -> Result<Secret, Denied> {
        let now = self.clock.tick();
        let mut sessions = lock(&self.sessions);
        let used = sessions.find_code(code, now).ok_or(Denied::Wrong)?;
        sessions.codes.retain(|code| code.number != used);
        let (token, number) = (Secret::random(32), sessions.number());
        if sessions.open.len() >= MAX_OPEN {
            sessions.open.remove(0);
        }
        sessions.open.push(Session { token: token.clone(), number, opened: now, used: now });
        drop(sessions);
        self.ended.send_replace(());
        Ok(token)
    }

    /// Authenticates a call on TCP by its bearer: a session token or a setup code.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Authenticated, Denied> {
        let presented = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        if presented.is_empty() {
            return Err(Denied::NothingPresented);
        }
        let now = self.clock.tick();
        let mut sessions = lock(&self.sessions);
        sessions.open.retain(|session| session.remaining(now).is_some());
        if let Some(session) = sessions.open.iter_mut().find(|session| session.token.matches(presented)) {
            session.used = now;
            return Ok(Authenticated(Basis::Session(session.number)));
        }
        sessions.find_code(presented, now).map(|number| Authenticated(Basis::Code(number))).ok_or(Denied::Wrong)
    }

    /// The answer to a call that was denied. That to a wrong secret is delayed, or says that there are too many.
    pub async fn refuse(&self, denied: Denied) -> Problem {
        if denied == Denied::NothingPresented {
            return Problem::not_signed_in();
        }
        if lock(&self.sessions).count_wrong(self.clock.tick()) == REPORTED {
            tracing::warn!(
                "{REPORTED} wrong setup codes within a minute: a program may be guessing. The right code is still accepted"
            );
        }
        let Ok(_delayed) = self.delayed.try_acquire() else { return Problem::locked() };
        tokio::time::sleep(WRONG_DELAY).await;
        Problem::wrong_code()
    }

    /// Ends the session, or uses up the setup code, of this call. The control socket has none.
    pub fn close_session(&self, call: &Authenticated) {
        let mut sessions = lock(&self.sessions);
        match call.0 {
            Basis::ControlSocket => return,
            Basis::Session(number) => sessions.open.retain(|session| session.number != number),
            Basis::Code(number) => sessions.codes.retain(|code| code.number != number),
        }
        drop(sessions);
        self.ended.send_replace(());
    }

    /// Resolves when the session or the setup code of this call has ended: closed, replaced, used or expired.
    pub async fn ended(&self, call: &Authenticated) {
        let mut ended = self.ended.subscribe();
        while let Some(remaining) = self.remaining(call) {
            let _ = tokio::time::timeout(remaining, ended.changed()).await; // either way, it is looked at again
        }
    }

    fn remaining(&self, call: &Authenticated) -> Option<Duration> {
        let now = self.clock.tick();
        let sessions = lock(&self.sessions);
        match call.0 {
            Basis::ControlSocket => Some(Duration::MAX),
            Basis::Session(number) => sessions.open.iter().find(|session| session.number == number)?.remaining(now),
            Basis::Code(number) => {
                let code = sessions.codes.iter().find(|code| code.number == number)?;
                Some(code.expires.since(now)).filter(|remaining| !remaining.is_zero())
            }
        }
    }
}

/// Authenticates a call on the control socket, whose mode is 0600: by the kernel, the peer must be the user of Pixy, or root.
pub fn authenticate_peer(peer: Option<u32>) -> Result<Authenticated, Problem> {
    match peer {
        Some(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Ok(Authenticated(Basis::ControlSocket)),
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
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Compares every code, so that the time reveals nothing.
    fn find_code(&mut self, presented: &str, now: Tick) -> Option<u64> {
        self.codes.retain(|code| now < code.expires);
        self.codes.iter().fold(None, |found, code| if code.code.matches(presented) { Some(code.number) } else { found })
    }

    /// How many were wrong within [`COUNTED_FOR`], this one included.
    fn count_wrong(&mut self, now: Tick) -> u64 {
        if self.wrong.0.is_none_or(|since| now.since(since) >= COUNTED_FOR) {
            self.wrong = (Some(now), 0);
        }
        self.wrong.1 += 1;
        self.wrong.1
    }
}

impl Session {
    /// Until it expires without another call; `None` once it has expired.
    fn remaining(&self, now: Tick) -> Option<Duration> {
        let idle = SESSION_IDLE.saturating_sub(now.since(self.used));
        let whole = SESSION_LIFETIME.saturating_sub(now.since(self.opened));
        Some(idle.min(whole)).filter(|remaining| !remaining.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use http::HeaderValue;
    use std::sync::Arc;

    fn bearer(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        headers
    }

    fn guard() -> Arc<Guard> {
        Arc::new(Guard::new(Clock::tokio(Timestamp::EPOCH)))
    }

    #[tokio::test(start_paused = true)]
    async fn attack_92_a_flood_of_wrong_codes_is_slowed_and_locks_nothing() {
        let guard = guard();
        let session = guard.open_session(guard.setup_code().expose()).unwrap();
        let mut flood = tokio::task::JoinSet::new();
        for n in 0..10_000 {
            let guard = Arc::clone(&guard);
            flood.spawn(async move {
                let start = tokio::time::Instant::now();
                let denied = guard.open_session(&format!("guess {n}")).unwrap_err();
                (guard.refuse(denied).await.status, start.elapsed())
            });
        }
        tokio::task::yield_now().await;
        assert_eq!(guard.delayed.available_permits(), 0, "the flood is under way");
        let (code, before) = (guard.setup_code(), tokio::time::Instant::now());
        assert!(guard.authenticate(&bearer(code.expose())).is_ok());
        assert!(guard.open_session(code.expose()).is_ok(), "the right code is accepted meanwhile");
        assert!(guard.authenticate(&bearer(session.expose())).is_ok());
        assert!(before.elapsed().is_zero());
        let answers = flood.join_all().await;
        let slowed = answers.iter().filter(|answer| **answer == (401, WRONG_DELAY)).count();
        let refused = answers.iter().filter(|answer| **answer == (429, Duration::ZERO)).count();
        assert_eq!((slowed, refused), (MAX_DELAYED, 10_000 - MAX_DELAYED));
        assert_eq!(lock(&guard.sessions).wrong.1, 10_000, "counted");
        assert_eq!(guard.open_session(code.expose()).err(), Some(Denied::Wrong), "a setup code opens one session");
    }

    #[tokio::test(start_paused = true)]
    async fn attack_93_the_end_of_a_session_is_noticed() {
        let (guard, start) = (guard(), tokio::time::Instant::now());
        let open = || bearer(guard.open_session(guard.setup_code().expose()).unwrap().expose());
        // Idle: each call counts, the wait does not.
        let session = open();
        let call = guard.authenticate(&session).unwrap();
        let until = async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            guard.authenticate(&session).unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = guard.ended(&call) => {}, () = until => {} }
        assert_eq!(start.elapsed(), Duration::from_mins(25));
        // Closed, replaced by a newer one, or used.
        let (closed, other, replaced) = (open(), open(), open());
        let [closed, other, replaced] = [closed, other, replaced].map(|session| guard.authenticate(&session).unwrap());
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, guard.ended(&closed)).await.is_err());
        guard.close_session(&closed);
        tokio::time::timeout(soon, guard.ended(&closed)).await.unwrap();
        assert!(tokio::time::timeout(soon, guard.ended(&other)).await.is_err(), "another session stays");
        let newer = async {
            tokio::task::yield_now().await;
            (0..MAX_OPEN).for_each(|_| drop(open()));
        };
        let ((), waited) = tokio::join!(newer, tokio::time::timeout(soon, guard.ended(&replaced)));
        waited.unwrap();
        let code = guard.setup_code();
        let by_code = guard.authenticate(&bearer(code.expose())).unwrap();
        assert!(tokio::time::timeout(soon, guard.ended(&by_code)).await.is_err());
        guard.open_session(code.expose()).unwrap();
        tokio::time::timeout(soon, guard.ended(&by_code)).await.unwrap();
        let control = Authenticated(Basis::ControlSocket);
        assert!(tokio::time::timeout(Duration::from_hours(48), guard.ended(&control)).await.is_err());
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
