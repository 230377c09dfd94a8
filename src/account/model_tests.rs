//! Property tests of the token life cycle: one account against a server that rotates with reuse detection and a vault that
//! fails, killed between any two steps.
//!
//! [`world`] takes the steps of `refresh.rs` in their order on the real state machine, and judges every one of them by a
//! ledger of its own: no refresh token is presented after its successor was durable, no access token is given out before it
//! is durable, too late or when the clocks cannot be trusted, no failure changes what is stored, no more than 20 failed
//! calls an hour, no third try of an interrupted refresh, no refresh before its time.

mod made;
mod plan;
mod server;
mod harness;

use std::time::Duration;

use proptest::prelude::*;

use harness::World;
use plan::{Disk, Plan, Point, Reply};
use server::Server;

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// Time goes by, the keeper waking when it is due.
    Wait(Duration),
    /// Time goes by until the keeper is due, and a little more.
    UntilDue(Duration),
    /// The machine sleeps: nothing runs, the boot clock goes on.
    Sleep(Duration),
    /// The wall clock is stepped, in milliseconds.
    Step(i64),
    /// The upstream refuses the live token.
    Rejected,
    /// The process is killed while nothing is under way, and the wall clock stepped before it is back.
    Kill { down: Duration, step: i64 },
}

fn play(world: &mut World, event: &Event, plans: &[Plan; 2]) {
    match *event {
        Event::Wait(span) => {
            let until = world.now + span;
            let mut plans = plans.clone();
            // Short-lived tokens would fill hours with renewals: 25 are enough.
            for _ in 0..25 {
                let due = world.pixy.refresh_at.map_or(until, |at| world.now + at.since(world.tick())).min(until);
                world.now = milliseconds(due);
                look(world, &plans);
                for plan in &mut plans {
                    plan.crash = None;
                }
                if world.now >= until {
                    break;
                }
            }
            world.now = world.now.max(until);
        }
        Event::UntilDue(span) => {
            let due = world.pixy.refresh_at.map_or(Duration::ZERO, |at| at.since(world.tick()));
            world.now = milliseconds(world.now + due + span);
        }
        Event::Sleep(span) => world.now += span,
        Event::Step(millis) => world.step(millis),
        Event::Rejected => world.rejected(),
        Event::Kill { down, step } => world.restart(down, step, plans[0].jitter),
    }
    world.request();
    look(world, plans);
    world.request();
    judge(world);
}

/// The keeper looks; a crash is followed by a restart and another look, and a crash of that by a third, which goes well.
fn look(world: &mut World, plans: &[Plan; 2]) {
    for plan in plans {
        if world.look(plan).is_ok() {
            return;
        }
        let step = plan.step.filter(|(at, _)| *at == Point::Published).map_or(0, |(_, millis)| millis);
        world.restart(plan.down, step, plan.jitter);
        world.request();
    }
    assert!(world.look(&Plan::healthy(plans[1].jitter)).is_ok());
}

/// A login is lost only for a reason.
fn judge(world: &World) {
    let seen = &world.seen;
    if world.relink_required() {
        let uncertain = seen.unheard || seen.crashed_in_window;
        assert!(
            seen.refused || seen.unknown >= 3 || seen.crashes_with_intent >= 2 || (uncertain && world.server.ended),
            "a login was lost without need"
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
        Point::Heard,
        Point::StoreFailed,
        Point::Durable,
        Point::Published,
    ])
}

fn replies() -> impl Strategy<Value = Reply> {
    prop_oneof![
        12 => Just(Reply::Honest),
        1 => Just(Reply::DeadOnArrival),
        2 => Just(Reply::NeverSent),
        1 => Just(Reply::SpentUnheard),
        2 => Just(Reply::UnspentUnheard),
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
        (there, back) in (0..29_000_u64, 0..29_000_u64),
        store_failures in prop_oneof![4 => Just(0_u16), 1 => 1..400_u16],
        store in disks(),
        jitter in 0.0..=1.0,
    ) -> Plan {
        let step = step.filter(|_| steps_too);
        let (there, back) = (Duration::from_millis(there), Duration::from_millis(back));
        Plan { crash, down, step, probe_works, intent, reply, there, back, store_failures, store, jitter }
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

type Story = Vec<(Event, Plan)>;

fn stories(steps_too: bool) -> impl Strategy<Value = Story> {
    let story = |longest: usize| prop::collection::vec((events(steps_too), plans(steps_too)), 1..longest);
    prop_oneof![7 => story(10), 1 => story(60)]
}

/// Each event comes with a plan for the refresh that it leads to; one that follows a crash goes by the next event's.
fn tell((grace, lifetime, not_before): (Duration, Duration, Option<u32>), story: &Story) -> World {
    let mut world = World::new(Server::new(grace, lifetime, not_before), 0.5);
    for (index, (event, plan)) in story.iter().enumerate() {
        let (_, again) = &story[(index + 1) % story.len()];
        play(&mut world, event, &[plan.clone(), again.clone()]);
    }
    world
}

/// At least so many, more by `PROPTEST_CASES`.
fn cases(least: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(least), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn whatever_happens_the_login_is_handled_with_care(server in servers(), story in stories(true)) {
        tell(server, &story);
    }

    #[test]
    fn with_a_steady_clock_the_breaker_holds_and_the_account_recovers(server in servers(), story in stories(false)) {
        let mut world = tell(server, &story);
        let healthy = [Plan::healthy(0.5), Plan::healthy(0.5)];
        play(&mut world, &Event::Wait(Duration::from_hours(9)), &healthy);
        assert!(world.relink_required() || world.request(), "the account does not recover");
    }
}

proptest! {
    #![proptest_config(cases(10_000))]

    #[test]
    fn one_crash_loses_nothing_within_the_grace_and_without_one_only_in_the_window(
        (_, lifetime, not_before) in servers(),
        grace in prop::sample::select(vec![0, 5]),
        forced in any::<bool>(),
        unheard in any::<bool>(),
        (point, store) in (points(), disks()),
        (down, back) in (0..3_000_u64, 0..500_u64),
        jitters in [0.0..=1.0, 0.0..=1.0_f64],
    ) {
        let grace = Duration::from_secs(grace);
        let mut world = World::new(Server::new(grace, lifetime, not_before), jitters[0]);
        let plan = Plan {
            crash: Some(point),
            down: Duration::from_millis(down),
            back: Duration::from_millis(back),
            store_failures: u16::from(point == Point::StoreFailed),
            store,
            // Without a grace an answer that the network lost is a loss of its own.
            reply: if unheard && !grace.is_zero() { Reply::SpentUnheard } else { Reply::Honest },
            ..Plan::healthy(jitters[0])
        };
        let again = Plan::healthy(jitters[1]);
        if forced {
            world.now += lifetime / 2;
            play(&mut world, &Event::Rejected, &[plan.clone(), again.clone()]);
        }
        if world.seen.restarts == 0 {
            play(&mut world, &Event::UntilDue(Duration::ZERO), &[plan, again.clone()]);
        }
        play(&mut world, &Event::Wait(lifetime * 2), &[again.clone(), again]);
        let in_window = match point {
            Point::Committed | Point::Heard => true,
            Point::StoreFailed => store != Disk::FailsButKeeps,
            Point::Begun | Point::Probed | Point::Intended | Point::Durable | Point::Published => false,
        };
        assert_eq!(world.relink_required(), grace.is_zero() && in_window);
        assert_eq!(world.server.ended, world.relink_required());
    }

    #[test]
    fn a_year_to_either_side_while_down_stops_a_token_until_it_is_renewed(
        (grace, lifetime, _) in servers(),
        (share, down) in (0..100_u32, spans()),
        step in prop::sample::select(vec![-YEAR, YEAR]),
        jitter in 0.0..=1.0,
    ) {
        let mut world = World::new(Server::new(grace, lifetime, None), jitter);
        world.now += lifetime * share / 200;
        world.restart(down.min(lifetime), step, jitter);
        assert!(!world.request(), "the age of the token is unknown");
        look(&mut world, &[Plan::healthy(jitter), Plan::healthy(jitter)]);
        assert!(world.request(), "it was not renewed");
    }
}
