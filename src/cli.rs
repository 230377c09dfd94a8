//! The command line: arguments, commands and exit codes.
//!
//! Exit codes: 0 success, 1 the command failed, 64 usage or configuration (`EX_USAGE` of sysexits).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the edge where text reaches a person")]

mod check;
mod control_client;
mod doctor;
mod env;
mod explain;
mod health;
mod link;
pub(crate) mod log;
mod log_sampling;
mod log_writer;
mod providers;
mod serve;
mod status;
mod terminal;
mod unlink;
mod url;
mod vault_admin;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::api::Problem;
use crate::config::{self, Config};
use crate::hardening;
use control_client::ControlClient;

/// A sidecar proxy that holds your LLM logins, so that the agent beside it never does.
#[derive(Parser)]
#[command(name = "pixy", version = crate::VERSION, max_term_width = 100)]
struct Cli {
    /// The configuration file; by default $PIXY_CONFIG, ~/.config/pixy/pixy.yaml, /etc/pixy/pixy.yaml, or the built-in one
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    log: LogOptions,
}

#[derive(Args, Clone)]
struct LogOptions {
    /// The format of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// The least severe level that is logged
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL", value_parser = log_level())]
    log: LevelFilter,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Serve agents and the page (the default)
    Serve,
    /// Check the configuration
    Check,
    /// Print the JSON Schema of the configuration
    Schema,
    /// List the providers that Pixy knows, or print the profile of one
    Providers {
        /// The provider to print
        name: Option<String>,
    },
    /// Link an account: log in at its provider, or store an API key
    Link {
        /// The account's name in the configuration
        name: String,
        /// Confirm whose account it is without asking
        #[arg(long)]
        yes: bool,
        /// Accept an older copy of the login that was restored into the vault, instead of linking again
        #[arg(long, conflicts_with = "yes")]
        older_copy: bool,
        /// Confirm that the login may be sent to where the configuration has moved it, instead of linking again
        #[arg(long, conflicts_with = "older_copy")]
        moved: bool,
        /// Print every step as a line of JSON; input is still read line by line
        #[arg(long)]
        json: bool,
    },
    /// Unlink an account: revoke the login at the provider, and delete it
    Unlink {
        /// The account's name in the configuration
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every account and what it needs
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the address of the page, with a fresh setup code
    Url {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what an agent needs to use an account
    Env {
        /// The account's name in the configuration
        name: String,
        /// The kind of agent: claude-code, anthropic, openai, codex, opencode, gemini, curl
        #[arg(long = "for", value_name = "CLIENT")]
        client: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every method, path, header field and query key of agents that can reach the provider of an account
    Explain {
        /// The account's name in the configuration
        name: String,
        /// Show the names that the running Pixy dropped last instead
        #[arg(long)]
        last: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key for the vault, or replace its key
    Key {
        #[command(subcommand)]
        what: KeyCommand,
    },
    /// Write all logins to a file, sealed with a passphrase, to move them to another machine
    Export {
        /// The file to write
        file: PathBuf,
    },
    /// Import what `pixy export` wrote
    Import {
        /// The file to read
        file: PathBuf,
        /// Replace logins that exist
        #[arg(long)]
        replace: bool,
    },
    /// Exit with 0 if Pixy answers and no account must be linked again: a container's health check
    Health,
    /// Check what is reachable and what is not, from here or (--as-agent) from where the agent runs
    Doctor(doctor::Options),
    /// Run a command with the variables of `pixy env`
    Run {
        /// The account's name in the configuration
        name: String,
        /// The command, after `--`
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new key, for a key file that you provide yourself
    New,
    /// Make a new key in the running Pixy, and seal every login with it
    Rotate,
}

/// Why a command failed, as a person reads it.
#[derive(Debug)]
enum CommandError {
    /// Exit 64; the text is complete.
    Usage(String),
    /// Exit 1; `pixy: ` is put before the text.
    Runtime(String),
}

fn log_level() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]).try_map(|level| level.parse::<LevelFilter>())
}

/// Runs the command of the arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // a closed terminal is ignored
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Usage(text)) => {
            print_last(text.trim_end());
            ExitCode::from(64)
        }
        Err(CommandError::Runtime(text)) => {
            print_last(&format!("pixy: {}", text.trim_end()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), CommandError> {
    let load = || -> Result<Config, CommandError> {
        config::load(cli.config.as_deref()).map_err(|faults| CommandError::Usage(faults.to_string()))
    };
    let control = || ControlClient::find(cli.config.as_deref());
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let hardening = hardening::harden_process();
            serve::run(load()?, &cli.log, hardening)
        }
        Command::Check => print_text(&check::summary(&load()?)),
        Command::Schema => print_text(&format!("{:#}\n", config::schema())),
        Command::Providers { name: None } => print_text(&providers::table()),
        Command::Providers { name: Some(name) } => print_text(&providers::describe(&name)?),
        Command::Link { name, older_copy: true, json, .. } => link::accept_older_copy(&control()?, &name, json),
        Command::Link { name, moved: true, yes, json, .. } => link::confirm_moved(&control()?, &name, yes, json),
        Command::Link { name, yes, json, .. } => link::run(&control()?, &name, yes, json),
        Command::Unlink { name, json } => unlink::run(&control()?, &name, json),
        Command::Status { json } => status::print(&control()?, json),
        Command::Url { json } => url::print(&control()?, json),
        Command::Env { name, client, json } => env::print(&control()?, &name, client.as_deref(), json),
        Command::Explain { name, last: true, json } => explain::print_last(&control()?, &name, json),
        Command::Explain { name, last: false, json } => explain::print(&load()?, &name, json),
        Command::Key { what: KeyCommand::New } => print_text(&format!("{}\n", crate::vault::new_key().expose())),
        Command::Key { what: KeyCommand::Rotate } => vault_admin::rotate(&control()?),
        Command::Export { file } => vault_admin::export(&control()?, &file),
        Command::Import { file, replace } => vault_admin::import(&control()?, &file, replace),
        Command::Doctor(options) => doctor::run(&options, || config::load(cli.config.as_deref())),
        Command::Health => health::check(&control()?),
        Command::Run { name, command } => env::run(&control()?, &name, &command),
    }
}

/// Why the program ends. The log's thread writes it where there is one: a full pipe must not keep the process.
fn print_last(text: &str) {
    log_writer::write_text(&format!("{text}\n"));
    log_writer::finish();
}

#[allow(clippy::unnecessary_wraps, reason = "the end of every command, which may fail")]
fn print_text(text: &str) -> Result<(), CommandError> {
    let _ = std::io::stdout().write_all(text.as_bytes()); // a closed pipe is ignored
    Ok(())
}

/// A runtime with one thread for input and output.
fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    runtime_with(1)
}

/// A runtime with this many threads for input and output; file access has threads of its own. With one, the calling thread
/// runs every task: no task moves or is woken across threads.
fn runtime_with(io_threads: usize) -> Result<tokio::runtime::Runtime, CommandError> {
    use tokio::runtime::Builder;
    let mut builder = if io_threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if io_threads > 1 {
        builder.worker_threads(io_threads);
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| CommandError::Runtime(format!("the runtime cannot be started: {error}")))
}

/// A problem as a terminal shows it.
fn problem_text(problem: &Problem) -> String {
    format!("{}\n      {}", problem.title, problem.detail)
}
