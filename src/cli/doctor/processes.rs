//! Pixy's processes, as /proc shows them.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Outcome, Report};

/// A visible process of Pixy.
pub(super) struct Process {
    pub(super) id: u32,
    pub(super) uid: Option<u32>,
}

/// Every process of Pixy except this one.
pub(super) fn pixy_processes() -> Vec<Process> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten().take(MAX_PROCESSES);
    let ids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| id != std::process::id() && is_pixy(id)).map(|id| Process { id, uid: uid(id) }).collect()
}

/// The value of a line of /proc/ID/status, such as `Uid` or `Seccomp`.
pub(super) fn status(id: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim().to_owned())
}

/// Checks from the agent's side: no Pixy may run as the agent's user, and none may have an open entry in /proc.
pub(super) fn check(report: &mut Report) {
    let own = rustix::process::geteuid();
    if own.is_root() {
        let says = "the agent runs as root, which file permissions do not restrict. Run it as a user of its own.";
        report.bad("user", says);
    }
    for Process { id, uid } in pixy_processes() {
        if uid == Some(own.as_raw()) && !own.is_root() {
            report
                .bad("user", format!("Pixy (process {id}) runs as the agent's own user. Run one of them as another."));
        }
        let open = open_entries(&PathBuf::from(format!("/proc/{id}"))).join(", ");
        let (outcome, says) = if open.is_empty() {
            let advice = "Do not share the process list between containers.";
            let says = format!("is in the agent's process list; none of its entries can be opened. {advice}");
            (Outcome::Warning, says)
        } else {
            (Outcome::Bad, format!("has entries that the agent can open in /proc/{id}: {open}."))
        };
        report.add("process list", outcome, format!("Pixy (process {id}) {says}"));
    }
    report.good_by_default("user", "the agent does not run as root");
    report.good_by_default("process list", "no process of Pixy is visible");
}

/// Entries of /proc/ID that can be opened and contain a secret or lead to one.
fn open_entries(process: &Path) -> Vec<&'static str> {
    let opens = |name: &&str| {
        let path = process.join(name);
        match *name {
            // A directory alone proves nothing: its entries must be readable.
            "fd" => fs::read_dir(&path).is_ok(),
            "root" | "cwd" => fs::read_link(&path).is_ok(),
            // Nothing is mapped at address 0: a reader with access gets EIO. A process that is ending has no memory: every
            // user can open it, and it is empty.
            "mem" => {
                read(&path).is_ok_and(|length| length > 0)
                    || read(&path).is_err_and(|error| error.raw_os_error() == Some(EIO))
            }
            _ => read(&path).is_ok_and(|length| length > 0),
        }
    };
    ENTRIES.into_iter().filter(opens).collect()
}

fn read(path: &Path) -> std::io::Result<usize> {
    File::open(path)?.read(&mut [0; 1])
}

fn is_pixy(id: u32) -> bool {
    let read = |name: &str| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
    let line = read("cmdline");
    let mut words = line.split(|&byte| byte == 0);
    let program = words.next().map(String::from_utf8_lossy).unwrap_or_default();
    let is_doctor = words.any(|word| word == b"doctor");
    (program.rsplit('/').next() == Some("pixy") || read("comm") == b"pixy\n") && !is_doctor
}

fn uid(id: u32) -> Option<u32> {
    status(id, "Uid")?.split_ascii_whitespace().nth(1)?.parse().ok() // the effective one
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const ENTRIES: [&str; 8] = ["environ", "mem", "maps", "root", "cwd", "fd", "auxv", "io"];
const MAX_PROCESSES: usize = 32_768;
