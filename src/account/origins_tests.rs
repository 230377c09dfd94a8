use serde_json::json;

use super::*;

/// A profile whose servers are at these hosts; an empty one is absent.
fn profile(issuer: &str, token: &str, revoke: &str, api: &str) -> Profile {
    let url = |host: &str| (!host.is_empty()).then(|| format!("https://{host}/path"));
    let profile = json!({
        "title": "t",
        "terms": { "status": "open" },
        "link": { "flow": "authorization_code", "issuer": url(issuer) },
        "token": { "url": url(token) },
        "revoke": url(revoke).map(|url| json!({ "url": url, "body": "json" })),
        "api": { "base_url": url(api), "allow": ["GET /models"] },
    });
    serde_json::from_value(profile).unwrap()
}

fn moves(bound: &Profile, now: &Profile, discovered: &[&str]) -> Vec<String> {
    let discovered: Vec<_> = discovered.iter().map(|url| Url::parse(url).unwrap()).collect();
    let moves = Bound::to(bound, None).moves(now, &discovered.iter().collect::<Vec<_>>());
    moves.into_iter().map(|Move { from, to }| format!("{from} {to}")).collect()
}

#[test]
fn attack_85_every_changed_origin_is_a_move() {
    let before = profile("i", "t", "r", "a");
    assert!(moves(&before, &before, &[]).is_empty());
    for (now, expected) in [
        (profile("x", "t", "r", "a"), "https://i https://x"),
        (profile("i", "x", "r", "a"), "https://t https://x"),
        (profile("i", "t", "x", "a"), "https://r https://x"),
        (profile("i", "t", "r", "x"), "https://a https://x"),
        (profile("i", "t", "r", "a:8443"), "https://a https://a:8443"),
        (profile("i", "t", "r", "t"), "https://a https://t"),
        (profile("i", "a", "r", "a"), "https://t https://a"),
    ] {
        assert_eq!(moves(&before, &now, &[]), [expected]);
    }
    assert_eq!(moves(&profile("i", "i", "i", "a"), &profile("x", "x", "x", "a"), &[]), ["https://i https://x"], "once");
}

#[test]
fn a_url_that_was_not_configured_may_name_a_known_server_alone() {
    let discovered = profile("i", "", "", "a");
    assert!(moves(&discovered, &profile("i", "i", "", "a"), &[]).is_empty(), "the issuer itself");
    assert!(moves(&discovered, &profile("i", "t", "", "a"), &["https://t/token"]).is_empty(), "as its metadata said");
    assert_eq!(moves(&discovered, &profile("i", "x", "", "a"), &["https://t/token"]), ["https://i https://x"]);
    assert_eq!(moves(&profile("", "t", "", "a"), &profile("x", "t", "", "a"), &[]), ["https://t https://x"]);
    assert_eq!(
        moves(&profile("", "t", "", "a"), &profile("", "t", "a", "a"), &[]),
        ["https://t https://a"],
        "only the API"
    );
    assert_eq!(
        moves(&profile("", "", "", "a"), &profile("", "x", "", "a"), &[]),
        ["https://a https://x"],
        "a static key"
    );
    assert!(moves(&profile("i", "t", "r", "a"), &profile("i", "", "", "a"), &[]).is_empty(), "nothing new is named");
}

#[test]
fn a_former_origin_of_a_shipped_profile_is_accepted() {
    let (before, mut now) = (profile("", "t", "", "a"), profile("", "t", "", "b"));
    let bound = Bound::to(&before, None);
    assert!(!bound.moves(&now, &[]).is_empty() && !bound.is_formerly_of(&now));
    now.formerly = serde_json::from_value(json!(["https://a"])).unwrap();
    assert!(bound.moves(&now, &[]).is_empty() && bound.is_formerly_of(&now));
    assert!(!Bound::to(&now, None).is_formerly_of(&now), "bound anew, it is where it belongs");
    let mut with_revocation = profile("", "t", "r", "a");
    assert_eq!(bound.moves(&with_revocation, &[]).len(), 1);
    with_revocation.formerly = now.formerly.clone();
    assert!(bound.moves(&with_revocation, &[]).is_empty() && bound.is_formerly_of(&with_revocation), "it gained a URL");
    now.token = profile("", "x", "", "b").token;
    assert_eq!(bound.moves(&now, &[]).len(), 1, "the token endpoint has no former origin");
}

#[test]
fn the_sentence_names_every_move() {
    let (before, now) = (profile("", "t", "", "a"), profile("", "x", "", "y"));
    assert_eq!(
        sentence(&Bound::to(&before, None).moves(&now, &[])).unwrap(),
        "The login was moved from https://t to https://x and from https://a to https://y by the configuration."
    );
    assert_eq!(sentence(&[]), None);
}
