//! Whether the answer to a refresh continues the login that a person confirmed. Pure.

use super::login::Login;
use super::state::Record;
use crate::clock::Timestamp;
use crate::oauth::profile::Profile;
use crate::oauth::token_response::TokenResponse;

/// The record after the provider answered a refresh with tokens. Tokens of another person, or without a scope that the profile
/// requires, do not replace the login: they are withheld, and the person is asked.
pub(super) fn next_record(record: &Record, tokens: TokenResponse, profile: &Profile, now: Timestamp) -> Record {
    match break_in(&record.login, &tokens, &profile.link.required_scopes) {
        None => record.refreshed(tokens, now),
        Some(why) => record.withholding(tokens, &format!("{why} The new tokens are kept, sealed and unused."), now),
    }
}

/// Why the answer does not continue `login`, as a sentence; `None` if it does.
fn break_in(login: &Login, tokens: &TokenResponse, required_scopes: &[String]) -> Option<String> {
    if let (Some(before), Some(now)) = (&login.subject, &tokens.subject)
        && before != now
    {
        let called = |identity: &[String]| match identity {
            [] => String::new(),
            texts => format!(" ({})", texts.join(" · ")),
        };
        return Some(format!(
            "The provider's answer to a refresh names another person{} than the one who linked this account{}.",
            called(&tokens.identity),
            called(&login.identity),
        ));
    }
    // Without `scope` the scopes are as before (RFC 6749 §5.1).
    let granted = tokens.scopes.as_ref()?;
    let missing: Vec<&str> =
        required_scopes.iter().filter(|scope| !granted.contains(scope)).map(String::as_str).collect();
    (!missing.is_empty()).then(|| {
        format!("The provider's answer to a refresh no longer grants what this account needs: {}.", missing.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{at, is_relink, login, refresh_token, tokens};
    use super::*;
    use crate::account::state::RecordStatus;
    use crate::oauth::identity::Subject;

    fn subject(issuer: &str, subject: &str) -> Subject {
        Subject { issuer: Some(issuer.to_owned()), subject: subject.to_owned() }
    }

    fn anna() -> Subject {
        subject("https://a.example", "anna")
    }

    fn profile(required_scopes: &[&str]) -> Profile {
        let text = r"{ title: A, terms: { status: open }, link: { flow: authorization_code }, api: { base_url: https://a.example, allow: [] } }";
        let mut profile: Profile = serde_yaml::from_str(text).unwrap();
        profile.link.required_scopes = required_scopes.iter().map(|&scope| scope.to_owned()).collect();
        profile
    }

    fn reason(record: &Record) -> &str {
        let RecordStatus::RelinkRequired { reason, .. } = &record.status else { panic!("{:?}", record.status) };
        reason
    }

    #[test]
    fn attack_94_tokens_of_another_person_are_withheld() {
        let record = Record::linked(Login { subject: Some(anna()), ..login() }, at(0)).with_intent(at(1));
        for other in [subject("https://a.example", "bob"), subject("https://b.example", "anna")] {
            let answer =
                TokenResponse { subject: Some(other), identity: vec!["bob".into()], ..tokens(Some("rt-1"), 60) };
            let next = next_record(&record, answer, &profile(&[]), at(2));
            assert!(is_relink(&next) && next.intent.is_none());
            assert!(reason(&next).contains("another person (bob)"), "{}", reason(&next));
            assert!(reason(&next).contains("linked this account (anna@example.com)"), "{}", reason(&next));
            assert_eq!(
                (refresh_token(&next), next.login.access_token.expose()),
                ("rt-0", "at-0"),
                "nothing is replaced"
            );
            assert_eq!(next.login.subject, Some(anna()));
            // The record is what the vault holds: a crash after this write loses nothing.
            let read: Record = serde_json::from_slice(&serde_json::to_vec(&next).unwrap()).unwrap();
            let kept = Record { login: *read.after_restart(at(3)).withheld.unwrap(), ..next };
            assert_eq!((refresh_token(&kept), kept.login.access_token.expose()), ("rt-1", "at-1"));
        }
    }

    #[test]
    fn the_same_person_or_an_unknown_one_continues() {
        for (before, now, after) in [
            (Some(anna()), Some(anna()), Some(anna())),
            (Some(anna()), None, Some(anna())),
            (None, Some(anna()), Some(anna())),
            (None, None, None),
        ] {
            let record = Record::linked(Login { subject: before, ..login() }, at(0)).with_intent(at(1));
            let answer = TokenResponse { subject: now, ..tokens(Some("rt-1"), 60) };
            let next = next_record(&record, answer, &profile(&[]), at(2));
            assert!(!is_relink(&next) && next.withheld.is_none());
            assert_eq!((refresh_token(&next), &next.login.subject), ("rt-1", &after));
        }
    }

    #[test]
    fn attack_94_a_refresh_without_a_required_scope_is_withheld() {
        let record = Record::linked(login(), at(0)).with_intent(at(1));
        for (granted, required, missing) in [
            (Some(vec!["b"]), vec!["a"], Some("a")),
            (Some(vec![]), vec!["a", "b"], Some("a, b")),
            (Some(vec!["b", "a"]), vec!["a"], None),
            (Some(vec!["b"]), vec![], None),
            (None, vec!["a"], None),
        ] {
            let scopes = granted.map(|granted| granted.into_iter().map(str::to_owned).collect());
            let answer = TokenResponse { scopes, ..tokens(Some("rt-1"), 60) };
            let next = next_record(&record, answer, &profile(&required), at(2));
            assert_eq!(is_relink(&next), missing.is_some(), "{required:?}");
            if let Some(missing) = missing {
                assert!(reason(&next).contains(&format!("needs: {missing}.")), "{}", reason(&next));
            }
        }
    }

    #[test]
    fn both_grants_are_revoked() {
        let record = Record::linked(Login { subject: Some(anna()), ..login() }, at(0));
        let answer = TokenResponse { subject: Some(subject("x", "bob")), ..tokens(Some("rt-1"), 60) };
        let next = next_record(&record, answer, &profile(&[]), at(2));
        let mut profile = profile(&[]);
        assert!(next.all_revocations(&profile, at(3)).is_empty(), "there is no endpoint");
        profile.revoke = serde_yaml::from_str("{ url: https://a.example/revoke }").unwrap();
        let revoked: Vec<_> =
            next.all_revocations(&profile, at(3)).iter().map(|pending| pending.token.expose().to_owned()).collect();
        assert_eq!(revoked, ["rt-0", "rt-1"]);
    }
}
