//! What a person reads while linking. Texts only.

use std::fmt::Write as _;

use serde_json::Value;
use url::Url;

use super::qr;
use crate::cli::terminal::{Mark, Place, Screen};
use crate::clock::Clock;

/// What to do in the browser, once an attempt has begun.
pub(super) fn begun(begun: &Value, title: &str, screen: Screen, place: Place) -> String {
    if begun["flow"] == "device_code" {
        on_device(begun, title, screen)
    } else {
        in_browser(begun, title, screen, place)
    }
}

fn in_browser(begun: &Value, title: &str, screen: Screen, place: Place) -> String {
    let address = text(&begun["authorize_url"]);
    let mut out = format!("1. Open this address in your browser, log in to {title}, and allow what it asks:\n\n");
    let _ = writeln!(out, "   {}\n", screen.mark(Mark::Strong, address)); // a String takes it, here and below
    match (begun["redirect"] == "loopback", begun["notice"].as_str()) {
        (true, _) => out.push_str(&comes_back(address, place)),
        (false, Some(notice)) => {
            let _ = write!(out, "2. {}", screen.mark(Mark::Warning, notice));
        }
        (false, None) => out.push_str(
            "2. It shows a code. Paste it here and press Enter. (Or the page cannot be opened: then paste its whole address.)",
        ),
    }
    let _ = write!(out, "\n\n{}", waiting(begun));
    out
}

fn comes_back(address: &str, place: Place) -> String {
    let redirect = redirect_of(address);
    let port = redirect.as_ref().and_then(Url::port).unwrap_or(80);
    let host = redirect.as_ref().and_then(Url::host_str).filter(|host| host.starts_with('[')).unwrap_or("127.0.0.1");
    let paste = "copy the address of the page that the browser could not open,\n   paste it here and press Enter.";
    let forward = format!("      ssh -N -L {port}:{host}:{port} HOST");
    match place {
        Place::Here => format!(
            "2. Come back here: Pixy goes on by itself.\n   If the browser ends at a page that it cannot open, {paste}"
        ),
        Place::Ssh => format!(
            "2. You are here over SSH, so the browser on your own machine ends at a page that it cannot open. Either\n   {paste}\n   \
             Or, before you open the address, run this on your own machine, with HOST as you reach this one:\n\n{forward}\n\n   \
             Then Pixy goes on by itself."
        ),
        Place::Container => format!(
            "2. This is a container. Where its port {port} is published on your machine (127.0.0.1:{port}:{port}), Pixy goes on by\n   \
             itself. Where it is not, the browser ends at a page that it cannot open: {paste}"
        ),
        Place::NoDisplay => format!(
            "2. This machine has no desktop. A browser on another one ends at a page that it cannot open:\n   {paste}\n   \
             Or, before you open the address, run this on that other machine, with HOST as it reaches this one:\n\n{forward}\n\n   \
             Then Pixy goes on by itself."
        ),
    }
}

fn on_device(begun: &Value, title: &str, screen: Screen) -> String {
    let page = text(&begun["verification_url"]);
    let with_code = begun["verification_url_complete"].as_str();
    let code = text(&begun["user_code"]);
    let mut out = String::new();
    let drawn = qr::draw(with_code.unwrap_or(page), screen);
    if let Some(drawn) = &drawn {
        let _ = writeln!(out, "{drawn}\n");
    }
    let or_scan = if drawn.is_some() { ", or scan the code above with your phone" } else { "" };
    let _ = writeln!(out, "1. Open this page in any browser{or_scan}:\n\n   {}\n", screen.mark(Mark::Strong, page));
    let _ = writeln!(out, "2. Log in to {title}, and enter this code, or see that the page shows this and no other:\n");
    let _ = writeln!(out, "   {}\n", screen.mark(Mark::Strong, code));
    out.push_str(
        "Enter this code only if you started this yourself, here: whoever sends you a code wants your login.\n\n",
    );
    out.push_str(&waiting(begun));
    out
}

fn waiting(begun: &Value) -> String {
    let ends = begun["expires_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let minutes = ends.map(|ends| (ends.as_second() - Clock::default().wall().as_seconds() + 59) / 60);
    match minutes {
        Some(1) => "Waiting for a minute at most; Ctrl-C stops.".to_owned(),
        Some(minutes) if minutes > 1 => format!("Waiting for {minutes} minutes at most; Ctrl-C stops."),
        _ => "Waiting; Ctrl-C stops.".to_owned(),
    }
}

/// Whose login it is, what it may do, and what it replaces.
pub(super) fn identified(found: &Value, screen: Screen) -> String {
    let identity = list(&found["identity"]);
    let mut out = if identity.is_empty() {
        "The provider does not say whose account this is.".to_owned()
    } else {
        format!("This is {}.", screen.mark(Mark::Strong, &identity))
    };
    // A paste is answered with `scopes`; of an attempt those are what was asked for.
    let granted = list(found.get("granted").unwrap_or(&found["scopes"]));
    if !granted.is_empty() {
        let _ = write!(out, "\nGranted: {granted}");
    }
    let missing = list(&found["missing_scopes"]);
    if !missing.is_empty() {
        let _ = write!(out, "\n{}", screen.mark(Mark::Warning, &format!("! Asked for and not granted: {missing}")));
    }
    if found["replaces"].is_array() {
        let replaced = list(&found["replaces"]);
        let line = if replaced.is_empty() || replaced == identity {
            "It replaces the login that is there now, which is ended at the provider.".to_owned()
        } else {
            let line = format!("! It replaces the login of {replaced}, which is ended at the provider.");
            screen.mark(Mark::Warning, &line)
        };
        let _ = write!(out, "\n{line}");
    }
    out
}

/// Where an agent finds it.
pub(super) fn linked(name: &str, recipes: &Value, screen: Screen) -> String {
    let mut out = format!("{} In the agent's environment:\n\n", screen.mark(Mark::Good, "✓ Linked."));
    for line in recipes[0]["lines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(out, "   {line}");
    }
    let _ = write!(out, "\nFor another kind of agent: pixy env {name} --for CLIENT");
    out
}

fn redirect_of(address: &str) -> Option<Url> {
    let address = Url::parse(address).ok()?;
    let (_, redirect) = address.query_pairs().find(|(name, _)| name == "redirect_uri")?;
    Url::parse(&redirect).ok()
}

fn list(value: &Value) -> String {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join(" · ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PLAIN: fn() -> Screen = || Screen::made(false, None);

    fn attempt(redirect_uri: &str) -> Value {
        let address = Url::parse_with_params("https://p.example/authorize", [("redirect_uri", redirect_uri)]).unwrap();
        json!({ "flow": "authorization_code", "redirect": "loopback", "notice": null, "authorize_url": address })
    }

    #[test]
    fn what_is_to_be_forwarded_is_the_port_that_the_provider_sends_the_browser_to() {
        for (redirect_uri, line) in [
            ("http://127.0.0.1:8701/callback", "ssh -N -L 8701:127.0.0.1:8701 HOST"),
            ("http://localhost:1455/auth/callback", "ssh -N -L 1455:127.0.0.1:1455 HOST"),
            ("http://[::1]:9000/", "ssh -N -L 9000:[::1]:9000 HOST"),
        ] {
            for (place, has_line) in
                [(Place::Ssh, true), (Place::NoDisplay, true), (Place::Here, false), (Place::Container, false)]
            {
                let said = begun(&attempt(redirect_uri), "P", PLAIN(), place);
                assert_eq!(said.contains(line), has_line, "{said}");
                assert!(said.contains("paste it here"), "a paste always works: {said}");
            }
        }
    }

    #[test]
    fn a_port_that_others_hold_is_told() {
        let mut attempt = attempt("http://localhost:1455/");
        attempt["redirect"] = json!("paste");
        attempt["notice"] = json!("Port 1455 is held by another program.");
        assert!(begun(&attempt, "P", PLAIN(), Place::Here).contains("2. Port 1455 is held by another program."));
    }

    #[test]
    fn a_code_for_a_device_stands_alone_on_its_line_and_is_drawn_on_terminals_only() {
        let attempt = json!({
            "flow": "device_code", "user_code": "WDJB-MJHT", "verification_url": "https://p.example/device",
            "verification_url_complete": "https://p.example/device?user_code=WDJB-MJHT",
        });
        let said = begun(&attempt, "P", PLAIN(), Place::Here);
        for line in ["   WDJB-MJHT", "   https://p.example/device"] {
            assert!(said.lines().any(|said| said == line), "{said}");
        }
        assert!(said.contains("only if you started this yourself") && !said.contains(['▀', '▄', '█']), "{said}");
        let said = begun(&attempt, "P", Screen::made(true, Some((80, 24))), Place::Here);
        assert!(said.contains("\x1b[1mWDJB-MJHT\x1b[0m") && said.contains('▀'), "{said}");
    }

    #[test]
    fn what_was_granted_is_told_and_not_what_was_asked_for() {
        let found = json!({
            "scopes": ["a", "b"], "granted": ["a"], "missing_scopes": ["b"], "identity": ["ada"], "replaces": ["bob"],
        });
        let said = identified(&found, PLAIN());
        assert_eq!(
            said,
            "This is ada.\nGranted: a\n! Asked for and not granted: b\n! It replaces the login of bob, which is ended at the provider."
        );
        let same = json!({ "scopes": ["a"], "missing_scopes": [], "identity": ["ada"], "replaces": ["ada"] });
        assert!(identified(&same, PLAIN()).contains("Granted: a\nIt replaces the login that is there now"));
    }
}
