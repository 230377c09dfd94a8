//! One account with failing dependencies: the steps of `Lifecycle::refresh` in their order, on the real state machine and the
//! real schedule, with a possible crash between any two.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fixtures::{access_number, failure, login, not_before, refresh_number, tokens, wall};
use super::plan::{Crash, Disk, Plan, Point, Reply};
use super::server::Server;
use crate::account::login::{Login, RefreshCredential};
use crate::account::schedule::RefreshSchedule;
use crate::account::state::{Record, RecordStatus};
use crate::clock::{Clock, Tick, Timestamp};
use crate::oauth::token_response::{TokenError, TokenErrorKind, Tokens};
use crate::secret::Secret;

/// What survives a crash, and what was observed.
pub struct Harness {
    pub server: Server,
    pub memory: Memory,
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

/// What a crash loses: the lifecycle, the published token and a request for a refresh.
pub struct Memory {
    pub record: Record,
    pub schedule: RefreshSchedule,
    /// The number of the published access token, and until when it is usable.
    published: Option<(usize, Option<Tick>)>,
    /// The serial of the token whose timing was decided last.
    timed: Option<u64>,
    /// The serial of a token that the upstream rejected.
    rejected: Option<u64>,
}

/// What the invariants are checked against; nothing in it comes from the state machine.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // observations, not a state
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

impl Harness {
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
        let mut harness = Self {
            server,
            memory: Memory::new(record.clone()),
            disk: String::new(),
            disk_login: String::new(),
            now: Duration::ZERO,
            seen: Seen::default(),
            ahead: 0,
            boot: Clock::default().tick(),
            pending_step: None,
        };
        harness.write(&record);
        harness.publish(jitter);
        harness
    }

    pub fn tick(&self) -> Tick {
        self.boot.after(self.now)
    }

    pub fn wall(&self) -> Timestamp {
        wall(self.now, self.ahead)
    }

    pub fn relink_required(&self) -> bool {
        matches!(self.memory.record.status, RecordStatus::RelinkRequired { .. })
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

    /// Checks the token that a request would get, and returns whether there is one.
    pub fn request(&self) -> bool {
        let Some((number, until)) = self.memory.published else { return false };
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

    /// The upstream rejects the published token: `Account::successor`.
    pub fn rejected(&mut self) {
        self.memory.rejected = self.memory.published.map(|_| self.memory.record.login.serial);
    }

    /// The process ends and starts again after `down`.
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
        self.seen.asked_to_wait = None; // kept in memory alone, unlike the breaker
        self.now += down;
        self.step(step);
        self.memory = Memory::new(self.stored().after_restart(self.wall()));
        self.publish(jitter);
        assert_eq!(login(&self.memory.record), self.disk_login, "a restart changed the login");
        assert!(self.seen.crashes_with_intent < 2 || self.relink_required(), "a third try of an interrupted refresh");
    }

    /// `Lifecycle::refresh_if_due`.
    pub fn refresh_if_due(&mut self, plan: &Plan) -> Result<(), Crash> {
        let now = self.tick();
        if !self.memory.record.is_refreshable() {
            return Ok(());
        }
        if self.memory.schedule.is_due(now) || self.may_force(now) {
            return self.refresh(plan);
        }
        Ok(())
    }

    fn may_force(&mut self, now: Tick) -> bool {
        let rejected = self.memory.rejected.take();
        rejected == Some(self.memory.record.login.serial) && self.memory.schedule.may_force(now)
    }

    /// `Lifecycle::refresh`.
    fn refresh(&mut self, plan: &Plan) -> Result<(), Crash> {
        let wait = self.memory.record.breaker_wait(self.wall());
        if !wait.is_zero() {
            self.postpone(wait);
            return Ok(());
        }
        let intending = self.memory.record.with_intent(self.wall());
        self.pending_step = plan.step;
        self.seen.next_most_ahead = self.ahead;
        self.checkpoint(Point::Begun, plan)?;
        let prepared = plan.probe_works && {
            self.checkpoint(Point::Probed, plan)?;
            self.store(&intending, plan.intent, false)
        };
        if !prepared {
            let pause = self.next_pause(None, plan.jitter);
            self.postpone(pause);
            return Ok(());
        }
        self.checkpoint(Point::Intended, plan)?;
        let answer = self.call(&intending, plan)?;
        let refreshed = answer.is_ok();
        let failure = answer.as_ref().err().cloned();
        let next = match answer {
            Ok(tokens) => intending.refreshed(tokens, self.wall()),
            Err(failure) => intending.failed(&failure, self.wall()),
        };
        self.checkpoint(Point::Heard, plan)?;
        for _ in 0..plan.store_failures {
            assert!(!self.store(&next, if plan.store == Disk::Works { Disk::Full } else { plan.store }, refreshed));
            self.now += Duration::from_secs(1);
            self.checkpoint(Point::StoreFailed, plan)?;
        }
        self.store(&next, Disk::Works, refreshed);
        self.seen.called_with = None;
        if refreshed && next.login.lifetime.is_none_or(|lifetime| lifetime >= Duration::from_secs(1)) {
            self.seen.failed_calls.pop();
        }
        self.checkpoint(Point::Durable, plan)?;
        self.publish(plan.jitter);
        self.checkpoint(Point::Published, plan)?;
        match failure {
            None => self.memory.schedule.succeeded(),
            Some(failure) if next.is_refreshable() => {
                let pause = self.next_pause(failure.retry_after, plan.jitter).max(next.breaker_wait(self.wall()));
                self.postpone(pause);
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
        self.checkpoint(Point::Committed, plan)?;
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

    /// Invariants at the moment a refresh token is sent.
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

    /// After each step: the clock may be stepped, a request comes, the process may end.
    fn checkpoint(&mut self, point: Point, plan: &Plan) -> Result<(), Crash> {
        if let Some((_, millis)) = self.pending_step.take_if(|(at, _)| *at == point) {
            self.step(millis);
        }
        self.request();
        if plan.crash == Some(point) { Err(Crash) } else { Ok(()) }
    }

    /// `Lifecycle::store`.
    fn store(&mut self, record: &Record, disk: Disk, refreshed: bool) -> bool {
        if disk != Disk::Full {
            assert!(refreshed || login(record) == self.disk_login, "a failure changed what is stored");
            self.write(record);
        }
        if disk == Disk::Works {
            self.memory.record = record.clone();
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

    /// `Lifecycle::publish`.
    fn publish(&mut self, jitter: f64) {
        let (wall, tick) = (self.wall(), self.tick());
        let memory = &mut self.memory;
        let login = &memory.record.login;
        if memory.timed.replace(login.serial) != Some(login.serial) {
            let behind = self.seen.most_ahead - self.ahead;
            self.seen.slack = Duration::from_millis(u64::try_from(behind).unwrap_or(0));
        }
        let timing = memory.schedule.publish(&memory.record, Duration::from_mins(10), jitter, wall, tick);
        memory.published = Some((access_number(login), timing.usable_until));
    }
}

impl Harness {
    fn next_pause(&mut self, retry_after: Option<Duration>, jitter: f64) -> Duration {
        self.memory.schedule.failed(retry_after, jitter)
    }

    fn postpone(&mut self, pause: Duration) {
        let until = self.tick().after(pause);
        self.memory.schedule.postpone(until);
        self.seen.asked_to_wait = Some(self.now + pause);
    }
}

impl Memory {
    fn new(record: Record) -> Self {
        Self { record, schedule: RefreshSchedule::default(), published: None, timed: None, rejected: None }
    }
}
