//! Property tests of the lifecycle: one account, a server that rotates with reuse detection, a failing vault, and crashes
//! between any two steps.
//!
//! [`harness`] takes the steps of `Lifecycle::refresh` in their order on the real state machine, and checks each against its
//! own observations: no refresh token is presented after its successor was durable, no access token is given out before it
//! is durable, too late or when the clocks cannot be trusted, no failure changes what is stored, no more than 20 failed
//! calls an hour, no third try of an interrupted refresh, no refresh before its time.

mod fixtures;
mod plan;
mod server;
mod harness;

use std::time::Duration;

use proptest::prelude::*;

use harness::Harness;
use plan::{Disk, Plan, Point, Reply};
use server::Server;

/// One event of a scenario.
#[derive(Debug, Clone)]
enum Event {
    /// Time passes, and the account runs whenever something is due.
    Wait(Duration),
    /// Time passes until a refresh is due, and this much more.
    UntilDue(Duration),
    /// The machine is suspended: nothing runs, the boot clock continues.
    Sleep(Duration),
    /// The wall clock is stepped, in milliseconds.
    Step(i64),
    /// The upstream rejects the published token.
    Rejected,
    /// The process is killed while idle, and the wall clock is stepped before it starts again.
    Kill { down: Duration, step: i64 },
}

fn apply(harness: &mut Harness, event: &Event, plans: &[Plan; 2]) {
    match *event {
        Event::Wait(span) => {
            let until = harness.now + span;
            let mut plans = plans.clone();
            // Short-lived tokens would fill hours with refreshes: 25 are enough.
            for _ in 0..25 {
                let due = harness
                    .memory
                    .schedule
                    .refresh_at()
                    .map_or(until, |at| harness.now + at.since(harness.tick()))
                    .min(until);
                harness.now = milliseconds(due);
                refresh_if_due(harness, &plans);
                for plan in &mut plans {
                    plan.crash = None;
                }
                if harness.now >= until {
                    break;
                }
            }
            harness.now = harness.now.max(until);
        }
        Event::UntilDue(span) => {
            let due = harness.memory.schedule.refresh_at().map_or(Duration::ZERO, |at| at.since(harness.tick()));
            harness.now = milliseconds(harness.now + due + span);
        }
        Event::Sleep(span) => harness.now += span,
        Event::Step(millis) => harness.step(millis),
        Event::Rejected => harness.rejected(),
        Event::Kill { down, step } => harness.restart(down, step, plans[0].jitter),
    }
    harness.request();
    refresh_if_due(harness, plans);
    harness.request();
    check_login(harness);
}

/// Refreshes if due. A crash is followed by a restart and a second try, and a crash of that by a third, which succeeds.
fn refresh_if_due(harness: &mut Harness, plans: &[Plan; 2]) {
    for plan in plans {
        if harness.refresh_if_due(plan).is_ok() {
            return;
        }
        let step = plan.step.filter(|(at, _)| *at == Point::Published).map_or(0, |(_, millis)| millis);
        harness.restart(plan.down, step, plan.jitter);
        harness.request();
    }
    assert!(harness.refresh_if_due(&Plan::healthy(plans[1].jitter)).is_ok());
}

/// A login is lost only for a known reason.
fn check_login(harness: &Harness) {
    let seen = &harness.seen;
    if harness.relink_required() {
        let uncertain = seen.lost_response || seen.crashed_in_window;
        assert!(
            seen.refused || seen.unknown >= 3 || seen.crashes_with_intent >= 2 || (uncertain && harness.server.ended),
            "a login was lost without a reason"
        );
    }
}

/// Rounded up, as timers do.
fn milliseconds(span: Duration) -> Duration {
    let whole = Duration::from_millis(u64::try_from(span.as_millis()).expect("a test is short"));
    if whole < span { whole + Duration::from_millis(1) } else { whole }
}

const YEAR: i64 = 365 * 24 * 3_600_000;

fn steps() -> impl Strategy<Value = i64> {
    prop_oneof![Just(YEAR), Just(-YEAR), -3_600_000..3_600_000_i64, -90_000..90_000_i64]
}

fn spans() -> impl Strategy<Value = Duration> {
    prop_oneof![0..8_000_u64, 0..400_000_u64, 0..40_000_000_u64].prop_map(Duration::from_millis)
}

fn points() -> impl Strategy<Value = Point> {
    prop::sample::select(vec![
        Point::Begun,
        Point::Probed,
        Point::Intended,
        Point::Committed,
        Point::Received,
        Point::StoreFailed,
        Point::Durable,
        Point::Published,
    ])
}

fn replies() -> impl Strategy<Value = Reply> {
    prop_oneof![
        12 => Just(Reply::Success),
        1 => Just(Reply::ExpiredOnArrival),
        2 => Just(Reply::NeverSent),
        1 => Just(Reply::SpentWithoutResponse),
        2 => Just(Reply::UnspentWithoutResponse),
        3 => Just(Reply::Transient),
        2 => (0..400_u16).prop_map(Reply::TooMany),
        1 => Just(Reply::Unknown),
    ]
}

fn disks() -> impl Strategy<Value = Disk> {
    prop_oneof![8 => Just(Disk::Works), 1 => Just(Disk::Full), 1 => Just(Disk::FailsButKeeps)]
}

prop_compose! {
    fn plans(steps_too: bool)(
        crash in prop::option::weighted(0.15, points()),
        down in spans(),
        step in prop::option::weighted(0.1, (points(), steps())),
        probe_works in prop::bool::weighted(0.9),
        intent in disks(),
        reply in prop_oneof![40 => replies(), 1 => Just(Reply::Refused)],
        (request_time, response_time) in (0..29_000_u64, 0..29_000_u64),
        store_failures in prop_oneof![4 => Just(0_u16), 1 => 1..400_u16],
        store in disks(),
        jitter in 0.0..=1.0,
    ) -> Plan {
        let step = step.filter(|_| steps_too);
        let request_time = Duration::from_millis(request_time);
        let response_time = Duration::from_millis(response_time);
        Plan { crash, down, step, probe_works, intent, reply, request_time, response_time, store_failures, store, jitter }
    }
}

fn events(steps_too: bool) -> impl Strategy<Value = Event> {
    let step = if steps_too { steps().boxed() } else { Just(0).boxed() };
    prop_oneof![
        3 => spans().prop_map(Event::Wait),
        4 => (0..3_000_u64).prop_map(|millis| Event::UntilDue(Duration::from_millis(millis))),
        1 => spans().prop_map(Event::Sleep),
        1 => step.clone().prop_map(Event::Step),
        2 => Just(Event::Rejected),
        1 => (spans(), step).prop_map(|(down, step)| Event::Kill { down, step }),
    ]
}

fn servers() -> impl Strategy<Value = (Duration, Duration, Option<u32>)> {
    (
        prop::sample::select(vec![0, 5]).prop_map(Duration::from_secs),
        prop::sample::select(vec![5, 60, 3_600, 28_800]).prop_map(Duration::from_secs),
        prop::option::weighted(0.3, 1..100_u32),
    )
}

type Scenario = Vec<(Event, Plan)>;

fn scenarios(steps_too: bool) -> impl Strategy<Value = Scenario> {
    let scenario = |longest: usize| prop::collection::vec((events(steps_too), plans(steps_too)), 1..longest);
    prop_oneof![7 => scenario(10), 1 => scenario(60)]
}

/// Each event has a plan for the refresh that it causes; a refresh after a crash uses the plan of the next event.
fn run((grace, lifetime, not_before): (Duration, Duration, Option<u32>), scenario: &Scenario) -> Harness {
    let mut harness = Harness::new(Server::new(grace, lifetime, not_before), 0.5);
    for (index, (event, plan)) in scenario.iter().enumerate() {
        let (_, again) = &scenario[(index + 1) % scenario.len()];
        apply(&mut harness, event, &[plan.clone(), again.clone()]);
    }
    harness
}

/// At least this many, more with `PROPTEST_CASES`.
fn cases(least: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(least), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn every_event_keeps_the_invariants(server in servers(), scenario in scenarios(true)) {
        run(server, &scenario);
    }

    #[test]
    fn with_a_steady_clock_the_account_recovers(server in servers(), scenario in scenarios(false)) {
        let mut harness = run(server, &scenario);
        let healthy = [Plan::healthy(0.5), Plan::healthy(0.5)];
        apply(&mut harness, &Event::Wait(Duration::from_hours(9)), &healthy);
        assert!(harness.relink_required() || harness.request(), "the account does not recover");
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn one_crash_loses_a_login_only_in_the_window_without_grace(
        (_, lifetime, not_before) in servers(),
        grace in prop::sample::select(vec![0, 5]),
        forced in any::<bool>(),
        lost in any::<bool>(),
        (point, store) in (points(), disks()),
        (down, response_time) in (0..3_000_u64, 0..500_u64),
        jitters in [0.0..=1.0, 0.0..=1.0_f64],
    ) {
        let grace = Duration::from_secs(grace);
        let mut harness = Harness::new(Server::new(grace, lifetime, not_before), jitters[0]);
        let plan = Plan {
            crash: Some(point),
            down: Duration::from_millis(down),
            response_time: Duration::from_millis(response_time),
            store_failures: u16::from(point == Point::StoreFailed),
            store,
            // Without a grace period a lost response loses the login even without a crash.
            reply: if lost && !grace.is_zero() { Reply::SpentWithoutResponse } else { Reply::Success },
            ..Plan::healthy(jitters[0])
        };
        let again = Plan::healthy(jitters[1]);
        if forced {
            harness.now += lifetime / 2;
            apply(&mut harness, &Event::Rejected, &[plan.clone(), again.clone()]);
        }
        if harness.seen.restarts == 0 {
            apply(&mut harness, &Event::UntilDue(Duration::ZERO), &[plan, again.clone()]);
        }
        apply(&mut harness, &Event::Wait(lifetime * 2), &[again.clone(), again]);
        let in_window = match point {
            Point::Committed | Point::Received => true,
            Point::StoreFailed => store != Disk::FailsButKeeps,
            Point::Begun | Point::Probed | Point::Intended | Point::Durable | Point::Published => false,
        };
        assert_eq!(harness.relink_required(), grace.is_zero() && in_window);
        assert_eq!(harness.server.ended, harness.relink_required());
    }

    #[test]
    fn a_clock_stepped_by_a_year_while_down_stops_the_token(
        (grace, lifetime, _) in servers(),
        (share, down) in (0..100_u32, spans()),
        step in prop::sample::select(vec![-YEAR, YEAR]),
        jitter in 0.0..=1.0,
    ) {
        let mut harness = Harness::new(Server::new(grace, lifetime, None), jitter);
        harness.now += lifetime * share / 200;
        harness.restart(down.min(lifetime), step, jitter);
        assert!(!harness.request(), "the age of the token is unknown");
        refresh_if_due(&mut harness, &[Plan::healthy(jitter), Plan::healthy(jitter)]);
        assert!(harness.request(), "it was not refreshed");
    }
}
