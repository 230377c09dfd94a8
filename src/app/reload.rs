//! A configuration that changes while Pixy runs: all of it is taken up, or nothing.
//!
//! Agents' keys and accounts are taken up for requests from then on, limits for connections from then on, and listeners as
//! `listeners` says; what is under way goes on as it began. What is made of a setting once, or needs a lock or a place that the
//! process has closed to itself, needs a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::endpoints::Endpoints;
use super::listeners::{Prepared, Unbound};
use super::{Running, StartError, proxy_limits, wanted};
use crate::account;
use crate::config::{self, Config, Env};
use crate::proxy;
use crate::server::Address;

/// The content of the file is looked at this often. Looked at rather than waited for (inotify): a mounted directory is changed
/// by turning a link, on file systems that tell nobody.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a reload needs to know and changes.
pub(super) struct Reloading {
    pub(super) config: Config,
    pub(super) shared: account::AccountServices,
    pub(super) proxy: Arc<proxy::ProxyServices>,
    pub(super) signs: Endpoints,
    /// What was wrong with the file when it was read last.
    pub(super) problem: watch::Sender<Option<String>>,
}

/// Looks at files for a content that changes.
pub struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Option<[u8; 32]>>,
}

impl Running {
    /// Reads the configuration again and takes it up; one that is bad, or that needs a restart, changes nothing. What is wrong
    /// is told to the log, to metrics and to `pixy status`, and given back.
    ///
    /// # Errors
    /// Every fault with its place, or what needs a restart.
    pub async fn reload(&mut self, env: &Env) -> Result<(), String> {
        let outcome = self.try_reload(env).await;
        let metrics = &self.reloading.shared.metrics;
        let now = self.reloading.shared.clock.wall();
        match &outcome {
            Ok(()) => {
                metrics.reloaded("taken_up", Some(now.as_seconds()));
                tracing::info!("the configuration was read again and taken up");
            }
            Err((word, problem)) => {
                metrics.reloaded(word, None);
                tracing::error!("the configuration was read again and not taken up: {problem}");
            }
        }
        let outcome = outcome.map_err(|(_, problem)| problem);
        self.reloading.problem.send_replace(outcome.as_ref().err().cloned());
        outcome
    }

    /// The files whose content is the configuration: its own, and the agents' keys.
    pub fn watched(&self) -> Watched {
        let config = &self.reloading.config;
        let keys = config.agent_keys.iter().filter_map(|key| key.key_file.clone());
        Watched::new(config.file.iter().cloned().chain(keys).collect())
    }

    async fn try_reload(&mut self, env: &Env) -> Result<(), (&'static str, String)> {
        let Some(file) = self.reloading.config.file.clone() else {
            return Err(("restart", "Pixy runs without a configuration file; with one it needs a restart.".to_owned()));
        };
        let env = env.clone();
        // Files have threads of their own: a mounted directory may be slow.
        let read = tokio::task::spawn_blocking(move || config::load_with(Some(&file), &env)).await;
        let config = match read {
            Ok(Ok(config)) => config,
            Ok(Err(faults)) => return Err(("bad_file", bad_file(&faults))),
            Err(error) => return Err(("bad_file", format!("The configuration could not be read: {error}. {STAYS}"))),
        };
        let needing = self.what_needs_a_restart(&config);
        if !needing.is_empty() {
            let changes = needing.join(", ");
            return Err(("restart", format!("What is changed needs a restart of Pixy: {changes}. {STAYS}")));
        }
        let prepared = self.listeners.prepare(&config).await.map_err(|unbound| not_bound(&config, &unbound))?;
        self.take_up(config, prepared).await;
        Ok(())
    }

    /// From here on nothing fails.
    async fn take_up(&mut self, config: Config, prepared: Prepared) {
        let Self { reloading, book, keepers, going_down, .. } = self;
        let gone =
            reloading.config.accounts.iter().filter(|old| config.accounts.iter().all(|new| new.name != old.name));
        let gone: Vec<_> = gone.map(|account| account.name.clone()).collect();
        // Who may ask is changed first: a key that lost an account must not meet one that is new.
        reloading.proxy.agents.replace(config.agent_keys.clone());
        reloading.proxy.limits.store(Arc::new(proxy_limits(&config)));
        reloading.signs.change(&config, &prepared);
        book.serve(config.accounts.iter().map(wanted).collect(), &reloading.shared, keepers, going_down);
        for name in &gone {
            reloading.shared.metrics.forget_account(name);
        }
        let limits = config.limits;
        reloading.config = config;
        self.listen(prepared, limits).await;
    }

    /// In the words of the file.
    fn what_needs_a_restart(&self, new: &Config) -> Vec<String> {
        let old = &self.reloading.config;
        let parts = [
            ("`state_dir`", old.state_dir != new.state_dir),
            ("`vault`", old.vault != new.vault),
            ("`upstream`", old.upstream != new.upstream),
            ("`limits.io_threads`", old.io_threads != new.io_threads),
        ];
        let mut needing: Vec<String> =
            parts.iter().filter(|(_, differs)| *differs).map(|(what, _)| (*what).to_owned()).collect();
        for account in &new.accounts {
            let Some(known) = self.book.known(&account.name) else { continue };
            if known.profile().provider != account.profile.provider {
                // Its stored login, and an attempt to link it, are the other provider's.
                needing.push(format!("the provider of the account {} (or give it another name)", account.name));
            }
        }
        needing
    }
}

/// A listener that cannot be had.
fn not_bound(config: &Config, unbound: &Unbound) -> (&'static str, String) {
    let Unbound { key, error, overlaps } = unbound;
    if let (StartError::Bind { address, .. }, Some(own)) = (error, overlaps) {
        let said = format!("needs a restart of Pixy: it holds {own} itself, and {address} cannot be had beside that");
        return ("restart", config.fault(key, &said).told(STAYS_IN_FORCE));
    }
    let mut text = config.fault(key, &format!("cannot be taken up: {error}")).told(STAYS_IN_FORCE);
    if let StartError::Bind { address: Address::Unix(_), source, .. } = error
        && source.kind() == std::io::ErrorKind::PermissionDenied
    {
        text.push_str(
            "\nA socket in a directory that the configuration did not name when Pixy started is closed to it: that needs a restart.",
        );
    }
    ("not_bound", text)
}

fn bad_file(faults: &config::Faults) -> String {
    let mut text = faults.told(STAYS_IN_FORCE);
    if faults.iter().any(|fault| fault.message().contains("permission denied")) {
        text.push_str(
            "\nA file in a directory that the configuration did not name when Pixy started is closed to it: that needs a restart.",
        );
    }
    text
}

impl Watched {
    /// Of what they hold now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let seen = digests(&files);
        Self { files, seen }
    }

    /// Of what they held before, where that is known: what has changed in the meantime is seen as a change.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        for (file, seen) in self.files.iter().zip(&mut self.seen) {
            if let Some(at) = before.files.iter().position(|other| other == file) {
                *seen = before.seen[at];
            }
        }
        self
    }

    /// Waits until the content is another one, and has been for a moment: an editor may be writing. May be dropped at any time.
    pub async fn changed(&mut self) {
        let mut before = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || digests(&files)).await else { continue };
            if now != self.seen && before.as_ref() == Some(&now) {
                self.seen = now;
                return;
            }
            before = Some(now);
        }
    }
}

fn digests(files: &[PathBuf]) -> Vec<Option<[u8; 32]>> {
    files.iter().map(|file| digest(file)).collect()
}

/// `None` while it cannot be read.
fn digest(file: &Path) -> Option<[u8; 32]> {
    use std::io::Read as _;
    // Asked before it is opened: to open a named pipe would wait for its writer.
    if !std::fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut content = Zeroizing::new(Vec::new());
    std::fs::File::open(file).ok()?.take(LONGEST + 1).read_to_end(&mut content).ok()?;
    Some(Sha256::digest(&*content).into())
}

const STAYS_IN_FORCE: &str = "the configuration before stays in force";

const STAYS: &str = "The configuration before stays in force.";

/// A longer file is no configuration: that it changes past this is not seen.
const LONGEST: u64 = 1024 * 1024;
