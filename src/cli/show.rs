//! The short commands: `unlink`, `health`, `url`, `env`, `run`.

use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::control::Control;
use super::terminal::say;
use super::{Failure, runtime};
use crate::api::ClientSnippet;

pub(super) fn unlink(control: &Control, name: &str, as_json: bool) -> Result<(), Failure> {
    let answer = runtime()?.block_on(control.call(Method::DELETE, &format!("/api/accounts/{name}"), None))?;
    if as_json {
        say(&answer.to_string());
        return Ok(());
    }
    match &answer["revoked"] {
        Value::Bool(true) => println!("Unlinked: the provider has ended the login, and Pixy has forgotten it."),
        Value::Bool(false) => {
            println!(
                "Unlinked: Pixy has forgotten the login. The provider offers no way to end it from here; do that on its site."
            );
        }
        _ => {
            println!(
                "Unlinked: no agent can use it any more. The provider could not be told yet; Pixy goes on trying."
            );
        }
    }
    Ok(())
}

/// Asks the running Pixy itself, so that no port and no client is needed in the image.
pub(super) fn health(control: &Control) -> Result<(), Failure> {
    let accounts = runtime()?.block_on(async {
        let answer = tokio::time::timeout(HEALTHY_WITHIN, control.call(Method::GET, "/api/accounts", None)).await;
        answer
            .map_err(|_| Failure::Runtime(format!("no answer within {} s", HEALTHY_WITHIN.as_secs())))?
            .map_err(Failure::from)
    })?;
    let is = |account: &Value, state: &str| account["state"] == state;
    let all = accounts.as_array().cloned().unwrap_or_default();
    let dead: Vec<&str> = all
        .iter()
        .filter(|account| is(account, "relink_required"))
        .filter_map(|account| account["name"].as_str())
        .collect();
    if dead.is_empty() {
        println!("alive");
        return Ok(());
    }
    Err(Failure::Runtime(format!("these accounts need a person: {}", dead.join(", "))))
}

pub(super) fn url(control: &Control, as_json: bool) -> Result<(), Failure> {
    let answer = runtime()?.block_on(control.call(Method::POST, "/api/setup", None))?;
    if as_json {
        say(&answer.to_string());
    } else {
        say(answer["url"].as_str().unwrap_or_default());
    }
    Ok(())
}

pub(super) fn env(control: &Control, name: &str, client: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let mut recipes = recipes(control, name)?;
    if let Some(client) = client {
        let known: Vec<_> = recipes.iter().map(|recipe| recipe.client.clone()).collect();
        recipes.retain(|recipe| recipe.client == client);
        if recipes.is_empty() {
            return Err(Failure::Usage(format!(
                "pixy: account \"{name}\" is of no use to \"{client}\"; it serves {}",
                known.join(", ")
            )));
        }
    }
    if as_json {
        say(&format!("{:#}", serde_json::json!(recipes)));
        return Ok(());
    }
    for recipe in &recipes {
        if client.is_some() {
            recipe.lines.iter().for_each(|line| say(line));
        } else {
            say(&format!("# {} (--for {})\n{}\n", recipe.title, recipe.client, recipe.lines.join("\n")));
        }
    }
    Ok(())
}

pub(super) fn run(control: &Control, name: &str, command: &[String]) -> Result<(), Failure> {
    let [program, arguments @ ..] = command else {
        return Err(Failure::Usage("pixy: run takes a command after `--`".to_owned()));
    };
    let mut process = std::process::Command::new(program);
    process.args(arguments);
    for variable in recipes(control, name)?.into_iter().flat_map(|recipe| recipe.variables) {
        let value = match &variable.file {
            None => variable.value,
            Some(file) => std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|error| {
                Failure::Runtime(format!("the agent's key {} cannot be read ({error})", file.display()))
            })?,
        };
        process.env(variable.name, value);
    }
    let error = process.exec(); // returns only when it failed
    Err(Failure::Runtime(format!("{program} cannot be started: {error}")))
}

fn recipes(control: &Control, name: &str) -> Result<Vec<ClientSnippet>, Failure> {
    let recipes = runtime()?.block_on(control.call(Method::GET, &format!("/api/accounts/{name}/env"), None))?;
    serde_json::from_value(recipes)
        .map_err(|error| Failure::Runtime(format!("the running Pixy is of another version ({error})")))
}

/// Less than the engine waits by our image's health check: not every engine ends a check that hangs.
const HEALTHY_WITHIN: Duration = Duration::from_secs(4);
