//! `pixy doctor`, in Pixy's own place: the configuration, its files, its ports, its guards, its accounts and their providers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use http::Method;
use serde_json::Value;
use tokio::net::UnixStream;

use super::call::{self, Place};
use super::{Report, ports, processes, provider};
use crate::cli::control::{Control, Refused};
use crate::cli::{Failure, told};
use crate::config::Config;
use crate::hardening;
use crate::server::Address;
use crate::vault::{KeySettings, Vault};

pub(super) async fn look(config: &Config) -> Report {
    let mut report = Report::default();
    let file = config.file.as_ref().map_or("the one that is built in".to_owned(), |file| file.display().to_string());
    report.good("configuration", format!("without fault: {file}"));
    let running = Control::of(config).call(Method::GET, "/api/accounts", None).await;
    let process = process_behind(&config.state_dir.join("control.sock")).await;
    files(config, running.is_ok(), &mut report);
    for (what, address) in surfaces(config) {
        port(what, address, running.is_ok(), process, &mut report).await;
    }
    guards(process, &mut report);
    let accounts = match running {
        Ok(accounts) => {
            report.good("pixy", "it runs, and answers on its control socket");
            accounts.as_array().cloned().unwrap_or_default()
        }
        Err(Refused::Problem(problem)) => {
            report.bad("pixy", told(&problem));
            Vec::new()
        }
        Err(Refused::Failure(Failure::Usage(why) | Failure::Runtime(why))) => {
            report.warn("pixy", format!("{why}. So nothing is known of the accounts."));
            Vec::new()
        }
    };
    for shown in &accounts {
        account(shown, &mut report);
    }
    let is_linked = |name: &str| {
        let linked = |shown: &Value| shown["state"] != "unlinked" && shown["state"] != "needs_terms";
        accounts.iter().any(|shown| shown["name"] == name && linked(shown))
    };
    provider::look(config, is_linked, &mut report).await;
    report
}

fn account(shown: &Value, report: &mut Report) {
    let name = shown["name"].as_str().unwrap_or_default();
    let error = shown["error"]["title"].as_str().map(|title| format!(": {title}")).unwrap_or_default();
    match shown["state"].as_str().unwrap_or_default() {
        "relink_required" => report.bad("account", format!("{name} needs a person{error}. Run `pixy link {name}`.")),
        "unlinked" => report.warn("account", format!("{name} is not linked")),
        "needs_terms" => report.warn("account", format!("{name} is not linked, and waits for accept_terms: true")),
        state if error.is_empty() => report.good("account", format!("{name} is {state}")),
        state => report.warn("account", format!("{name} is {state}{error}")),
    }
}

/// Vault and key: there, ours, and closed to others. What a start would make is not made here.
fn files(config: &Config, running: bool, report: &mut Report) {
    let key = match &config.vault.key {
        KeySettings::File(file) | KeySettings::Passphrase(file) => file,
    };
    private("key", key, report);
    let directory = &config.vault.directory;
    private("vault", directory, report);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        private("vault", &entry.path(), report);
    }
    if running {
        report.else_good(
            "vault",
            format!("{} is closed to others, and the running Pixy has opened it", directory.display()),
        );
    } else if !directory.is_dir() {
        report.else_good("vault", format!("{} will be made at the first start", directory.display()));
    } else if key.exists() {
        match Vault::open(&config.vault) {
            Ok(_) => {
                report.else_good("vault", format!("{} is closed to others, and the key opens it", directory.display()));
            }
            Err(error) => report.bad("vault", error.to_string()),
        }
    }
    let key_said = if key.exists() { "is closed to others" } else { "will be made at the first start" };
    report.else_good("key", format!("{} {key_said}", key.display()));
    report.else_good("vault", format!("{} is closed to others", directory.display()));
}

fn private(check: &'static str, path: &Path, report: &mut Report) {
    let Ok(metadata) = fs::metadata(path) else { return };
    let (mode, owner, own) = (metadata.mode() & 0o777, metadata.uid(), rustix::process::geteuid());
    let shown = path.display();
    // As the vault has it: orchestrators lend root's key to a group.
    let is_lent = owner == 0 && !own.is_root() && metadata.is_file();
    if mode & if is_lent { 0o037 } else { 0o077 } != 0 {
        let wanted = if metadata.is_dir() { "0700" } else { "0600" };
        report.bad(check, format!("{shown} is open to others (mode {mode:04o}). Run `chmod {wanted} {shown}`."));
    }
    if owner != own.as_raw() && !is_lent {
        report.bad(check, format!("{shown} belongs to user {owner}, and this is user {}", own.as_raw()));
    }
}

fn surfaces(config: &Config) -> impl Iterator<Item = (&'static str, &Address)> {
    let agents = config.agent_listeners.iter().map(|listener| ("agents", &listener.address));
    agents.chain(config.link_listen.iter().map(|address| ("page", address))).chain([("ops", &config.ops_listen)])
}

/// A port that somebody else holds takes the agents' requests, or the person's code.
async fn port(what: &'static str, address: &Address, running: bool, process: Option<u32>, report: &mut Report) {
    let Address::Tcp(wanted) = address else { return };
    if wanted.port() == 0 {
        return report.warn("ports", format!("{what}: the system chooses the port"));
    }
    if !running {
        return match std::net::TcpListener::bind(wanted) {
            Ok(_) => report.good("ports", format!("{what}: {wanted} is free")),
            Err(error) => {
                let holder = ports::listening().into_iter().find(|listening| listening.port == wanted.port());
                let holder = holder.map(|holder| format!(" (a program of user {} listens there)", holder.uid));
                report.bad("ports", format!("{what}: {wanted} cannot be had: {error}{}", holder.unwrap_or_default()));
            }
        };
    }
    let owner = process.and_then(|id| processes::status(id, "Uid"));
    let owner: Option<u32> = owner.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
    let stranger =
        ports::listening().into_iter().find(|it| it.port == wanted.port() && owner.is_some_and(|uid| uid != it.uid));
    if let Some(stranger) = stranger {
        return report.bad("ports", format!("{what}: a program of user {} listens on {wanted} as well", stranger.uid));
    }
    let host = if wanted.ip().is_unspecified() { "127.0.0.1".to_owned() } else { wanted.ip().to_string() };
    let (path, place) = (if what == "ops" { "/livez" } else { "/" }, Place::Tcp { host, port: wanted.port() });
    match call::get(&place, path, None).await {
        Ok(answer) if what == "agents" && answer.code().is_none() && !answer.status.is_success() => {
            report.bad("ports", format!("{what}: who answers on {wanted} is not Pixy"));
        }
        Ok(answer) if what == "page" && !answer.body.contains("<title>Pixy") => {
            report.bad("ports", format!("{what}: who answers on {wanted} is not Pixy"));
        }
        Ok(_) => report.good("ports", format!("{what}: Pixy answers on {wanted}")),
        Err(why) => report.bad("ports", format!("{what}: nobody answers on {wanted}: {why}")),
    }
}

/// What the running Pixy has taken from itself, as the kernel says; for one that does not run, what it could take.
fn guards(process: Option<u32>, report: &mut Report) {
    let own = hardening::harden_process(); // the doctor reads secrets too
    // Its other cautions are about the process that asks: in a container, one that was put beside Pixy.
    if rustix::process::geteuid().is_root() {
        report.bad("guards", "Pixy runs as root, which file permissions do not restrict. Run it as a user of its own.");
    }
    let Some(id) = process else {
        return report.good("guards", format!("this machine offers: {own}"));
    };
    let is = |field: &str, wanted: &str| processes::status(id, field).is_some_and(|value| value == wanted);
    // A process that cannot be dumped belongs to root in /proc, whoever it is (proc(5)).
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

/// Who serves the control socket.
async fn process_behind(socket: &Path) -> Option<u32> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    peer.pid().and_then(|id| u32::try_from(id).ok()).filter(|&id| id > 0)
}
