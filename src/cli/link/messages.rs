//! The texts of `pixy link`.

use std::fmt::Write as _;

use url::Url;

use super::qr;
use crate::api::{AttemptRedirect, ClientSnippet, Flow, Identified, StartedAttempt};
use crate::cli::terminal::{Emphasis, OutputStyle, TerminalLocation};
use crate::clock::Clock;

/// What the person has to do, once an attempt has begun.
pub(super) fn started(started: &StartedAttempt, title: &str, style: OutputStyle, location: TerminalLocation) -> String {
    if started.flow == Flow::DeviceCode {
        on_device(started, title, style)
    } else {
        in_browser(started, title, style, location)
    }
}

fn in_browser(started: &StartedAttempt, title: &str, style: OutputStyle, location: TerminalLocation) -> String {
    let address = started.authorize_url.as_deref().unwrap_or_default();
    let mut out = format!("1. Open this address in your browser, log in to {title}, and allow the access:\n\n");
    let _ = writeln!(out, "   {}\n", style.emphasize(Emphasis::Strong, address)); // a String accepts it, here and below
    match (started.redirect, started.notice.as_deref()) {
        (AttemptRedirect::Loopback, _) => out.push_str(&after_redirect(address, location)),
        (AttemptRedirect::Paste | AttemptRedirect::Device, Some(notice)) => {
            let _ = write!(out, "2. {}", style.emphasize(Emphasis::Warning, notice));
        }
        (AttemptRedirect::Paste | AttemptRedirect::Device, None) => out.push_str(
            "2. It shows a code. Paste it here and press Enter. (If the page cannot be opened, paste its whole address.)",
        ),
    }
    let _ = write!(out, "\n\n{}", remaining_time(started));
    out
}

fn after_redirect(address: &str, location: TerminalLocation) -> String {
    let redirect = redirect_of(address);
    let port = redirect.as_ref().and_then(Url::port).unwrap_or(80);
    let host = redirect.as_ref().and_then(Url::host_str).filter(|host| host.starts_with('[')).unwrap_or("127.0.0.1");
    let paste = "copy the address of the page that the browser could not open,\n   paste it here and press Enter.";
    let forward = format!("      ssh -N -L {port}:{host}:{port} HOST");
    match location {
        TerminalLocation::SameMachine => format!(
            "2. Come back here: Pixy continues by itself.\n   If the browser ends at a page that it cannot open, {paste}"
        ),
        TerminalLocation::Ssh => format!(
            "2. This terminal runs over SSH, so the browser on your own machine ends at a page that it cannot open. Either\n   {paste}\n   \
             Or, before you open the address, run this on your own machine, with HOST as you reach this one:\n\n{forward}\n\n   \
             Then Pixy continues by itself."
        ),
        TerminalLocation::Container => format!(
            "2. This is a container. Where its port {port} is published on your machine (127.0.0.1:{port}:{port}), Pixy continues by\n   \
             itself. Where it is not, the browser ends at a page that it cannot open: {paste}"
        ),
        TerminalLocation::NoDisplay => format!(
            "2. This machine has no desktop. A browser on another one ends at a page that it cannot open:\n   {paste}\n   \
             Or, before you open the address, run this on that other machine, with HOST as it reaches this one:\n\n{forward}\n\n   \
             Then Pixy continues by itself."
        ),
    }
}

fn on_device(started: &StartedAttempt, title: &str, style: OutputStyle) -> String {
    let page = started.verification_url.as_deref().unwrap_or_default();
    let code = started.user_code.as_deref().unwrap_or_default();
    let mut out = String::new();
    let drawn = qr::draw(started.verification_url_complete.as_deref().unwrap_or(page), style);
    if let Some(drawn) = &drawn {
        let _ = writeln!(out, "{drawn}\n");
    }
    let or_scan = if drawn.is_some() { ", or scan the code above with your phone" } else { "" };
    let _ =
        writeln!(out, "1. Open this page in any browser{or_scan}:\n\n   {}\n", style.emphasize(Emphasis::Strong, page));
    let _ =
        writeln!(out, "2. Log in to {title}, and enter this code, or check that the page shows exactly this code:\n");
    let _ = writeln!(out, "   {}\n", style.emphasize(Emphasis::Strong, code));
    out.push_str(
        "Enter this code only if you started this yourself, here: anyone who sends you a code wants your login.\n\n",
    );
    out.push_str(&remaining_time(started));
    out
}

fn remaining_time(started: &StartedAttempt) -> String {
    let seconds = started.expires_at.0.as_seconds() - Clock::default().wall().as_seconds();
    match (seconds + 59) / 60 {
        1 => "Waiting for a minute at most; Ctrl-C stops.".to_owned(),
        minutes if minutes > 1 => format!("Waiting for {minutes} minutes at most; Ctrl-C stops."),
        _ => "Waiting; Ctrl-C stops.".to_owned(),
    }
}

/// Whose login it is, what was granted, and what it replaces.
pub(super) fn identified(identified: &Identified, style: OutputStyle) -> String {
    let identity = identified.identity.join(" · ");
    let mut out = if identity.is_empty() {
        "The provider does not say whose account this is.".to_owned()
    } else {
        format!("This is {}.", style.emphasize(Emphasis::Strong, &identity))
    };
    if !identified.scopes.is_empty() {
        let _ = write!(out, "\nGranted: {}", identified.scopes.join(" · "));
    }
    if !identified.missing_scopes.is_empty() {
        let missing = format!("! Requested and not granted: {}", identified.missing_scopes.join(" · "));
        let _ = write!(out, "\n{}", style.emphasize(Emphasis::Warning, &missing));
    }
    if let Some(replaced) = &identified.replaces {
        let replaced = replaced.join(" · ");
        let line = if replaced.is_empty() || replaced == identity {
            "It replaces the login that is there now, which is revoked at the provider.".to_owned()
        } else {
            let line = format!("! It replaces the login of {replaced}, which is revoked at the provider.");
            style.emphasize(Emphasis::Warning, &line)
        };
        let _ = write!(out, "\n{line}");
    }
    out
}

/// What an agent needs in its environment.
pub(super) fn linked(name: &str, snippets: &[ClientSnippet], style: OutputStyle) -> String {
    let mut out = format!("{} In the agent's environment:\n\n", style.emphasize(Emphasis::Good, "✓ Linked."));
    for line in snippets.first().iter().flat_map(|snippet| &snippet.lines) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Time;
    use crate::clock::Timestamp;

    fn plain() -> OutputStyle {
        OutputStyle::new(false, None)
    }

    fn attempt(redirect_uri: &str) -> StartedAttempt {
        let address = Url::parse_with_params("https://p.example/authorize", [("redirect_uri", redirect_uri)]).unwrap();
        StartedAttempt {
            attempt: "id".to_owned(),
            flow: Flow::AuthorizationCode,
            authorize_url: Some(address.into()),
            scopes: Vec::new(),
            expires_at: Time(Timestamp::EPOCH),
            redirect: AttemptRedirect::Loopback,
            notice: None,
            user_code: None,
            verification_url: None,
            verification_url_complete: None,
        }
    }

    #[test]
    fn the_forwarded_port_is_that_of_the_redirect_uri() {
        for (redirect_uri, line) in [
            ("http://127.0.0.1:8701/callback", "ssh -N -L 8701:127.0.0.1:8701 HOST"),
            ("http://localhost:1455/auth/callback", "ssh -N -L 1455:127.0.0.1:1455 HOST"),
            ("http://[::1]:9000/", "ssh -N -L 9000:[::1]:9000 HOST"),
        ] {
            for (location, has_line) in [
                (TerminalLocation::Ssh, true),
                (TerminalLocation::NoDisplay, true),
                (TerminalLocation::SameMachine, false),
                (TerminalLocation::Container, false),
            ] {
                let text = started(&attempt(redirect_uri), "P", plain(), location);
                assert_eq!(text.contains(line), has_line, "{text}");
                assert!(text.contains("paste it here"), "a paste always works: {text}");
            }
        }
    }

    #[test]
    fn the_notice_of_a_port_in_use_is_shown() {
        let notice = Some("Port 1455 is held by another program.".to_owned());
        let attempt = StartedAttempt { redirect: AttemptRedirect::Paste, notice, ..attempt("http://localhost:1455/") };
        let text = started(&attempt, "P", plain(), TerminalLocation::SameMachine);
        assert!(text.contains("2. Port 1455 is held by another program."), "{text}");
    }

    #[test]
    fn a_user_code_has_its_own_line_and_a_qr_code_on_terminals() {
        let attempt = StartedAttempt {
            flow: Flow::DeviceCode,
            authorize_url: None,
            redirect: AttemptRedirect::Device,
            user_code: Some("WDJB-MJHT".to_owned()),
            verification_url: Some("https://p.example/device".to_owned()),
            verification_url_complete: Some("https://p.example/device?user_code=WDJB-MJHT".to_owned()),
            ..attempt("http://localhost/")
        };
        let text = started(&attempt, "P", plain(), TerminalLocation::SameMachine);
        for line in ["   WDJB-MJHT", "   https://p.example/device"] {
            assert!(text.lines().any(|shown| shown == line), "{text}");
        }
        assert!(text.contains("only if you started this yourself") && !text.contains(['▀', '▄', '█']), "{text}");
        let text = started(&attempt, "P", OutputStyle::new(true, Some((80, 24))), TerminalLocation::SameMachine);
        assert!(text.contains("\x1b[1mWDJB-MJHT\x1b[0m") && text.contains('▀'), "{text}");
    }

    #[test]
    fn granted_missing_and_replaced_are_shown() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let mut found = Identified {
            identity: words(&["ada"]),
            scopes: words(&["a"]),
            missing_scopes: words(&["b"]),
            replaces: Some(words(&["bob"])),
        };
        assert_eq!(
            identified(&found, plain()),
            "This is ada.\nGranted: a\n! Requested and not granted: b\n! It replaces the login of bob, which is revoked at the provider."
        );
        found.missing_scopes.clear();
        found.replaces = Some(words(&["ada"]));
        assert!(identified(&found, plain()).contains("Granted: a\nIt replaces the login that is there now"));
    }
}
