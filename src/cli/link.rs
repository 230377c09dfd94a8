//! `pixy link NAME`: the whole of linking, in a terminal or a pipe.

use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::control::{Control, Refused};
use super::{Failure, is_terminal, runtime, told};
use crate::config::Config;

/// How often it is looked whether a loopback redirect has come back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a person types, line by line.
type Typed = Lines<BufReader<Stdin>>;

pub(super) fn link(config: &Config, name: &str, yes: bool) -> Result<(), Failure> {
    let control = Control::of(config);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let account = account(&control, name).await?;
        let mut typed = BufReader::new(tokio::io::stdin()).lines();
        match account["flow"].as_str() {
            Some("api_key" | "client_credentials") => key(&control, name, &account, &mut typed).await?,
            _ => login(&control, name, yes, &mut typed).await?,
        }
        linked(&control, name).await
    });
    runtime.shutdown_background(); // a read of standard input that nobody answers would hold the process
    outcome
}

/// An older copy of the vault was put back on purpose.
pub(super) fn take_older_copy(config: &Config, name: &str) -> Result<(), Failure> {
    let control = Control::of(config);
    runtime()?.block_on(async {
        control.call(Method::POST, &format!("/api/accounts/{name}/older-copy"), None).await?;
        linked(&control, name).await
    })
}

/// An account as `GET /api/accounts` tells it.
pub(super) async fn account(control: &Control, name: &str) -> Result<Value, Failure> {
    let accounts = control.call(Method::GET, "/api/accounts", None).await?;
    let accounts = accounts.as_array().cloned().unwrap_or_default();
    let found = accounts.iter().find(|account| account["name"] == name).cloned();
    found.ok_or_else(|| {
        let names: Vec<_> = accounts.iter().filter_map(|account| account["name"].as_str()).collect();
        Failure::Runtime(format!("there is no account \"{name}\"; the configuration has {}", names.join(", ")))
    })
}

async fn key(control: &Control, name: &str, account: &Value, typed: &mut Typed) -> Result<(), Failure> {
    let what = if account["flow"] == "api_key" { "key" } else { "client secret" };
    let title = account["title"].as_str().unwrap_or(name);
    if is_terminal() {
        eprint!("Paste the {what} of {title} (it is not shown): ");
    }
    let key = {
        let _quiet = Quiet::begin();
        typed.next_line().await.ok().flatten().unwrap_or_default()
    };
    if is_terminal() {
        eprintln!();
    }
    control.call(Method::POST, &format!("/api/accounts/{name}/key"), Some(&json!({ "key": key }))).await?;
    Ok(())
}

async fn login(control: &Control, name: &str, yes: bool, typed: &mut Typed) -> Result<(), Failure> {
    let begun = control.call(Method::POST, &format!("/api/accounts/{name}/attempts"), None).await?;
    let id = begun["attempt"].as_str().unwrap_or_default().to_owned();
    let comes_back = begun["redirect"] == "loopback";
    println!("1. Open this address in your browser, and allow what it asks:\n");
    println!("   {}\n", begun["authorize_url"].as_str().unwrap_or_default());
    if comes_back {
        println!(
            "2. Come back here: Pixy goes on by itself. If the browser shows an error instead (it is on another machine),"
        );
        println!("   paste the address that it could not open, and press Enter.");
    } else {
        println!(
            "2. Paste the code that it shows (or the whole address, if the page cannot be opened), and press Enter:"
        );
    }
    let identified = match identify(control, name, &id, comes_back, typed).await {
        Ok(Some(identified)) => identified,
        Ok(None) => {
            cancel(control, &id).await;
            return Err(Failure::Runtime("nothing was pasted, so nothing was linked".to_owned()));
        }
        Err(failure) => return Err(failure),
    };
    println!("\n{}", who(&identified));
    if !yes && !confirmed(typed).await {
        cancel(control, &id).await;
        return Err(Failure::Runtime("not confirmed, so nothing was linked, and the login was given back".to_owned()));
    }
    control.call(Method::POST, &format!("/api/attempts/{id}/confirm"), None).await?;
    Ok(())
}

/// Until the code has come, by the browser or by hand. `None` when the input ended first.
async fn identify(
    control: &Control,
    name: &str,
    id: &str,
    comes_back: bool,
    typed: &mut Typed,
) -> Result<Option<Value>, Failure> {
    let mut listening = true;
    loop {
        tokio::select! {
            line = typed.next_line(), if listening => match line.ok().flatten() {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => match paste(control, id, &line).await? {
                    Ok(identified) => return Ok(Some(identified)),
                    Err(sentence) => eprintln!("   {sentence}"),
                },
                None if comes_back => listening = false,
                None => return Ok(None),
            },
            () = tokio::time::sleep(LOOK_AGAIN), if comes_back => {
                let attempt = account(control, name).await?["attempt"].take();
                if attempt["attempt"] != id {
                    return Err(Failure::Runtime("this attempt is over: it took too long, was refused, or a newer one took its place".to_owned()));
                }
                if attempt["exchanged"] == true {
                    return Ok(Some(attempt));
                }
            }
        }
    }
}

/// The inner error is a typo: the attempt goes on.
async fn paste(control: &Control, id: &str, line: &str) -> Result<Result<Value, String>, Failure> {
    let body = json!({ "text": line });
    match control.call(Method::POST, &format!("/api/attempts/{id}/paste"), Some(&body)).await {
        Ok(identified) => Ok(Ok(identified)),
        Err(Refused::Problem(problem)) if problem.kind.starts_with("urn:pixy:problem:paste_") => {
            Ok(Err(told(&problem)))
        }
        Err(refused) => Err(refused.into()),
    }
}

fn who(identified: &Value) -> String {
    let list = |value: &Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.collect::<Vec<_>>().join(" · ")
    };
    let identity = list(&identified["identity"]);
    let mut text = if identity.is_empty() {
        "The provider does not say whose account this is.".to_owned()
    } else {
        format!("This is {identity}.")
    };
    let scopes = list(&identified["scopes"]);
    if !scopes.is_empty() {
        let _ = write!(text, "\nGranted: {scopes}"); // a String takes it
    }
    let missing = list(&identified["missing_scopes"]);
    if !missing.is_empty() {
        let _ = write!(text, "\nAsked for and not granted: {missing}");
    }
    if identified["replaces"].is_array() {
        let replaced = list(&identified["replaces"]);
        let whom = if replaced.is_empty() {
            "the login that is there now".to_owned()
        } else {
            format!("the login of {replaced}")
        };
        let _ = write!(text, "\nIt replaces {whom}, which is ended at the provider.");
    }
    text
}

async fn confirmed(typed: &mut Typed) -> bool {
    eprint!("Link it? [y/N] ");
    let answer = typed.next_line().await.ok().flatten().unwrap_or_default();
    matches!(answer.trim(), "y" | "Y" | "yes")
}

async fn cancel(control: &Control, id: &str) {
    // If Pixy is gone, so is the attempt.
    let _ = control.call(Method::DELETE, &format!("/api/attempts/{id}"), None).await;
}

async fn linked(control: &Control, name: &str) -> Result<(), Failure> {
    let recipes = control.call(Method::GET, &format!("/api/accounts/{name}/env"), None).await?;
    println!("Linked. In the agent's environment:\n");
    let lines = recipes[0]["lines"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.for_each(|line| println!("   {line}"));
    println!("\nFor another kind of agent: pixy env {name} --for CLIENT");
    Ok(())
}

/// Typing is not shown while this lives.
pub(super) struct Quiet(Option<rustix::termios::Termios>);

impl Quiet {
    pub(super) fn begin() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(&stdin) else { return Self(None) }; // a pipe shows nothing anyway
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let changed = tcsetattr(&stdin, OptionalActions::Now, &quiet).is_ok();
        Self(changed.then_some(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, before); // the terminal is gone
        }
    }
}
