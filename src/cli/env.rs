//! `pixy env NAME` and `pixy run NAME -- COMMAND`: what an agent needs in its environment.

use std::os::unix::process::CommandExt as _;

use super::control_client::ControlClient;
use super::terminal::{print_json_pretty, print_line};
use super::{CommandError, runtime};
use crate::api::{self, ClientSnippet};

pub(super) fn print(
    control: &ControlClient,
    name: &str,
    client: Option<&str>,
    as_json: bool,
) -> Result<(), CommandError> {
    let mut snippets = snippets(control, name)?;
    if let Some(client) = client {
        let clients: Vec<_> = snippets.iter().map(|snippet| snippet.client.clone()).collect();
        snippets.retain(|snippet| snippet.client == client);
        if snippets.is_empty() {
            let clients = clients.join(", ");
            return Err(CommandError::Usage(format!(
                "pixy: account \"{name}\" does not work with \"{client}\"; it works with {clients}"
            )));
        }
    }
    if as_json {
        print_json_pretty(&snippets);
        return Ok(());
    }
    for snippet in &snippets {
        if client.is_some() {
            snippet.lines.iter().for_each(|line| print_line(line));
        } else {
            print_line(&format!("# {} (--for {})\n{}\n", snippet.title, snippet.client, snippet.lines.join("\n")));
        }
    }
    Ok(())
}

pub(super) fn run(control: &ControlClient, name: &str, command: &[String]) -> Result<(), CommandError> {
    let [program, arguments @ ..] = command else {
        return Err(CommandError::Usage("pixy: run takes a command after `--`".to_owned()));
    };
    let mut process = std::process::Command::new(program);
    process.args(arguments);
    for variable in snippets(control, name)?.into_iter().flat_map(|snippet| snippet.variables) {
        let value = match &variable.file {
            None => variable.value,
            Some(file) => std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|error| {
                CommandError::Runtime(format!("the agent's key {} cannot be read ({error})", file.display()))
            })?,
        };
        process.env(variable.name, value);
    }
    let error = process.exec(); // returns only when it failed
    Err(CommandError::Runtime(format!("{program} cannot be started: {error}")))
}

fn snippets(control: &ControlClient, name: &str) -> Result<Vec<ClientSnippet>, CommandError> {
    Ok(runtime()?.block_on(control.call::<api::ShowSnippets>(name, &()))?)
}
