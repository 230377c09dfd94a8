//! One account with failing dependencies: the steps of `Lifecycle::refresh` in order, on the real state machine and schedule,
//! with a possible crash between any two.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fixtures::{access_number, login, not_before, refresh_number, token_error, tokens, wall};
use super::plan::{Crash, Disk, Plan, Point, Reply};
use super::server::Server;
use crate::account::login::{Login, RefreshCredential};
use crate::account::refusals::{TokenRefusal, TokenReport};
use crate::account::schedule::RefreshSchedule;
use crate::account::state::{Record, RecordStatus};
use crate::clock::{Clock, Tick, Timestamp};
use crate::oauth::token_response::{TokenError, TokenErrorKind, TokenResponse};
use crate::secret::Secret;

/// The account, its server and its vault, and the observations.
pub struct Harness {
    pub server: Server,
    pub memory: Memory,
    disk: String,
    disk_login: String,
    /// True time, and the boot clock.
    pub now: Duration,
    pub seen: Seen,
    /// The wall clock is ahead of the true time by this many milliseconds.
    ahead: i64,
    boot: Tick,
    /// The step of the wall clock that the current refresh has not reached yet.
    pending_step: Option<(Point, i64)>,
}

/// The state that a crash loses: the lifecycle, the published token and a request for a refresh.
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

/// The observations that the invariants are checked against; independent of the state machine.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // observations, not a state
pub struct Seen {
    /// The numbers of all pairs that were ever durable.
    pub durable: BTreeSet<usize>,
    /// When calls were sent whose result was not stored, since the last step of the wall clock.
    pub failed_calls: Vec<Duration>,
    /// The refresh token of a call whose outcome is not stored.
    called_with: Option<usize>,
    pub restarts: u32,
    /// The plan made the provider refuse.
    pub refused: bool,
    /// The number of unknown responses that the plan caused.
    pub unknown: u32,
    /// The network lost a response.
    pub lost_response: bool,
    /// A crash between the server's commit and the durable record.
    pub crashed_in_window: bool,
    /// Crashes during tries of the same refresh.
    pub crashes_with_intent: u32,
    begun: bool,
    /// After a failure, no call before this.
    retry_at: Option<Duration>,
    intent_is_durable: bool,
    in_window: bool,
    /// The maximum of `ahead` since the refresh of the current token began.
    most_ahead: i64,
    /// The same for the refresh in progress.
    next_most_ahead: i64,
    /// How far the wall clock was behind `most_ahead` when the token's timing was decided.
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
            subject: None,
            identity: vec!["anna@example.com".into()],
            claim_headers: vec![("x-org".into(), "1".into())],
            bound: None,
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
        serde_json::from_str(&self.disk).expect("the stored bytes are a record")
    }

    /// Steps the wall clock, not the boot clock.
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

    /// Kills the process and starts it again after `down`.
    pub fn restart(&mut self, down: Duration, step: i64, jitter: f64) {
        // A write that failed but stored the record has made the response durable.
        if self.seen.called_with.take().is_some_and(|number| refresh_number(&self.stored().login) != number) {
            self.seen.failed_calls.pop();
        }
        if std::mem::take(&mut self.seen.begun) {
            self.seen.crashes_with_intent += 1;
        }
        self.seen.crashed_in_window |= std::mem::take(&mut self.seen.in_window);
        self.seen.restarts += 1;
        self.seen.retry_at = None; // in memory only, unlike the breaker
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
        let refusal = || TokenReport::Refused(TokenRefusal { status: 401, says: None });
        let reports: Vec<_> = rejected.map(|serial| (serial, refusal())).into_iter().collect();
        self.memory.schedule.is_forced(&reports, &self.memory.record, now)
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
        let response = self.call(&intending, plan)?;
        let refreshed = response.is_ok();
        let error = response.as_ref().err().cloned();
        let next = match response {
            Ok(tokens) => intending.refreshed(tokens, self.wall()),
            Err(error) => intending.failed(&error, self.wall()),
        };
        self.checkpoint(Point::Received, plan)?;
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
        match error {
            None => self.memory.schedule.succeeded(),
            Some(error) if next.is_refreshable() => {
                let pause = self.next_pause(error.retry_after, plan.jitter).max(next.breaker_wait(self.wall()));
                self.postpone(pause);
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn call(&mut self, record: &Record, plan: &Plan) -> Result<Result<TokenResponse, TokenError>, Crash> {
        let number = refresh_number(&record.login);
        self.check_call(number);
        self.seen.failed_calls.push(self.now);
        self.seen.called_with = Some(number);
        let hour_ago = self.now.checked_sub(Duration::from_hours(1));
        let recent = self.seen.failed_calls.iter().filter(|&&at| hour_ago.is_none_or(|hour_ago| at > hour_ago));
        assert!(recent.count() <= 20, "more than 20 failed calls within an hour");

        self.now += plan.request_time;
        let lifetime = if plan.reply == Reply::ExpiredOnArrival { Duration::ZERO } else { self.server.lifetime };
        let mut response = match plan.reply {
            Reply::NeverSent => Err(TokenError { certainly_unspent: true, ..token_error(TokenErrorKind::Transient) }),
            Reply::UnspentWithoutResponse => Err(token_error(TokenErrorKind::NoResponse)),
            Reply::Transient => Err(token_error(TokenErrorKind::Transient)),
            Reply::TooMany(seconds) => {
                let retry_after = Some(Duration::from_secs(seconds.into()));
                Err(TokenError { retry_after, ..token_error(TokenErrorKind::Transient) })
            }
            Reply::Unknown => {
                self.seen.unknown += 1;
                Err(token_error(TokenErrorKind::Unknown))
            }
            Reply::Refused => {
                self.seen.refused = true;
                self.server.ended = true;
                Err(token_error(TokenErrorKind::Terminal))
            }
            Reply::Success | Reply::ExpiredOnArrival | Reply::SpentWithoutResponse => self.spend(number, lifetime),
        };
        if plan.reply == Reply::SpentWithoutResponse {
            self.seen.lost_response |= response.is_ok();
            response = Err(token_error(TokenErrorKind::NoResponse));
        }
        self.seen.in_window = response.is_ok();
        self.checkpoint(Point::Committed, plan)?;
        self.now += plan.response_time;
        Ok(response)
    }

    fn spend(&mut self, number: usize, lifetime: Duration) -> Result<TokenResponse, TokenError> {
        let reused = self.server.is_spent(number) && !self.server.ended;
        assert!(
            !reused || self.seen.lost_response || self.seen.crashed_in_window,
            "rt-{number} was spent twice without a reason"
        );
        let pair = self.server.refresh(number, lifetime, self.now);
        pair.map(|pair| tokens(pair, lifetime, self.now)).ok_or_else(|| token_error(TokenErrorKind::Terminal))
    }

    /// Checks the invariants of sending a refresh token.
    fn check_call(&self, number: usize) {
        let newest = self.seen.durable.last().copied();
        assert_eq!(newest, Some(number), "rt-{number} was presented after its successor was durable");
        assert!(self.seen.retry_at.is_none_or(|until| self.now >= until), "a call during the pause after a failure");
        assert!(self.seen.intent_is_durable, "a call without a durable intent");
        assert!(self.seen.crashes_with_intent < 2, "a call after two crashes with the same intent open");
        assert!(!self.relink_required(), "a call although a person must link again");
        // A clock that is ahead may shorten the wait; one that is behind must not lengthen it.
        let latest = wall(self.now, self.seen.most_ahead.max(0));
        let not_before = self.server.pair(number).not_before.map(|moment| wall(moment, 0));
        assert!(not_before.is_none_or(|moment| latest >= moment), "rt-{number} was presented before its time");
    }

    /// After each step: may step the clock, makes a request, may crash.
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
            assert!(refreshed || login(record) == self.disk_login, "a failure changed the stored login");
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
        self.seen.retry_at = Some(self.now + pause);
    }
}

impl Memory {
    fn new(record: Record) -> Self {
        Self { record, schedule: RefreshSchedule::default(), published: None, timed: None, rejected: None }
    }
}
