//! `pixy doctor`, from where Pixy runs: configuration, files, ports, hardening, accounts and providers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::net::UnixStream;

use super::http_probe::{self, ProbeAnswer, ProbeTarget};
use super::{Report, listening_ports, processes, provider_probe};
use crate::api::{AccountState, AccountStatus, ListAccounts};
use crate::app;
use crate::cli::control_client::{CallError, ControlClient};
use crate::config::Config;
use crate::hardening;
use crate::server::Address;
use crate::vault::{KeySettings, Vault};

pub(super) async fn check(config: &Config) -> Report {
    let mut report = Report::default();
    let file = config.file.as_ref().map_or("the built-in one".to_owned(), |file| file.display().to_string());
    report.good("configuration", format!("without fault: {file}"));
    let running = ControlClient::new(config).call::<ListAccounts>("", &()).await;
    let process = process_behind(&config.state_dir.join("control.sock")).await;
    check_files(config, running.is_ok(), &mut report);
    for (what, address) in surfaces(config) {
        check_port(what, address, running.is_ok(), process, &mut report).await;
    }
    check_hardening(process, &mut report);
    check_ports(config, &mut report);
    match &running {
        Ok(_) => report.good("pixy", "it runs, and answers on its control socket"),
        Err(error @ (CallError::Problem(_) | CallError::Stranger { .. })) => report.bad("pixy", error.to_string()),
        Err(error) => report.warn("pixy", format!("{error}. The state of the accounts is unknown.")),
    }
    let accounts = running.unwrap_or_default();
    for account in &accounts {
        check_account(account, &mut report);
    }
    let is_linked = |name: &str| {
        let linked = |state| !matches!(state, AccountState::Unlinked | AccountState::NeedsTerms);
        accounts.iter().any(|account| account.name == name && linked(account.state))
    };
    provider_probe::check(config, is_linked, &mut report).await;
    report
}

fn check_account(account: &AccountStatus, report: &mut Report) {
    let name = &account.name;
    let error = account.error.as_ref().map(|error| format!(": {}", error.title)).unwrap_or_default();
    match account.state {
        AccountState::RelinkRequired => {
            report.bad("account", format!("{name} must be linked again{error}. Run `pixy link {name}`."));
        }
        AccountState::Unlinked => report.warn("account", format!("{name} is not linked")),
        AccountState::NeedsTerms => {
            report.warn("account", format!("{name} is not linked, and needs accept_terms: true"));
        }
        state if error.is_empty() => report.good("account", format!("{name} is {}", state.as_str())),
        state => report.warn("account", format!("{name} is {}{error}", state.as_str())),
    }
}

/// Checks that vault and key exist, belong to this user and are closed to others. Creates nothing.
fn check_files(config: &Config, running: bool, report: &mut Report) {
    let key = match &config.vault.key {
        KeySettings::File(file) | KeySettings::Passphrase(file) => file,
    };
    check_private("key", key, report);
    let directory = &config.vault.directory;
    let shown = directory.display();
    check_private("vault", directory, report);
    check_private("state", &config.state_dir, report);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        check_private("vault", &entry.path(), report);
    }
    if running {
        report.good_by_default("vault", format!("{shown} is closed to others, and the running Pixy has opened it"));
    } else if !directory.is_dir() {
        report.good_by_default("vault", format!("{shown} will be created at the first start"));
    } else if key.exists() {
        match Vault::open(&config.vault) {
            Ok(_) => report.good_by_default("vault", format!("{shown} is closed to others, and the key opens it")),
            Err(error) => report.bad("vault", error.to_string()),
        }
    }
    report.good_by_default("state", format!("{} is closed to others", config.state_dir.display()));
    let key_state = if key.exists() { "is closed to others" } else { "will be created at the first start" };
    report.good_by_default("key", format!("{} {key_state}", key.display()));
    report.good_by_default("vault", format!("{shown} is closed to others"));
}

fn check_private(check: &'static str, path: &Path, report: &mut Report) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let (mode, owner, own) = (metadata.mode() & 0o777, metadata.uid(), rustix::process::geteuid());
    let shown = path.display();
    // As the vault allows it: orchestrators mount a key that belongs to root, readable by a group.
    let is_mounted = owner == 0 && !own.is_root() && metadata.is_file();
    if mode & if is_mounted { 0o037 } else { 0o077 } != 0 {
        let wanted = if metadata.is_dir() { "0700" } else { "0600" };
        report.bad(check, format!("{shown} is open to others (mode {mode:04o}). Run `chmod {wanted} {shown}`."));
    }
    if owner != own.as_raw() && !is_mounted {
        report.bad(check, format!("{shown} belongs to user {owner}, and this is user {}", own.as_raw()));
    }
}

fn surfaces(config: &Config) -> impl Iterator<Item = (&'static str, &Address)> {
    let agents = config.agent_listeners.iter().map(|listener| ("agents", &listener.address));
    agents.chain(config.link_listen.iter().map(|address| ("page", address))).chain([("ops", &config.ops_listen)])
}

/// Checks that no other program has the port: it would receive the agents' requests, or the person's code.
async fn check_port(what: &'static str, address: &Address, running: bool, process: Option<u32>, report: &mut Report) {
    let Address::Tcp(wanted) = address else { return };
    if wanted.port() == 0 {
        return report.warn("ports", format!("{what}: the system chooses the port"));
    }
    if !running {
        return match std::net::TcpListener::bind(wanted) {
            Ok(_) => report.good("ports", format!("{what}: {wanted} is free")),
            Err(error) => {
                let holder = listening_ports::listening().into_iter().find(|listening| listening.port == wanted.port());
                let holder = holder.map(|holder| format!(" (a program of user {} listens there)", holder.uid));
                report.bad("ports", format!("{what}: {wanted} cannot be bound: {error}{}", holder.unwrap_or_default()));
            }
        };
    }
    let owner = process.and_then(|id| processes::status(id, "Uid"));
    let owner: Option<u32> = owner.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    let other = listening_ports::listening()
        .into_iter()
        .find(|it| it.port == wanted.port() && owner.is_some_and(|uid| uid != it.uid));
    if let Some(other) = other {
        return report.bad("ports", format!("{what}: a program of user {} listens on {wanted} as well", other.uid));
    }
    let host = if wanted.ip().is_unspecified() { "127.0.0.1".to_owned() } else { wanted.ip().to_string() };
    let (path, target) = (if what == "ops" { "/livez" } else { "/" }, ProbeTarget::Tcp { host, port: wanted.port() });
    let is_pixys = |answer: &ProbeAnswer| match what {
        "agents" => answer.code().is_some() || answer.status.is_success(),
        "page" => answer.body.contains("<title>Pixy"),
        _ => true,
    };
    match http_probe::get(&target, path, None).await {
        Ok(answer) if !is_pixys(&answer) => {
            report.bad("ports", format!("{what}: another program is listening on {wanted}"));
        }
        Ok(_) => report.good("ports", format!("{what}: Pixy answers on {wanted}")),
        Err(error) => report.bad("ports", format!("{what}: no answer on {wanted}: {error}")),
    }
}

/// Reports the hardening of the running Pixy by the kernel's account; without one, what this machine offers.
fn check_hardening(process: Option<u32>, report: &mut Report) {
    let own = hardening::harden_process(); // this command reads secrets too
    // Its other cautions concern this process, which in a container was started beside Pixy.
    if rustix::process::geteuid().is_root() {
        report.bad("guards", "Pixy runs as root, which file permissions do not restrict. Run it as a user of its own.");
    }
    let Some(id) = process else {
        return report.good("guards", format!("this machine offers: {own}"));
    };
    let is = |field: &str, wanted: &str| processes::status(id, field).is_some_and(|value| value == wanted);
    // The /proc entries of a process that is not dumpable belong to root (proc(5)).
    let closed = fs::metadata(format!("/proc/{id}/environ")).map(|entry| entry.uid() == 0);
    let guards = [
        ("memory closed to programs of the same user", closed.unwrap_or(false)),
        ("no new privileges", is("NoNewPrivs", "1")),
        ("system calls limited", is("Seccomp", "2")),
    ];
    for (guard, on) in guards {
        if on { report.good("guards", guard) } else { report.warn("guards", format!("not in force: {guard}")) }
    }
}

/// Proves, by trying, that this kernel limits a process to the TCP ports of the configuration.
fn check_ports(config: &Config, report: &mut Report) {
    if !config.limit_network {
        return report.warn("guards", "not in force: TCP ports limited (`hardening.network` is false)");
    }
    match hardening::prove_ports(&app::allowed_ports(config)) {
        Ok(proven) => report.good("guards", format!("another port was tried and refused: {proven}")),
        Err(why) => report.warn("guards", why),
    }
}

/// The process that serves the control socket.
async fn process_behind(socket: &Path) -> Option<u32> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    peer.pid().and_then(|id| u32::try_from(id).ok()).filter(|&id| id > 0)
}
