//! Other people's processes: what /proc shows of Pixy.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Report;

/// A Pixy that can be seen.
pub(super) struct Process {
    pub(super) id: u32,
    pub(super) uid: Option<u32>,
}

/// Every process of Pixy's but this one.
pub(super) fn pixies() -> Vec<Process> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten().take(MOST_PROCESSES);
    let ids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| id != std::process::id() && is_pixy(id)).map(|id| Process { id, uid: uid(id) }).collect()
}

/// What a line of /proc/ID/status says, like `Uid` or `Seccomp`.
pub(super) fn status(id: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim().to_owned())
}

/// As the agent: neither a Pixy of the same user nor anything of one may be there.
pub(super) fn look(report: &mut Report) {
    let own = rustix::process::geteuid();
    if own.is_root() {
        report.bad("user", "the agent runs as root: no wall between users holds it. Run it as a user of its own.");
    }
    for Process { id, uid } in pixies() {
        if uid == Some(own.as_raw()) && !own.is_root() {
            report.bad(
                SAME_USER,
                format!("Pixy (process {id}) runs as the agent's own user. Run one of them as another."),
            );
        }
        let open = open_entries(&PathBuf::from(format!("/proc/{id}")));
        if open.is_empty() {
            report.warn(
                "process list",
                format!("Pixy (process {id}) is in the agent's process list; nothing of it opens. Between containers, do not share it."),
            );
        } else {
            let open = open.join(", ");
            report.bad("process list", format!("of Pixy (process {id}) the agent can open /proc/{id}: {open}."));
        }
    }
    report.else_good("user", "the agent does not run as root");
    report.else_good("process list", "no process of Pixy's can be seen");
}

/// What of /proc/ID can be opened and tells a secret or leads to one.
fn open_entries(process: &Path) -> Vec<&'static str> {
    let opens = |name: &&str| {
        let path = process.join(name);
        match *name {
            // A directory is no proof: only what is in it is.
            "fd" => fs::read_dir(&path).is_ok(),
            "root" | "cwd" => fs::read_link(&path).is_ok(),
            // Nothing is mapped at its start, which only a reader who was let in is told. A process that is ending has no
            // memory: it opens for everybody, and is empty.
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

pub(super) const SAME_USER: &str = "user";
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
const ENTRIES: [&str; 8] = ["environ", "mem", "maps", "root", "cwd", "fd", "auxv", "io"];
const MOST_PROCESSES: usize = 32_768;
