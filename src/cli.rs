//! The command line: what a person types, and the exit code that comes of it.
//!
//! 0 fine, 1 it failed while running, 64 usage or configuration (`EX_USAGE` of sysexits).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the edge where Pixy speaks to a person")]

mod control;
mod doctor;
mod vault_admin;
mod inspect;
mod link;
pub(crate) mod log;
mod terminal;
mod serve;
mod show;
mod status;
mod log_buffer;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config};
use crate::hardening;
use crate::link::Problem;
use control::Control;

/// A sidecar proxy that holds your LLM logins, so that the agent beside it never does.
#[derive(Parser)]
#[command(name = "pixy", version = crate::VERSION, max_term_width = 100)]
struct Cli {
    /// The configuration; else $PIXY_CONFIG, ~/.config/pixy/pixy.yaml, /etc/pixy/pixy.yaml, or the one that is built in
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    log: LogOptions,
}

#[derive(Args, Clone)]
struct LogOptions {
    /// How log lines are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// How much is logged
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL")]
    log: LogLevel,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Subcommand)]
enum Command {
    /// Serve agents and the person (what `pixy` alone does)
    Serve,
    /// Check the configuration, and do nothing else
    Check,
    /// Print the JSON Schema of the configuration
    Schema,
    /// List the providers that Pixy knows, or show one
    Providers {
        /// One of them
        name: Option<String>,
    },
    /// Link an account: opens a login with its provider, or takes a key
    Link {
        /// The account's name in the configuration
        name: String,
        /// Confirm whose account it is without asking
        #[arg(long)]
        yes: bool,
        /// Take the older copy of the login that was put back into the vault, instead of linking anew
        #[arg(long, conflicts_with = "yes")]
        older_copy: bool,
        /// For programs: every step is a line of JSON; what is to be typed is still read, line by line
        #[arg(long)]
        json: bool,
    },
    /// Unlink an account: ends the login at the provider, then forgets it
    Unlink {
        /// The account's name in the configuration
        name: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Show every account and what it needs
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Print the address of the page, with a fresh setup code
    Url {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Print the lines that an agent needs to use an account
    Env {
        /// The account's name in the configuration
        name: String,
        /// The kind of agent: claude-code, anthropic, openai, codex, opencode, gemini, curl
        #[arg(long = "for", value_name = "CLIENT")]
        client: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Make a key for the vault, or put a new one in the place of the old
    Key {
        #[command(subcommand)]
        what: KeyCommand,
    },
    /// Write all logins to a file, sealed to a passphrase, for moving house
    Export {
        /// The file to write
        file: PathBuf,
    },
    /// Take in what `pixy export` wrote
    Import {
        /// The file to read
        file: PathBuf,
        /// Also over logins that are there
        #[arg(long)]
        replace: bool,
    },
    /// Exit with 0 when Pixy answers and no login is dead, for a container's health check
    Health,
    /// Prove what is and what is not reachable, here or (--as-agent) from where the agent is
    Doctor(doctor::Options),
    /// Start a command with the variables of `pixy env`
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
    /// Print a fresh key, for a key file that you put in place yourself
    New,
    /// Give the running Pixy a new key and seal every login with it
    Rotate,
}

/// What went wrong, and how it ends.
enum Failure {
    /// Exit 64; the text is complete.
    Usage(String),
    /// Exit 1.
    Runtime(String),
}

/// Runs Pixy as the arguments say.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // a closed terminal is no reason to panic
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            terminal::complain(text.trim_end());
            ExitCode::from(64)
        }
        Err(Failure::Runtime(text)) => {
            terminal::complain(&format!("pixy: {}", text.trim_end()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let load = || -> Result<Config, Failure> {
        config::load(cli.config.as_deref()).map_err(|faults| Failure::Usage(faults.to_string()))
    };
    let running = || Control::find(cli.config.as_deref());
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => {
            let hardening = hardening::harden_process();
            serve::serve(load()?, &cli.log, hardening)
        }
        Command::Check => {
            print!("{}", inspect::check(&load()?));
            Ok(())
        }
        Command::Schema => {
            println!("{:#}", config::schema());
            Ok(())
        }
        Command::Providers { name: None } => {
            print!("{}", inspect::providers());
            Ok(())
        }
        Command::Providers { name: Some(name) } => match inspect::provider(&name) {
            Ok(text) => {
                print!("{text}");
                Ok(())
            }
            Err(text) => Err(Failure::Usage(format!("pixy: {text}"))),
        },
        Command::Link { name, older_copy: true, json, .. } => link::take_older_copy(running()?, &name, json),
        Command::Link { name, yes, json, .. } => link::link(running()?, &name, yes, json),
        Command::Unlink { name, json } => show::unlink(&running()?, &name, json),
        Command::Status { json } => status::status(&running()?, json),
        Command::Url { json } => show::url(&running()?, json),
        Command::Env { name, client, json } => show::env(&running()?, &name, client.as_deref(), json),
        Command::Key { what: KeyCommand::New } => {
            println!("{}", crate::vault::new_key().expose());
            Ok(())
        }
        Command::Key { what: KeyCommand::Rotate } => vault_admin::rotate(&running()?),
        Command::Export { file } => vault_admin::export(&running()?, &file),
        Command::Import { file, replace } => vault_admin::import(&running()?, &file, replace),
        Command::Doctor(options) => doctor::doctor(&options, || config::load(cli.config.as_deref())),
        Command::Health => show::health(&running()?),
        Command::Run { name, command } => show::run(&running()?, &name, &command),
    }
}

/// One thread for all input and output, as a command needs it.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    runtime_of(1)
}

/// So many threads for input and output; files have threads of their own. One is this thread itself: then no task moves from
/// thread to thread, and none is woken across them, which is what several cost.
fn runtime_of(io_threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    use tokio::runtime::Builder;
    let mut builder = if io_threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if io_threads > 1 {
        builder.worker_threads(io_threads);
    } else {
        builder.on_thread_park(log_buffer::write_out);
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("the system gives no threads or descriptors ({error})")))
}

/// A problem as a terminal shows it.
fn told(problem: &Problem) -> String {
    format!("{}\n      {}", problem.title, problem.detail)
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}
