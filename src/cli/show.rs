//! The short commands: `status`, `unlink`, `url`, `env`, `run`.

use std::os::unix::process::CommandExt as _;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::control::Control;
use super::{Failure, runtime};
use crate::clock::Clock;
use crate::config::Config;
use crate::link::Variable;

/// A recipe as the API tells it.
#[derive(Deserialize)]
struct Recipe {
    client: String,
    title: String,
    lines: Vec<String>,
    variables: Vec<Variable>,
}

pub(super) fn status(config: &Config, as_json: bool) -> Result<(), Failure> {
    let control = Control::of(config);
    let accounts = runtime()?.block_on(control.call(Method::GET, "/api/accounts", None))?;
    if as_json {
        println!("{accounts:#}");
        return Ok(());
    }
    let rows: Vec<[String; 4]> = accounts.as_array().into_iter().flatten().map(row).collect();
    let heads = ["ACCOUNT", "STATE", "WHO", "TOKEN"].map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    for row in [&heads].into_iter().chain(&rows) {
        let [name, state, who, token] = row;
        println!("{name:0$}  {state:1$}  {who:2$}  {token}", widths[0], widths[1], widths[2]);
    }
    for account in accounts.as_array().into_iter().flatten() {
        if let Some(title) = account["error"]["title"].as_str() {
            println!("\n{}: {title}", account["name"].as_str().unwrap_or_default());
            println!("    {}", account["error"]["detail"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}

fn row(account: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let state = match account["state"].as_str().unwrap_or_default() {
        "unlinked" => "not linked",
        "needs_terms" => "needs accept_terms",
        "linked" => "working",
        "refreshing" => "renewing",
        "uncertain" => "checking",
        "relink_required" => "needs you",
        other => other,
    };
    let identity = account["identity"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let who = identity.collect::<Vec<_>>().join(" · ");
    let token = match (state, account["expires_at"].as_str()) {
        ("not linked" | "needs accept_terms", _) => String::new(),
        (_, Some(at)) => ends(at),
        (_, None) => "does not end".to_owned(),
    };
    [text(&account["name"]), state.to_owned(), if who.is_empty() { "-".to_owned() } else { who }, token]
}

fn ends(at: &str) -> String {
    let Ok(moment) = at.parse::<jiff::Timestamp>() else { return at.to_owned() };
    let seconds = moment.as_second() - Clock::default().wall().as_seconds();
    let span = |seconds: i64| match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    };
    if seconds >= 0 { format!("ends in {}", span(seconds)) } else { format!("ended {} ago", span(-seconds)) }
}

pub(super) fn unlink(config: &Config, name: &str) -> Result<(), Failure> {
    let control = Control::of(config);
    let answer = runtime()?.block_on(control.call(Method::DELETE, &format!("/api/accounts/{name}"), None))?;
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
pub(super) fn health(config: &Config) -> Result<(), Failure> {
    let control = Control::of(config);
    let accounts = runtime()?.block_on(control.call(Method::GET, "/api/accounts", None))?;
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

pub(super) fn url(config: &Config) -> Result<(), Failure> {
    let control = Control::of(config);
    let answer = runtime()?.block_on(control.call(Method::POST, "/api/setup", None))?;
    println!("{}", answer["url"].as_str().unwrap_or_default());
    Ok(())
}

pub(super) fn env(config: &Config, name: &str, client: Option<&str>) -> Result<(), Failure> {
    let recipes = recipes(config, name)?;
    let Some(client) = client else {
        for recipe in &recipes {
            println!("# {} (--for {})", recipe.title, recipe.client);
            recipe.lines.iter().for_each(|line| println!("{line}"));
            println!();
        }
        return Ok(());
    };
    let recipe = recipes.iter().find(|recipe| recipe.client == client).ok_or_else(|| {
        let known: Vec<_> = recipes.iter().map(|recipe| recipe.client.as_str()).collect();
        Failure::Usage(format!("pixy: account \"{name}\" is of no use to \"{client}\"; it serves {}", known.join(", ")))
    })?;
    recipe.lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

pub(super) fn run(config: &Config, name: &str, command: &[String]) -> Result<(), Failure> {
    let [program, arguments @ ..] = command else {
        return Err(Failure::Usage("pixy: run takes a command after `--`".to_owned()));
    };
    let mut process = std::process::Command::new(program);
    process.args(arguments);
    for variable in recipes(config, name)?.into_iter().flat_map(|recipe| recipe.variables) {
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

fn recipes(config: &Config, name: &str) -> Result<Vec<Recipe>, Failure> {
    let control = Control::of(config);
    let recipes = runtime()?.block_on(control.call(Method::GET, &format!("/api/accounts/{name}/env"), None))?;
    serde_json::from_value(recipes)
        .map_err(|error| Failure::Runtime(format!("the running Pixy is of another version ({error})")))
}
