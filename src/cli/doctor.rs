//! `pixy doctor`: proves what is and what is not reachable, from Pixy's own place or from the agent's.
//!
//! It changes nothing, spends no token of a model and prints no secret: of a variable it tells the name, of a file its path.

mod agent;
mod call;
mod files;
mod processes;
mod ports;
mod provider;
mod sidecar;
mod variables;

use std::path::PathBuf;

use clap::Args;
use http::Uri;
use serde::Serialize;

use super::{Failure, runtime};
use crate::config::{Config, Faults};

#[derive(Args)]
pub(super) struct Options {
    /// Look from where the agent is: run it there, as the agent's user. Needs no configuration
    #[arg(long)]
    as_agent: bool,
    /// What the agent has as its base URL, up to the account, or unix:/path; else its variables say it
    #[arg(long, requires = "as_agent", value_name = "URL")]
    base_url: Option<String>,
    /// Look for Pixy's files here as well; may be given many times
    #[arg(long, requires = "as_agent", value_name = "DIRECTORY")]
    look_in: Vec<PathBuf>,
    /// Try the direct way to this provider instead of the shipped ones; may be given many times
    #[arg(long, requires = "as_agent", value_name = "URL")]
    provider: Vec<Uri>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// How one thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Good,
    /// It may be meant; a person decides.
    Warning,
    Bad,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at; stable, for programs.
    check: &'static str,
    outcome: Outcome,
    says: String,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

pub(super) fn doctor(options: &Options, load: impl FnOnce() -> Result<Config, Faults>) -> Result<(), Failure> {
    let report = if options.as_agent {
        runtime()?.block_on(agent::look(options))
    } else {
        match load() {
            Ok(config) => runtime()?.block_on(sidecar::look(&config)),
            Err(faults) => {
                let mut report = Report::default();
                report
                    .bad("configuration", format!("the configuration has faults:\n{}", faults.to_string().trim_end()));
                report.print(options.json);
                return Err(Failure::Usage("pixy: nothing else was looked at".to_owned()));
            }
        }
    };
    report.print(options.json);
    match report.count(Outcome::Bad) {
        0 => Ok(()),
        1 => Err(Failure::Runtime("1 thing must be mended".to_owned())),
        bad => Err(Failure::Runtime(format!("{bad} things must be mended"))),
    }
}

impl Report {
    fn good(&mut self, check: &'static str, says: impl Into<String>) {
        self.findings.push(Finding { check, outcome: Outcome::Good, says: says.into() });
    }

    fn warn(&mut self, check: &'static str, says: impl Into<String>) {
        self.findings.push(Finding { check, outcome: Outcome::Warning, says: says.into() });
    }

    fn bad(&mut self, check: &'static str, says: impl Into<String>) {
        self.findings.push(Finding { check, outcome: Outcome::Bad, says: says.into() });
    }

    /// Says `good` unless something else was said of the check.
    fn else_good(&mut self, check: &'static str, good: impl Into<String>) {
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
            println!("{:#}", serde_json::json!({ "healthy": healthy, "findings": self.findings }));
            return;
        }
        for Finding { check, outcome, says } in &self.findings {
            let mark = match outcome {
                Outcome::Good => '✓',
                Outcome::Warning => '!',
                Outcome::Bad => '✗',
            };
            println!("{mark} {check:16} {}", says.replace('\n', &format!("\n{:19}", "")));
        }
        let [good, warnings, bad] = [Outcome::Good, Outcome::Warning, Outcome::Bad].map(|outcome| self.count(outcome));
        println!("\n{good} ✓, {warnings} !, {bad} ✗");
    }
}
