//! `pixy status`: every account in a line, then what is wrong and what to do.

use std::fmt::Write as _;

use http::Method;
use serde_json::Value;

use super::control::Control;
use super::terminal::{Mark, Screen, say};
use super::{Failure, runtime};
use crate::clock::Clock;

/// The columns; the one that may be cut is [`WHO`].
const HEADS: [&str; 6] = ["ACCOUNT", "PROVIDER", "STATE", "WHO", "TOKEN ENDS", "NEXT RENEWAL"];

const STATE: usize = 2;
const WHO: usize = 3;

/// Less of a person's address says nothing.
const NARROWEST_WHO: usize = 16;

/// Whatever the file says by now: the state is the running Pixy's.
pub(super) fn status(control: &Control, as_json: bool) -> Result<(), Failure> {
    let runtime = runtime()?;
    let accounts = runtime.block_on(control.call(Method::GET, "/api/accounts", None))?;
    let configuration = runtime.block_on(control.call(Method::GET, "/api/configuration", None))?;
    // What Pixy says itself comes first: it may know more, and it has not always looked yet.
    let own = || control.faults().map(|faults| faults.told("the configuration before stays in force"));
    if let Some(problem) = configuration["problem"].as_str().map(str::to_owned).or_else(own) {
        eprintln!("The configuration was changed and not taken up.\n{problem}\n");
    }
    if as_json {
        say(&format!("{accounts:#}"));
    } else {
        let now = Clock::default().wall().as_seconds();
        let (accounts, file) = (accounts.as_array().map_or(&[][..], Vec::as_slice), configuration["file"].as_str());
        say(table(accounts, file, Screen::of_stdout(), now).trim_end());
    }
    Ok(())
}

/// `file`: the configuration's, if the running Pixy has one.
fn table(accounts: &[Value], file: Option<&str>, screen: Screen, now: i64) -> String {
    if accounts.is_empty() {
        return "No accounts: the configuration names none. `pixy providers` lists what there is.\n".to_owned();
    }
    let rows: Vec<[String; 6]> = accounts.iter().map(|account| row(account, now)).collect();
    let heads = HEADS.map(str::to_owned);
    let mut widths = [0; 6];
    for row in rows.iter().chain([&heads]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if let Some((columns, _)) = screen.size() {
        let whole = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let cut = widths[WHO].saturating_sub(whole.saturating_sub(columns));
        widths[WHO] = cut.max(NARROWEST_WHO).min(widths[WHO]);
    }
    let mut out = String::new();
    let _ = writeln!(out, "{}", screen.mark(Mark::Faint, &line(&heads, widths, |_, cell| cell))); // a String takes it
    for (row, account) in rows.iter().zip(accounts) {
        let mark = standing(account).mark;
        let marked = |column, cell: String| if column == STATE { screen.mark(mark, &cell) } else { cell };
        let _ = writeln!(out, "{}", line(row, widths, marked));
    }
    for account in accounts {
        below(account, file, screen, now, &mut out);
    }
    let unlinked = accounts.iter().filter(|account| account["state"] == "unlinked");
    let ways: Vec<_> =
        unlinked.filter_map(|account| Some(format!("pixy link {}", account["name"].as_str()?))).collect();
    if !ways.is_empty() {
        let _ = writeln!(out, "\n- not linked yet → {}", ways.join(", "));
    }
    out
}

fn line(row: &[String; 6], widths: [usize; 6], mark: impl Fn(usize, String) -> String) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        let length = cell.chars().count();
        if length > width {
            return mark(column, cell.chars().take(width - 1).chain(['…']).collect());
        }
        mark(column, cell.clone()) + &" ".repeat(width - length)
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// A state in a sign and a word.
struct Standing {
    sign: char,
    word: &'static str,
    mark: Mark,
}

fn standing(account: &Value) -> Standing {
    let usable = account["usable"] == true;
    let failing = account["error"].is_object();
    let (sign, word, mark) = match account["state"].as_str().unwrap_or_default() {
        "unlinked" => ('-', "not linked", Mark::Faint),
        "needs_terms" => ('-', "terms to accept", Mark::Faint),
        "starting" => ('…', "starting", Mark::Faint),
        "linked" if usable && !failing => ('✓', "working", Mark::Good),
        "refreshing" if usable && !failing => ('✓', "renewing", Mark::Good),
        "linked" | "refreshing" | "uncertain" if usable => ('!', "working, renewal late", Mark::Warning),
        "linked" | "refreshing" | "uncertain" => ('✗', "trying again", Mark::Bad),
        "relink_required" => ('✗', "link it again", Mark::Bad),
        _ => ('?', "not known", Mark::Warning), // of a newer Pixy
    };
    Standing { sign, word, mark }
}

fn row(account: &Value, now: i64) -> [String; 6] {
    let text = |name: &str| account[name].as_str().unwrap_or_default().to_owned();
    let Standing { sign, word, .. } = standing(account);
    let identity = account["identity"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let who = identity.collect::<Vec<_>>().join(" · ");
    let at = |name: &str, without: &str| {
        account[name].as_str().map_or_else(|| without.to_owned(), |moment| relative(moment, now))
    };
    let has_login = matches!(account["state"].as_str(), Some("linked" | "refreshing" | "uncertain"));
    let ends = at("expires_at", if has_login { "never" } else { "" });
    let renewal = if has_login { at("next_refresh_at", "-") } else { String::new() };
    [text("name"), text("provider"), format!("{sign} {word}"), who, ends, renewal]
}

/// What is wrong and the remedy, and how much of the plan is used.
fn below(account: &Value, file: Option<&str>, screen: Screen, now: i64, out: &mut String) {
    let name = account["name"].as_str().unwrap_or_default();
    if let Some(title) = account["error"]["title"].as_str() {
        let Standing { sign, mark, .. } = standing(account);
        let _ = writeln!(out, "\n{} {name}: {title}", screen.mark(mark, &sign.to_string()));
        let _ = writeln!(out, "  {}", account["error"]["detail"].as_str().unwrap_or_default());
    }
    match account["state"].as_str() {
        Some("relink_required") => {
            let _ = writeln!(out, "  → pixy link {name}");
        }
        Some("needs_terms") => {
            let provider = account["provider"].as_str().unwrap_or_default();
            let place = file.map_or_else(
                || "a configuration of your own (~/.config/pixy/pixy.yaml), start Pixy again on it".to_owned(),
                |file| format!("{file}, which Pixy takes up within seconds"),
            );
            let _ = writeln!(
                out,
                "\n- {name} is not linked: read the terms (`pixy providers {provider}`). If you may, set `accept_terms: true` \
                 under\n  `accounts: {name}:` in {place}, and then\n  → pixy link {name}"
            );
        }
        _ => {}
    }
    let limits = account["quota"].as_array().into_iter().flatten().filter_map(|limit| quota(limit, now));
    let limits = limits.collect::<Vec<_>>().join(" · ");
    if !limits.is_empty() {
        let _ = writeln!(out, "\n  {name}, of the plan: {limits}");
    }
}

fn quota(limit: &Value, now: i64) -> Option<String> {
    let name = limit["name"].as_str()?;
    let mut text = match (limit["used"].as_f64(), limit["remaining"].as_u64(), limit["limit"].as_u64()) {
        (Some(used), _, _) => format!("{name}: {:.0} % used", used * 100.0),
        (None, Some(remaining), Some(limit)) => format!("{name}: {remaining} of {limit} left"),
        (None, Some(remaining), None) => format!("{name}: {remaining} left"),
        (None, None, _) => return None,
    };
    if let Some(at) = limit["resets_at"].as_str() {
        let _ = write!(text, ", resets {}", relative(at, now));
    }
    Some(text)
}

/// `in 7 h`, `3 min ago`.
fn relative(at: &str, now: i64) -> String {
    let Ok(moment) = at.parse::<jiff::Timestamp>() else { return at.to_owned() };
    let seconds = moment.as_second() - now;
    let span = match seconds.abs() {
        span @ 0..=119 => format!("{span} s"),
        span @ 120..=7199 => format!("{} min", span / 60),
        span @ 7200..=172_799 => format!("{} h", span / 3600),
        span => format!("{} days", span / 86400),
    };
    if seconds >= 0 { format!("in {span}") } else { format!("{span} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> String {
        jiff::Timestamp::from_second(1_000_000 + seconds).unwrap().to_string()
    }

    fn accounts() -> Vec<Value> {
        let linked = |name: &str| {
            json!({
                "name": name, "provider": "claude", "state": "linked", "usable": true, "identity": ["anna@example.com", "Max"],
                "expires_at": at(7 * 3600 + 5), "next_refresh_at": at(41 * 60), "error": null, "quota": null,
            })
        };
        let mut fine = linked("claude");
        fine["quota"] = json!([
            { "name": "5 hours", "used": 0.42, "limit": null, "remaining": null, "resets_at": at(7200) },
            { "name": "requests", "used": null, "limit": 50, "remaining": 7, "resets_at": null },
        ]);
        let mut late = linked("late");
        late["error"] = json!({ "title": "The provider does not answer.", "detail": "Nothing to do." });
        let mut away = late.clone();
        away["usable"] = json!(false);
        away["expires_at"] = json!(at(-180));
        vec![
            fine,
            late,
            away,
            json!({ "name": "gpt", "provider": "codex", "state": "relink_required", "usable": false, "identity": ["bob"],
                "error": { "title": "It has ended.", "detail": "Link it again." } }),
            json!({ "name": "key", "provider": "anthropic", "state": "linked", "usable": true, "identity": [] }),
            json!({ "name": "new", "provider": "openrouter", "state": "unlinked", "usable": false }),
        ]
    }

    #[test]
    fn every_account_has_a_line_and_what_is_wrong_has_its_remedy() {
        insta::assert_snapshot!(table(&accounts(), None, Screen::made(false, None), 1_000_000), @r"
        ACCOUNT  PROVIDER    STATE                    WHO                     TOKEN ENDS  NEXT RENEWAL
        claude   claude      ✓ working                anna@example.com · Max  in 7 h      in 41 min
        late     claude      ! working, renewal late  anna@example.com · Max  in 7 h      in 41 min
        late     claude      ✗ trying again           anna@example.com · Max  3 min ago   in 41 min
        gpt      codex       ✗ link it again          bob
        key      anthropic   ✓ working                                        never       -
        new      openrouter  - not linked

          claude, of the plan: 5 hours: 42 % used, resets in 2 h · requests: 7 of 50 left

        ! late: The provider does not answer.
          Nothing to do.

        ✗ late: The provider does not answer.
          Nothing to do.

        ✗ gpt: It has ended.
          Link it again.
          → pixy link gpt

        - not linked yet → pixy link new
        ");
    }

    #[test]
    fn terms_are_accepted_in_the_file_that_pixy_runs_on_or_in_one_that_it_is_started_on() {
        let waiting = [json!({ "name": "claude", "provider": "claude", "state": "needs_terms", "usable": false })];
        let shown = |file| table(&waiting, file, Screen::made(false, None), 0);
        insta::assert_snapshot!(shown(Some("/etc/pixy/pixy.yaml")), @r"
        ACCOUNT  PROVIDER  STATE              WHO  TOKEN ENDS  NEXT RENEWAL
        claude   claude    - terms to accept

        - claude is not linked: read the terms (`pixy providers claude`). If you may, set `accept_terms: true` under
          `accounts: claude:` in /etc/pixy/pixy.yaml, which Pixy takes up within seconds, and then
          → pixy link claude
        ");
        insta::assert_snapshot!(shown(None), @r"
        ACCOUNT  PROVIDER  STATE              WHO  TOKEN ENDS  NEXT RENEWAL
        claude   claude    - terms to accept

        - claude is not linked: read the terms (`pixy providers claude`). If you may, set `accept_terms: true` under
          `accounts: claude:` in a configuration of your own (~/.config/pixy/pixy.yaml), start Pixy again on it, and then
          → pixy link claude
        ");
    }

    #[test]
    fn a_narrow_screen_cuts_who_it_is_and_colours_change_no_width() {
        let narrow = table(&accounts(), None, Screen::made(false, Some((84, 24))), 1_000_000);
        assert!(narrow.contains("anna@example.co…"), "{narrow}");
        let plain = table(&accounts(), None, Screen::made(false, None), 1_000_000);
        let mut coloured = table(&accounts(), None, Screen::made(true, None), 1_000_000);
        assert!(coloured.contains("\x1b[32m✓ working"), "{coloured}");
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }
}
