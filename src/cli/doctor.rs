//! `pixy doctor`: checks what is reachable and what is not, from where Pixy runs or from where the agent runs.
//!
//! It changes nothing, uses no model and prints no secret: of a variable it prints the name, of a file the path.

mod agent_side;
mod env_credentials;
mod file_scan;
mod http_probe;
mod listening_ports;
mod pixy_side;
mod processes;
mod provider_probe;

use std::path::PathBuf;

use clap::Args;
use http::Uri;
use serde::Serialize;

use super::terminal::print_line;
use super::{CommandError, runtime};
use crate::config::{Config, Faults};

#[derive(Args)]
pub(super) struct Options {
    /// Check as the agent: run it where the agent runs, as its user. Needs no configuration
    #[arg(long)]
    as_agent: bool,
    /// The agent's base URL up to the account, or unix:/path; by default from its environment variables
    #[arg(long, requires = "as_agent", value_name = "URL")]
    base_url: Option<String>,
    /// Search for Pixy's files here as well; can be repeated
    #[arg(long, requires = "as_agent", value_name = "DIRECTORY")]
    look_in: Vec<PathBuf>,
    /// Try to reach this provider without Pixy, instead of the shipped ones; can be repeated
    #[arg(long, requires = "as_agent", value_name = "URL")]
    provider: Vec<Uri>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Good,
    /// It may be intended; a person decides.
    Warning,
    Bad,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was checked; stable, for programs.
    check: &'static str,
    outcome: Outcome,
    says: String,
}

/// All findings, in the order of the checks.
#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

pub(super) fn run(options: &Options, load: impl FnOnce() -> Result<Config, Faults>) -> Result<(), CommandError> {
    let report = if options.as_agent {
        runtime()?.block_on(agent_side::check(options))
    } else {
        match load() {
            Ok(config) => runtime()?.block_on(pixy_side::check(&config)),
            Err(faults) => {
                let mut report = Report::default();
                let faults = faults.to_string();
                report.bad("configuration", format!("the configuration has faults:\n{}", faults.trim_end()));
                report.print(options.json);
                return Err(CommandError::Usage("pixy: nothing else was checked".to_owned()));
            }
        }
    };
    report.print(options.json);
    match report.count(Outcome::Bad) {
        0 => Ok(()),
        1 => Err(CommandError::Runtime("1 problem must be fixed".to_owned())),
        bad => Err(CommandError::Runtime(format!("{bad} problems must be fixed"))),
    }
}

impl Report {
    fn add(&mut self, check: &'static str, outcome: Outcome, says: impl Into<String>) {
        self.findings.push(Finding { check, outcome, says: says.into() });
    }

    fn good(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Outcome::Good, says);
    }

    fn warn(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Outcome::Warning, says);
    }

    fn bad(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(check, Outcome::Bad, says);
    }

    /// Adds a good finding, unless the check has a finding already.
    fn good_by_default(&mut self, check: &'static str, good: impl Into<String>) {
        if !self.findings.iter().any(|finding| finding.check == check) {
            self.good(check, good);
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.outcome == outcome).count()
    }

    fn print(&self, as_json: bool) {
        if as_json {
            let healthy = self.count(Outcome::Bad) == 0;
            print_line(&format!("{:#}", serde_json::json!({ "healthy": healthy, "findings": self.findings })));
            return;
        }
        for Finding { check, outcome, says } in &self.findings {
            let mark = match outcome {
                Outcome::Good => '✓',
                Outcome::Warning => '!',
                Outcome::Bad => '✗',
            };
            print_line(&format!("{mark} {check:16} {}", says.replace('\n', &format!("\n{:19}", ""))));
        }
        let [good, warnings, bad] = [Outcome::Good, Outcome::Warning, Outcome::Bad].map(|outcome| self.count(outcome));
        print_line(&format!("\n{good} ✓, {warnings} !, {bad} ✗"));
    }
}
