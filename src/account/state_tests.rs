use super::*;
use crate::oauth::token_response::NotBefore;
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::EPOCH;

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

pub fn login() -> Login {
    Login {
        access_token: Secret::new("at-0".into()),
        refresh_credential: RefreshCredential::RefreshToken { token: Secret::new("rt-0".into()) },
        obtained_at: NOW,
        lifetime: Some(Duration::from_hours(1)),
        not_before: None,
        serial: 0,
        client_id: None,
        token_url: None,
        revoke_url: None,
        scopes: vec!["a".into()],
        subject: None,
        identity: vec!["anna@example.com".into()],
        claim_headers: Vec::new(),
        bound: None,
    }
}

pub fn tokens(refresh_token: Option<&str>, lifetime: u64) -> TokenResponse {
    TokenResponse {
        id_token: None,
        access_token: Secret::new("at-1".into()),
        refresh_token: refresh_token.map(|token| Secret::new(token.into())),
        lifetime: Some(Duration::from_secs(lifetime)),
        not_before: None,
        scopes: None,
        subject: None,
        identity: Vec::new(),
        claim_headers: Vec::new(),
    }
}

fn error(kind: TokenErrorKind) -> TokenError {
    TokenError { kind, code: None, what: "it failed".into(), retry_after: None, certainly_unspent: false }
}

pub fn refresh_token(record: &Record) -> &str {
    match &record.login.refresh_credential {
        RefreshCredential::RefreshToken { token } => token.expose(),
        _ => "",
    }
}

pub fn is_relink(record: &Record) -> bool {
    matches!(record.status, RecordStatus::RelinkRequired { .. })
}

#[test]
fn attack_69_without_a_new_refresh_token_the_old_one_is_kept() {
    // google-gemini/gemini-cli#21691
    let record = Record::linked(login(), NOW).with_intent(NOW);
    let kept = record.refreshed(tokens(None, 60), at(1));
    assert_eq!((refresh_token(&kept), kept.login.access_token.expose()), ("rt-0", "at-1"));
    assert_eq!(kept.login.identity, ["anna@example.com"]);
    let rotated = record.refreshed(tokens(Some("rt-1"), 60), at(1));
    assert_eq!((refresh_token(&rotated), rotated.login.serial, rotated.intent.is_none()), ("rt-1", 1, true));
}

#[test]
fn no_failure_changes_the_login() {
    for kind in
        [TokenErrorKind::Terminal, TokenErrorKind::Transient, TokenErrorKind::NoResponse, TokenErrorKind::Unknown]
    {
        let record = Record::linked(login(), NOW).with_intent(NOW).failed(&error(kind), at(1));
        assert_eq!((refresh_token(&record), record.login.access_token.expose()), ("rt-0", "at-0"), "{kind:?}");
        assert_eq!(is_relink(&record), kind == TokenErrorKind::Terminal, "{kind:?}");
        assert_eq!(record.intent, None, "{kind:?}");
    }
}

#[test]
fn the_third_unknown_response_ends_the_login() {
    let mut record = Record::linked(login(), NOW);
    for nth in 1..=3 {
        record = record.with_intent(NOW).failed(&error(TokenErrorKind::Unknown), at(nth));
        assert_eq!(is_relink(&record), nth == 3);
    }
    let between = Record::linked(login(), NOW)
        .failed(&error(TokenErrorKind::Unknown), at(1))
        .failed(&error(TokenErrorKind::Unknown), at(2))
        .refreshed(tokens(None, 60), at(3))
        .failed(&error(TokenErrorKind::Unknown), at(4));
    assert!(!is_relink(&between), "a successful refresh resets the count");
}

#[test]
fn a_crash_with_an_open_intent_is_retried_once() {
    let once = Record::linked(login(), NOW).with_intent(NOW).after_restart(at(5));
    assert!(!is_relink(&once));
    let twice = once.with_intent(at(5)).after_restart(at(6));
    assert!(is_relink(&twice));
    let refused = once.with_intent(at(5)).failed(&error(TokenErrorKind::Terminal), at(6));
    let RecordStatus::RelinkRequired { reason, .. } = refused.status else { panic!("not refused") };
    assert!(reason.starts_with("An earlier refresh was interrupted"), "{reason}");
    let closed = once.with_intent(at(5)).refreshed(tokens(Some("rt-1"), 60), at(6)).with_intent(at(9));
    assert_eq!(closed.intent, Some(RefreshIntent { at: at(9), tries: 1 }), "an outcome closes the intent");
}

#[test]
fn a_lost_response_is_remembered_until_a_refresh_succeeds() {
    let unheard = Record::linked(login(), NOW).with_intent(NOW).failed(&error(TokenErrorKind::NoResponse), at(1));
    for kind in [TokenErrorKind::Transient, TokenErrorKind::Unknown] {
        let still = unheard.with_intent(at(2)).failed(&error(kind), at(3));
        assert_eq!(still.unheard_since, Some(at(1)), "{kind:?}");
        let refused = still.with_intent(at(4)).failed(&error(TokenErrorKind::Terminal), at(5));
        let RecordStatus::RelinkRequired { reason, .. } = refused.status else { panic!("not refused") };
        assert!(reason.starts_with("An earlier refresh was interrupted"), "{kind:?}: {reason}");
    }
    assert_eq!(unheard.with_intent(at(2)).refreshed(tokens(None, 60), at(3)).unheard_since, None);
}

#[test]
fn the_breaker_opens_at_twenty_failures_in_an_hour() {
    // diegosouzapw/OmniRoute PR#3692: 1,352 retries
    let mut record = Record::linked(login(), NOW);
    for second in 0..20 {
        assert_eq!(record.breaker_wait(at(second)), Duration::ZERO, "{second}");
        record = record.failed(&error(TokenErrorKind::Transient), at(second));
    }
    assert_eq!(record.breaker_wait(at(20)), Duration::from_secs(3_580));
    assert_eq!(record.breaker_wait(at(3_600)), Duration::ZERO);
    let dead_on_arrival = (0..20)
        .fold(Record::linked(login(), NOW), |record, second| record.refreshed(tokens(Some("rt"), 0), at(second)));
    assert!(
        dead_on_arrival.breaker_wait(at(20)) > Duration::ZERO,
        "tokens that are expired on arrival count as failures"
    );
}

#[tokio::test(start_paused = true)]
async fn refresh_is_ahead_of_expiry_and_not_before_the_server_allows() {
    let tick = crate::clock::Clock::tokio(NOW).tick();
    let after = |seconds: f64| Some(tick.after(Duration::from_secs_f64(seconds)));
    let ten_minutes = Duration::from_mins(10);
    let not_before = |seconds| Some(NotBefore { moment: at(seconds), wait: Duration::from_secs(3_500) });

    let hour = Timing::of(&login(), ten_minutes, 0.5, NOW, tick);
    assert_eq!(
        (hour.refresh_at, hour.usable_until),
        (after(3600.0 - 360.0), after(3590.0)),
        "10 % is less than the lead"
    );

    let eight_hours =
        Timing::of(&Login { lifetime: Some(Duration::from_hours(8)), ..login() }, ten_minutes, 0.5, NOW, tick);
    assert_eq!(eight_hours.refresh_at, after(8.0 * 3600.0 - 600.0));

    let late = Timing::of(&Login { not_before: not_before(3_500), ..login() }, ten_minutes, 0.5, NOW, tick);
    assert_eq!(late.refresh_at, after(3500.0), "a refresh before earliest_refresh_at spends the token");

    let set_back = Login { obtained_at: at(100_000), not_before: not_before(103_500), ..login() };
    assert_eq!(
        Timing::of(&set_back, ten_minutes, 0.5, NOW, tick).refresh_at,
        after(3500.0),
        "a clock that was set back extends no wait"
    );

    let short = Timing::of(&Login { lifetime: Some(Duration::from_secs(5)), ..login() }, ten_minutes, 0.5, NOW, tick);
    assert_eq!((short.refresh_at, short.usable_until), (after(3.4), after(3.9)));

    let stale = Timing::of(&login(), ten_minutes, 0.5, at(10_000), tick);
    assert_eq!((stale.refresh_at, stale.usable_until), (Some(tick), Some(tick)), "expired: refresh now, do not send");

    let future = Timing::of(&Login { obtained_at: at(10_000), ..login() }, ten_minutes, 0.5, NOW, tick);
    assert_eq!(future.usable_until, Some(tick), "a token from the future may have expired");

    let eternal = Timing::of(&Login { lifetime: None, ..login() }, ten_minutes, 0.5, NOW, tick);
    assert_eq!(eternal, Timing { usable_until: None, refresh_at: None, not_before: None });
}

#[test]
fn a_late_response_does_not_extend_the_lifetime() {
    let begun = Record::linked(login(), NOW).with_intent(at(100));
    let obtained = |now| begun.refreshed(tokens(Some("rt-1"), 60), at(now)).login.obtained_at;
    assert_eq!(obtained(129), at(100), "the server counts from before it sent its response");
    assert_eq!((obtained(31_536_000), obtained(99)), (at(31_535_880), at(99)), "the clock was stepped during the call");
}

#[test]
fn an_interrupted_refresh_is_due_at_once_and_counted() {
    let tick = crate::clock::Clock::default().tick();
    let due = |record: &Record| record.timing(Duration::from_mins(10), 0.0, at(9), tick).refresh_at;
    let begun = Record::linked(login(), NOW).with_intent(at(5));
    assert_eq!(due(&begun.after_restart(at(9))), Some(tick), "the grace period is some seconds");
    assert_eq!(due(&begun.failed(&error(TokenErrorKind::NoResponse), at(6)).after_restart(at(9))), Some(tick));
    assert!(due(&begun.failed(&error(TokenErrorKind::Transient), at(6)).after_restart(at(9))) > Some(tick));

    let nineteen = (0..19).fold(begun, |record, second| Record {
        intent: record.intent.clone(),
        ..record.failed(&error(TokenErrorKind::Transient), at(second))
    });
    assert_eq!(nineteen.breaker_wait(at(20)), Duration::ZERO);
    assert!(nineteen.after_restart(at(20)).breaker_wait(at(20)) > Duration::ZERO, "it was the twentieth");
}
