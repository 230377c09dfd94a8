//! `pixy status`: a line for each account, then what is wrong and what to do.

use std::fmt::Write as _;

use super::control_client::ControlClient;
use super::terminal::{Emphasis, OutputStyle, column_widths, print_error, print_json_pretty, print_line};
use super::{CommandError, runtime};
use crate::api::{self, AccountState, AccountStatus, QuotaLimit, Time};
use crate::clock::Clock;

/// The columns; only [`WHO`] is cut to fit the terminal.
const HEADINGS: [&str; 6] = ["ACCOUNT", "PROVIDER", "STATE", "WHO", "TOKEN ENDS", "NEXT RENEWAL"];

const STATE: usize = 2;
const WHO: usize = 3;

/// A shorter e-mail address identifies no person.
const MIN_WHO_WIDTH: usize = 16;

/// Reports the state of the running Pixy, also where the file has changed or has faults.
pub(super) fn print(control: &ControlClient, as_json: bool) -> Result<(), CommandError> {
    let runtime = runtime()?;
    let accounts = runtime.block_on(control.call::<api::ListAccounts>("", &()))?;
    let configuration = runtime.block_on(control.call::<api::ReadConfiguration>("", &()))?;
    // Pixy's own report comes first: it may know more, but it may not have read the file yet.
    let own = || control.faults().map(|faults| faults.with_consequence("the configuration before stays in force"));
    if let Some(problem) = configuration.problem.or_else(own) {
        print_error(&format!("The configuration was changed, and the change was not applied.\n{problem}\n"));
    }
    if as_json {
        print_json_pretty(&accounts);
    } else {
        let now = Clock::default().wall().as_seconds();
        print_line(table(&accounts, configuration.file.as_deref(), OutputStyle::of_stdout(), now).trim_end());
    }
    Ok(())
}

/// `file`: the running Pixy's configuration, if it has one.
fn table(accounts: &[AccountStatus], file: Option<&str>, style: OutputStyle, now: i64) -> String {
    if accounts.is_empty() {
        return "No accounts: the configuration names none. `pixy providers` lists the providers.\n".to_owned();
    }
    let rows: Vec<[String; 6]> = accounts.iter().map(|account| row(account, now)).collect();
    let headings = HEADINGS.map(str::to_owned);
    let widths = widths(&rows, &headings, style);
    let mut out = String::new();
    let _ = writeln!(out, "{}", style.emphasize(Emphasis::Faint, &line(&headings, widths, |_, cell| cell))); // a String accepts it
    for (row, account) in rows.iter().zip(accounts) {
        let emphasis = state_label(account).emphasis;
        let emphasized = |column, cell: String| if column == STATE { style.emphasize(emphasis, &cell) } else { cell };
        let _ = writeln!(out, "{}", line(row, widths, emphasized));
    }
    for account in accounts {
        write_details(account, file, style, now, &mut out);
    }
    let unlinked = accounts.iter().filter(|account| account.state == AccountState::Unlinked);
    let commands: Vec<_> = unlinked.map(|account| format!("pixy link {}", account.name)).collect();
    if !commands.is_empty() {
        let _ = writeln!(out, "\n- not linked yet → {}", commands.join(", "));
    }
    out
}

fn widths(rows: &[[String; 6]], headings: &[String; 6], style: OutputStyle) -> [usize; 6] {
    let mut widths = column_widths(rows.iter().chain([headings]));
    if let Some((columns, _)) = style.size() {
        let whole = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let cut = widths[WHO].saturating_sub(whole.saturating_sub(columns));
        widths[WHO] = cut.max(MIN_WHO_WIDTH).min(widths[WHO]);
    }
    widths
}

fn line(row: &[String; 6], widths: [usize; 6], emphasize: impl Fn(usize, String) -> String) -> String {
    let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        let length = cell.chars().count();
        if length > width {
            return emphasize(column, cell.chars().take(width - 1).chain(['…']).collect());
        }
        emphasize(column, cell.clone()) + &" ".repeat(width - length)
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// A state as a sign and a word.
struct StateLabel {
    sign: char,
    word: &'static str,
    emphasis: Emphasis,
}

fn state_label(account: &AccountStatus) -> StateLabel {
    let healthy = account.usable && account.error.is_none();
    let (sign, word, emphasis) = match account.state {
        AccountState::Unlinked => ('-', "not linked", Emphasis::Faint),
        AccountState::NeedsTerms => ('-', "terms to accept", Emphasis::Faint),
        AccountState::Starting => ('…', "starting", Emphasis::Faint),
        AccountState::Linked if healthy => ('✓', "working", Emphasis::Good),
        AccountState::Refreshing if healthy => ('✓', "renewing", Emphasis::Good),
        AccountState::Linked | AccountState::Refreshing if account.token_refused => {
            ('✗', "refused by provider", Emphasis::Bad)
        }
        AccountState::Linked | AccountState::Refreshing | AccountState::Uncertain if account.usable => {
            ('!', "working, renewal late", Emphasis::Warning)
        }
        AccountState::Linked | AccountState::Refreshing | AccountState::Uncertain => {
            ('✗', "trying again", Emphasis::Bad)
        }
        AccountState::RelinkRequired => ('✗', "link it again", Emphasis::Bad),
    };
    StateLabel { sign, word, emphasis }
}

fn row(account: &AccountStatus, now: i64) -> [String; 6] {
    let StateLabel { sign, word, .. } = state_label(account);
    let who = account.identity.as_deref().unwrap_or_default().join(" · ");
    let at = |time: Option<Time>, without: &str| time.map_or_else(|| without.to_owned(), |time| relative(time, now));
    let has_login = matches!(account.state, AccountState::Linked | AccountState::Refreshing | AccountState::Uncertain);
    let ends = at(account.expires_at, if has_login { "never" } else { "" });
    let renewal = if has_login { at(account.next_refresh_at, "-") } else { String::new() };
    [account.name.clone(), account.provider.clone(), format!("{sign} {word}"), who, ends, renewal]
}

/// What is wrong and how to fix it, and how much of the provider's limits is used.
fn write_details(account: &AccountStatus, file: Option<&str>, style: OutputStyle, now: i64, out: &mut String) {
    let name = &account.name;
    if let Some(error) = &account.error {
        let StateLabel { sign, emphasis, .. } = state_label(account);
        let _ = writeln!(out, "\n{} {name}: {}", style.emphasize(emphasis, &sign.to_string()), error.title);
        let _ = writeln!(out, "  {}", error.detail);
    }
    match account.state {
        AccountState::RelinkRequired => {
            let _ = writeln!(out, "  → pixy link {name}");
        }
        AccountState::NeedsTerms => {
            let place = file.map_or_else(
                || "a configuration of your own (~/.config/pixy/pixy.yaml), restart Pixy with it".to_owned(),
                |file| format!("{file}, which Pixy applies within seconds"),
            );
            let _ = writeln!(
                out,
                "\n- {name} is not linked: read the terms (`pixy providers {}`). If you may, set `accept_terms: true` \
                 under\n  `accounts: {name}:` in {place}, and then\n  → pixy link {name}",
                account.provider
            );
        }
        _ => {}
    }
    let limits = account.quota.iter().flatten().filter_map(|limit| quota(limit, now));
    let limits = limits.collect::<Vec<_>>().join(" · ");
    if !limits.is_empty() {
        let _ = writeln!(out, "\n  {name}, of the plan: {limits}");
    }
}

fn quota(limit: &QuotaLimit, now: i64) -> Option<String> {
    let name = &limit.name;
    let mut text = match (limit.used, limit.remaining, limit.limit) {
        (Some(used), _, _) => format!("{name}: {:.0} % used", used * 100.0),
        (None, Some(remaining), Some(limit)) => format!("{name}: {remaining} of {limit} left"),
        (None, Some(remaining), None) => format!("{name}: {remaining} left"),
        (None, None, _) => return None,
    };
    if let Some(at) = limit.resets_at {
        let _ = write!(text, ", resets {}", relative(at, now));
    }
    Some(text)
}

/// `in 7 h`, `3 min ago`.
fn relative(at: Time, now: i64) -> String {
    let seconds = at.0.as_seconds() - now;
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
    use serde_json::{Value, json};

    /// An account of the API; `more` replaces members.
    fn account(more: Value) -> AccountStatus {
        let mut document = json!({
            "name": "claude", "provider": "claude", "title": "Claude", "flow": "authorization_code", "redirect": "paste",
            "terms": { "status": "open", "says": "", "url": null, "accepted": true },
            "state": "linked", "usable": true, "scopes": [], "base_url": "http://127.0.0.1:8700/claude",
        });
        let Value::Object(more) = more else { panic!("an object") };
        document.as_object_mut().unwrap().extend(more);
        serde_json::from_value(document).unwrap()
    }

    fn accounts() -> Vec<AccountStatus> {
        let at = |seconds: i64| jiff::Timestamp::from_second(1_000_000 + seconds).unwrap().to_string();
        let late = json!({ "title": "The provider does not answer.", "detail": "Nothing to do." });
        let linked = |more: Value| {
            let mut document = json!({
                "identity": ["anna@example.com", "Max"], "expires_at": at(7 * 3600 + 5), "next_refresh_at": at(41 * 60),
            });
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            account(document)
        };
        let quota = json!([
            { "name": "5 hours", "used": 0.42, "limit": null, "remaining": null, "resets_at": at(7200) },
            { "name": "requests", "used": null, "limit": 50, "remaining": 7, "resets_at": null },
        ]);
        vec![
            linked(json!({ "quota": quota })),
            linked(json!({ "name": "late", "error": late })),
            linked(json!({ "name": "late", "error": late, "usable": false, "expires_at": at(-180) })),
            account(json!({
                "name": "gpt", "provider": "codex", "state": "relink_required", "usable": false, "identity": ["bob"],
                "error": { "title": "It has ended.", "detail": "Link it again." },
            })),
            account(json!({ "name": "key", "provider": "anthropic", "identity": [] })),
            linked(json!({
                "name": "revoked", "token_refused": true,
                "error": { "title": "The provider refuses the token of this login: 401, “No”.", "detail": "Agents get it." },
            })),
            account(json!({ "name": "new", "provider": "openrouter", "state": "unlinked", "usable": false })),
        ]
    }

    #[test]
    fn every_account_has_a_line_and_every_error_a_fix() {
        insta::assert_snapshot!(table(&accounts(), None, OutputStyle::new(false, None), 1_000_000), @r"
        ACCOUNT  PROVIDER    STATE                    WHO                     TOKEN ENDS  NEXT RENEWAL
        claude   claude      ✓ working                anna@example.com · Max  in 7 h      in 41 min
        late     claude      ! working, renewal late  anna@example.com · Max  in 7 h      in 41 min
        late     claude      ✗ trying again           anna@example.com · Max  3 min ago   in 41 min
        gpt      codex       ✗ link it again          bob
        key      anthropic   ✓ working                                        never       -
        revoked  claude      ✗ refused by provider    anna@example.com · Max  in 7 h      in 41 min
        new      openrouter  - not linked

          claude, of the plan: 5 hours: 42 % used, resets in 2 h · requests: 7 of 50 left

        ! late: The provider does not answer.
          Nothing to do.

        ✗ late: The provider does not answer.
          Nothing to do.

        ✗ gpt: It has ended.
          Link it again.
          → pixy link gpt

        ✗ revoked: The provider refuses the token of this login: 401, “No”.
          Agents get it.

        - not linked yet → pixy link new
        ");
    }

    #[test]
    fn terms_are_accepted_in_the_running_file_or_in_a_new_one() {
        let waiting = [account(json!({ "state": "needs_terms", "usable": false }))];
        let table_with = |file| table(&waiting, file, OutputStyle::new(false, None), 0);
        insta::assert_snapshot!(table_with(Some("/etc/pixy/pixy.yaml")), @r"
        ACCOUNT  PROVIDER  STATE              WHO  TOKEN ENDS  NEXT RENEWAL
        claude   claude    - terms to accept

        - claude is not linked: read the terms (`pixy providers claude`). If you may, set `accept_terms: true` under
          `accounts: claude:` in /etc/pixy/pixy.yaml, which Pixy applies within seconds, and then
          → pixy link claude
        ");
        insta::assert_snapshot!(table_with(None), @r"
        ACCOUNT  PROVIDER  STATE              WHO  TOKEN ENDS  NEXT RENEWAL
        claude   claude    - terms to accept

        - claude is not linked: read the terms (`pixy providers claude`). If you may, set `accept_terms: true` under
          `accounts: claude:` in a configuration of your own (~/.config/pixy/pixy.yaml), restart Pixy with it, and then
          → pixy link claude
        ");
    }

    #[test]
    fn a_narrow_terminal_cuts_who_and_colours_change_no_width() {
        let narrow = table(&accounts(), None, OutputStyle::new(false, Some((84, 24))), 1_000_000);
        assert!(narrow.contains("anna@example.co…"), "{narrow}");
        let plain = table(&accounts(), None, OutputStyle::new(false, None), 1_000_000);
        let mut coloured = table(&accounts(), None, OutputStyle::new(true, None), 1_000_000);
        assert!(coloured.contains("\x1b[32m✓ working"), "{coloured}");
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }
}
