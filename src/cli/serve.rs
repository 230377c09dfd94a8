//! `pixy serve`.

use std::fmt::Write as _;

use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, LogOptions, log, log_sampling, log_writer, runtime_with};
use crate::account::State;
use crate::app::{self, Process, Running};
use crate::config::{self, Config, Env};
use crate::hardening::{Hardening, PeerAudit};

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(config: Config, options: &LogOptions, mut hardening: Hardening) -> Result<(), CommandError> {
    log::start(options);
    config.log_warnings();
    let passed = config::passed_sockets().map_err(CommandError::Usage)?;
    let resident = app::resident();
    let peer_audit = PeerAudit::open();
    let ports = config.limit_network.then(|| app::allowed_ports(&config));
    // Before the runtime starts threads, which inherit it.
    let are_limited = hardening.confine(&app::allowed_paths(&config), ports.as_ref());
    let process = Process { peer_audit, passed, ports: ports.filter(|_| are_limited), resident };
    log_writer::start_thread(log_sampling::report)
        .map_err(|error| CommandError::Runtime(format!("the log's thread cannot be started: {error}")))?;
    // jemalloc's own thread returns freed memory to the system also while no request comes.
    if let Err(error) = tikv_jemalloc_ctl::background_thread::write(true) {
        tracing::debug!(%error, "freed memory is returned to the system only by later requests");
    }
    let (file, env) = (config.file.clone(), Env::read());
    let runtime = runtime_with(config.io_threads)?;
    let outcome = runtime.block_on(async {
        let failed = |error: &dyn std::fmt::Display| CommandError::Runtime(error.to_string());
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(|error| failed(&error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
        let mut running = app::start_with(config, process).await.map_err(|error| failed(&error))?;
        let origin = file.map_or("the built-in configuration".to_owned(), |file| file.display().to_string());
        announce(&running, &origin, &hardening).await;
        let mut watched = running.watched_files();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
                () = watched.changed() => {}
            }
            let before = running.watched_files();
            // `reload` reports its error itself; the previous configuration stays in force.
            let _ = running.reload(&env).await;
            watched = running.watched_files().since(&before);
        }
        tracing::info!("shutting down: open streams may finish");
        running.stop().await.map_err(|what| failed(&what))
    });
    log_writer::finish();
    runtime.shutdown_background();
    outcome
}

/// Prints the addresses of agents and page, the state of the accounts, and the next step.
async fn announce(running: &Running, origin: &str, hardening: &Hardening) {
    // The accounts are read from the vault in tasks: before that, their state is unknown.
    for account in running.accounts.iter() {
        for _ in 0..100 {
            if account.view().state != State::Starting {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let linked: Vec<String> = names(running, |state| state != State::Unlinked);
    let unlinked: Vec<String> = names(running, |state| state == State::Unlinked);
    let agents = running.agents.iter().map(|address| format!("http://{address}/<account>/…")).collect::<Vec<_>>();
    let mut text = String::new(); // writing to it cannot fail
    let _ = writeln!(text, "Pixy {} serves, on {origin}.", crate::VERSION);
    let _ = writeln!(text, "  agents   {}", agents.join(", ").replace("http://unix:", "unix:"));
    match &running.page {
        Some(page) => {
            let _ = writeln!(text, "  you      http://{page}/  (`pixy url` prints the address with a setup code)");
        }
        None => {
            let _ = writeln!(text, "  you      the page is off; `pixy link NAME` links in the terminal");
        }
    }
    let _ = writeln!(text, "  probes   http://{}/readyz, /livez, /metrics", running.ops);
    let _ = writeln!(text, "  clients  {} connections of agents fit", running.capacity().agents);
    let _ = writeln!(text, "  guarded  {hardening}");
    for warning in hardening.warnings() {
        let _ = writeln!(text, "  caution  {warning}");
    }
    let _ = writeln!(text, "  linked   {}", or_none(&linked));
    if !unlinked.is_empty() {
        let _ = writeln!(text, "  not yet  {}", unlinked.join(", "));
    }
    if let (true, Some(first)) = (linked.is_empty(), unlinked.first()) {
        let _ = writeln!(
            text,
            "Next: in another terminal, `pixy link {first}`, then `pixy env {first}` for the lines that your agent needs."
        );
    }
    log_writer::write_text(&text);
    if hardening.is_complete() {
        tracing::info!("guarded: {hardening}");
    } else {
        tracing::warn!("guarded: {hardening}");
    }
    for warning in hardening.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!(linked = linked.len(), accounts = linked.len() + unlinked.len(), "serving");
}

fn names(running: &Running, wanted: impl Fn(State) -> bool) -> Vec<String> {
    let accounts = running.accounts.iter().filter(|account| wanted(account.view().state));
    accounts.map(|account| account.name().to_string()).collect()
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
