//! One account in a world that fails: the steps of `refresh.rs` in their order, on the real state machine, with a crash
//! possible between any two.

use std::collections::BTreeSet;
use std::time::Duration;

use super::made::{access_number, failure, login, not_before, refresh_number, tokens, wall};
use super::plan::{Crash, Disk, Plan, Point, Reply};
use super::server::Server;
use crate::account::state::{Login, Record, RefreshCredential, Standing, Timing, backoff};
use crate::clock::{Clock, Tick, Timestamp};
use crate::oauth::token_response::{TokenError, TokenErrorKind, Tokens};
use crate::secret::Secret;

/// All that is remembered across a crash, and what has been seen.
pub struct World {
    pub server: Server,
    pub pixy: Pixy,
    disk: String,
    disk_login: String,
    /// True time, and the boot clock.
    pub now: Duration,
    pub seen: Seen,
    /// The wall clock is ahead of the truth by this many milliseconds.
    ahead: i64,
    boot: Tick,
    /// The step of the wall clock that the current refresh has yet to see.
    pending_step: Option<(Point, i64)>,
}

/// What dies with the process: `Inner`, the published token and the wish for a new one.
pub struct Pixy {
    pub record: Record,
    pub refresh_at: Option<Tick>,
    live: Option<(usize, Option<Tick>)>,
    timing: Option<(u64, Timing)>,
    failed_in_a_row: u32,
    forced_again_at: Option<Tick>,
    held_until: Option<Tick>,
    wanted: Option<u64>,
}

/// The ledger that the invariants are judged by; nothing in it comes from the state machine.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // a ledger, not a state
pub struct Seen {
    /// Numbers of all pairs that were ever durable.
    pub durable: BTreeSet<usize>,
    /// When calls went out that brought nothing (in the end), since the wall clock was last stepped.
    pub failed_calls: Vec<Duration>,
    /// The refresh token of a call whose outcome is not settled.
    called_with: Option<usize>,
    pub restarts: u32,
    /// The provider refused, or answered something unknown, because it was told to.
    pub refused: bool,
    pub unknown: u32,
    /// An answer was lost for good: by the network, or by a crash between the server's commit and the durable record.
    pub unheard: bool,
    pub crashed_in_window: bool,
    /// Crashes, each after another beginning of the same refresh.
    pub crashes_with_intent: u32,
    begun: bool,
    /// Since a failure no call may go out before this.
    asked_to_wait: Option<Duration>,
    intent_is_durable: bool,
    in_window: bool,
    /// The furthest that the wall clock was ahead since the live token's refresh began, and by how much it was behind that
    /// when the token's timing was decided.
    most_ahead: i64,
    next_most_ahead: i64,
    slack: Duration,
}

impl World {
    pub fn new(server: Server, jitter: f64) -> Self {
        let first = server.pair(0);
        let login = Login {
            access_token: Secret::new("at-0".into()),
            refresh_credential: RefreshCredential::RefreshToken { token: Secret::new("rt-0".into()) },
            obtained_at: wall(Duration::ZERO, 0),
            lifetime: Some(server.lifetime),
            not_before: not_before(first, Duration::ZERO),
            serial: 1,
            client_id: Some("client".into()),
            token_url: None,
            revoke_url: None,
            scopes: vec!["a".into()],
            identity: vec!["anna@example.com".into()],
            claim_headers: vec![("x-org".into(), "1".into())],
        };
        let record = Record::linked(login, wall(Duration::ZERO, 0));
        let mut world = Self {
            server,
            pixy: Pixy::new(record.clone()),
            disk: String::new(),
            disk_login: String::new(),
            now: Duration::ZERO,
            seen: Seen::default(),
            ahead: 0,
            boot: Clock::default().tick(),
            pending_step: None,
        };
        world.write(&record);
        world.publish(jitter);
        world
    }

    pub fn tick(&self) -> Tick {
        self.boot.after(self.now)
    }

    pub fn wall(&self) -> Timestamp {
        wall(self.now, self.ahead)
    }

    pub fn relink_required(&self) -> bool {
        matches!(self.pixy.record.standing, Standing::RelinkRequired { .. })
    }

    fn stored(&self) -> Record {
        serde_json::from_str(&self.disk).expect("what is stored is a record")
    }

    /// The wall clock is stepped; the boot clock is not.
    pub fn step(&mut self, millis: i64) {
        if millis == 0 {
            return;
        }
        self.ahead += millis;
        self.seen.most_ahead = self.seen.most_ahead.max(self.ahead);
        self.seen.next_most_ahead = self.seen.next_most_ahead.max(self.ahead);
        self.seen.failed_calls.clear();
    }

    /// A request comes; what it is given is checked.
    pub fn request(&self) -> bool {
        let Some((number, until)) = self.pixy.live else { return false };
        if until.is_some_and(|until| self.tick() >= until) {
            return false;
        }
        assert!(self.seen.durable.contains(&number), "at-{number} was given to a request before it was durable");
        let until = self.server.pair(number).until + self.seen.slack;
        assert!(
            self.now < until,
            "at-{number} was given to a request {:?} after its end",
            self.now.saturating_sub(until)
        );
        true
    }

    /// The upstream refuses the live token: `Account::successor`.
    pub fn rejected(&mut self) {
        self.pixy.wanted = self.pixy.live.map(|_| self.pixy.record.login.serial);
    }

    /// The process dies, and comes back after `down`.
    pub fn restart(&mut self, down: Duration, step: i64, jitter: f64) {
        // A store that reported a failure and kept the record has made the answer durable all the same.
        if self.seen.called_with.take().is_some_and(|number| refresh_number(&self.stored().login) != number) {
            self.seen.failed_calls.pop();
        }
        if std::mem::take(&mut self.seen.begun) {
            self.seen.crashes_with_intent += 1;
        }
        self.seen.crashed_in_window |= std::mem::take(&mut self.seen.in_window);
        self.seen.restarts += 1;
        self.seen.asked_to_wait = None; // what was only in memory; the breaker is not
        self.now += down;
        self.step(step);
        self.pixy = Pixy::new(self.stored().after_restart(self.wall()));
        self.publish(jitter);
        assert_eq!(login(&self.pixy.record), self.disk_login, "a restart changed the login");
        assert!(self.seen.crashes_with_intent < 2 || self.relink_required(), "a third try of an interrupted refresh");
    }

    /// `Account::look`.
    pub fn look(&mut self, plan: &Plan) -> Result<(), Crash> {
        let now = self.tick();
        if !self.pixy.record.is_renewable() {
            return Ok(());
        }
        if self.pixy.refresh_at.is_some_and(|at| at <= now) || self.may_force(now) {
            return self.refresh(plan);
        }
        Ok(())
    }

    /// `Account::may_force`.
    fn may_force(&mut self, now: Tick) -> bool {
        let wanted = self.pixy.wanted.take();
        let login = &self.pixy.record.login;
        let not_before = self.pixy.timing.and_then(|(_, timing)| timing.not_before);
        let held = [not_before, self.pixy.forced_again_at, self.pixy.held_until]
            .into_iter()
            .flatten()
            .any(|until| now < until);
        if wanted != Some(login.serial) || held {
            return false;
        }
        self.pixy.forced_again_at = Some(now.after(Duration::from_secs(30)));
        true
    }

    /// `Account::refresh`, `prepare` and `settle`.
    fn refresh(&mut self, plan: &Plan) -> Result<(), Crash> {
        let wait = self.pixy.record.breaker_wait(self.wall());
        if !wait.is_zero() {
            self.hold_back(wait);
            return Ok(());
        }
        let intending = self.pixy.record.intending(self.wall());
        self.pending_step = plan.step;
        self.seen.next_most_ahead = self.ahead;
        self.pass(Point::Begun, plan)?;
        let prepared = plan.probe_works && {
            self.pass(Point::Probed, plan)?;
            self.store(&intending, plan.intent, false)
        };
        if !prepared {
            let pause = self.next_pause(None, plan.jitter);
            self.hold_back(pause);
            return Ok(());
        }
        self.pass(Point::Intended, plan)?;
        let answer = self.call(&intending, plan)?;
        let renewing = answer.is_ok();
        let failure = answer.as_ref().err().cloned();
        let next = match answer {
            Ok(tokens) => intending.renewed(tokens, self.wall()),
            Err(failure) => intending.failed(&failure, self.wall()),
        };
        self.pass(Point::Heard, plan)?;
        for _ in 0..plan.store_failures {
            assert!(!self.store(&next, if plan.store == Disk::Works { Disk::Full } else { plan.store }, renewing));
            self.now += Duration::from_secs(1);
            self.pass(Point::StoreFailed, plan)?;
        }
        self.store(&next, Disk::Works, renewing);
        self.seen.called_with = None;
        if renewing && next.login.lifetime.is_none_or(|lifetime| lifetime >= Duration::from_secs(1)) {
            self.seen.failed_calls.pop();
        }
        self.pass(Point::Durable, plan)?;
        self.publish(plan.jitter);
        self.pass(Point::Published, plan)?;
        match failure {
            None => (self.pixy.failed_in_a_row, self.pixy.held_until) = (0, None),
            Some(failure) if next.is_renewable() => {
                let pause = self.next_pause(failure.retry_after, plan.jitter).max(next.breaker_wait(self.wall()));
                self.hold_back(pause);
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn call(&mut self, record: &Record, plan: &Plan) -> Result<Result<Tokens, TokenError>, Crash> {
        let number = refresh_number(&record.login);
        self.may_be_called(number);
        self.seen.failed_calls.push(self.now);
        self.seen.called_with = Some(number);
        let hour_ago = self.now.checked_sub(Duration::from_hours(1));
        let recent = self.seen.failed_calls.iter().filter(|&&at| hour_ago.is_none_or(|hour_ago| at > hour_ago));
        assert!(recent.count() <= 20, "more than 20 failed calls within an hour");

        self.now += plan.there;
        let lifetime = if plan.reply == Reply::DeadOnArrival { Duration::ZERO } else { self.server.lifetime };
        let mut answer = match plan.reply {
            Reply::NeverSent => Err(TokenError { certainly_unspent: true, ..failure(TokenErrorKind::Transient) }),
            Reply::UnspentUnheard => Err(failure(TokenErrorKind::NoResponse)),
            Reply::Transient => Err(failure(TokenErrorKind::Transient)),
            Reply::TooMany(seconds) => {
                let retry_after = Some(Duration::from_secs(seconds.into()));
                Err(TokenError { retry_after, ..failure(TokenErrorKind::Transient) })
            }
            Reply::Unknown => {
                self.seen.unknown += 1;
                Err(failure(TokenErrorKind::Unknown))
            }
            Reply::Refused => {
                self.seen.refused = true;
                self.server.ended = true;
                Err(failure(TokenErrorKind::Terminal))
            }
            Reply::Honest | Reply::DeadOnArrival | Reply::SpentUnheard => self.spend(number, lifetime),
        };
        if plan.reply == Reply::SpentUnheard {
            self.seen.unheard |= answer.is_ok();
            answer = Err(failure(TokenErrorKind::NoResponse));
        }
        self.seen.in_window = answer.is_ok();
        self.pass(Point::Committed, plan)?;
        self.now += plan.back;
        Ok(answer)
    }

    fn spend(&mut self, number: usize, lifetime: Duration) -> Result<Tokens, TokenError> {
        let reused = self.server.is_spent(number) && !self.server.ended;
        assert!(
            !reused || self.seen.unheard || self.seen.crashed_in_window,
            "rt-{number} was spent twice without need"
        );
        let pair = self.server.refresh(number, lifetime, self.now);
        pair.map(|pair| tokens(pair, lifetime, self.now)).ok_or_else(|| failure(TokenErrorKind::Terminal))
    }

    /// What must be true when a refresh token is presented.
    fn may_be_called(&self, number: usize) {
        let newest = self.seen.durable.last().copied();
        assert_eq!(newest, Some(number), "rt-{number} was presented after its successor was durable");
        assert!(
            self.seen.asked_to_wait.is_none_or(|until| self.now >= until),
            "a call during the pause after a failure"
        );
        assert!(self.seen.intent_is_durable, "a call without a durable intent");
        assert!(self.seen.crashes_with_intent < 2, "a call after two crashes with the same intent open");
        assert!(!self.relink_required(), "a call although a person must link again");
        // A clock that is ahead may shorten the wait; one that is behind need not lengthen it.
        let reckoned = wall(self.now, self.seen.most_ahead.max(0));
        let not_before = self.server.pair(number).not_before.map(|moment| wall(moment, 0));
        assert!(not_before.is_none_or(|moment| reckoned >= moment), "rt-{number} was presented before it may be");
    }

    /// One step is done: the clock may be stepped, a request may come, the process may die.
    fn pass(&mut self, point: Point, plan: &Plan) -> Result<(), Crash> {
        if let Some((_, millis)) = self.pending_step.take_if(|(at, _)| *at == point) {
            self.step(millis);
        }
        self.request();
        if plan.crash == Some(point) { Err(Crash) } else { Ok(()) }
    }

    /// `Account::store`.
    fn store(&mut self, record: &Record, disk: Disk, renewing: bool) -> bool {
        if disk != Disk::Full {
            assert!(renewing || login(record) == self.disk_login, "a failure changed what is stored");
            self.write(record);
        }
        if disk == Disk::Works {
            self.pixy.record = record.clone();
        }
        disk == Disk::Works
    }

    fn write(&mut self, record: &Record) {
        self.disk = serde_json::to_string(record).expect("a record has string keys only");
        if self.seen.durable.insert(access_number(&record.login)) {
            self.seen.most_ahead = self.seen.next_most_ahead;
        }
        self.disk_login = login(record);
        self.seen.begun = record.intent.is_some();
        self.seen.intent_is_durable = record.intent.is_some();
        if record.intent.is_none() {
            self.seen.crashes_with_intent = 0;
            self.seen.in_window = false;
        }
    }

    /// `Account::publish`.
    fn publish(&mut self, jitter: f64) {
        let (wall, tick) = (self.wall(), self.tick());
        let pixy = &mut self.pixy;
        let login = &pixy.record.login;
        let timing = match pixy.timing {
            Some((serial, timing)) if serial == login.serial => timing,
            _ => {
                let behind = self.seen.most_ahead - self.ahead;
                self.seen.slack = Duration::from_millis(u64::try_from(behind).unwrap_or(0));
                pixy.record.timing(Duration::from_mins(10), jitter, wall, tick)
            }
        };
        pixy.timing = Some((login.serial, timing));
        pixy.refresh_at = timing.refresh_at.filter(|_| pixy.record.is_renewable());
        pixy.live = Some((access_number(login), timing.usable_until));
    }
}

impl World {
    fn next_pause(&mut self, retry_after: Option<Duration>, jitter: f64) -> Duration {
        self.pixy.failed_in_a_row += 1;
        backoff(self.pixy.failed_in_a_row, retry_after, jitter)
    }

    fn hold_back(&mut self, pause: Duration) {
        let until = Some(self.tick().after(pause));
        (self.pixy.refresh_at, self.pixy.held_until) = (until, until);
        self.seen.asked_to_wait = Some(self.now + pause);
    }
}

impl Pixy {
    fn new(record: Record) -> Self {
        Self {
            record,
            refresh_at: None,
            live: None,
            timing: None,
            failed_in_a_row: 0,
            forced_again_at: None,
            held_until: None,
            wanted: None,
        }
    }
}
