//! Restricts the process before it holds a secret, and warns of peers that can read its files or memory.
//!
//! ```text
//! process     no core dumps, memory closed to other programs, no new privileges, private files
//! swap        memory is locked where the machine swaps
//! landlock    only the paths that Pixy needs, and the TCP ports
//! seccomp     refuses system calls that Pixy never makes
//! peer_audit  warns of an agent that runs as the same user, and of a shared process list
//! ```
//! Nothing here needs a setting (`hardening.network` switches the ports off) or stops Pixy from starting: what this machine does not support is skipped and reported.
//! Everything applies to the calling thread and to threads that it starts later, so it runs before the runtime is built.

#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod landlock;
mod peer_audit;
mod process;
#[cfg(target_os = "linux")]
mod swap;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

pub use peer_audit::PeerAudit;

/// Which restrictions are in force, for the line `guarded` of the start.
#[derive(Debug, Default)]
pub struct Hardening {
    in_force: Vec<String>,
    missing: Vec<NotInForce>,
    warnings: Vec<String>,
}

/// A restriction that is not in force, and why, in words.
#[derive(Debug, PartialEq, Eq)]
struct NotInForce(String);

/// The paths that Pixy needs: directories, except in `read`. A path that does not exist is skipped.
#[derive(Debug, Default)]
pub struct AllowedPaths {
    /// Files are created, replaced and removed in these directories.
    pub written: Vec<PathBuf>,
    /// Unix sockets are created and removed in these directories.
    pub sockets: Vec<PathBuf>,
    /// These files are read, and their directories are readable too, because a file may be replaced.
    pub read: Vec<PathBuf>,
}

/// The TCP ports that Pixy needs; `None`: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPorts {
    /// Connections go to these ports.
    pub connect: Option<BTreeSet<u16>>,
    /// Listeners have these ports; 0 is any that the system chooses.
    pub bind: Option<BTreeSet<u16>>,
}

impl AllowedPorts {
    /// What `needed` has beyond these, in words.
    pub fn lacking(&self, needed: &Self) -> Vec<String> {
        let lacks =
            |what: &str, allowed: &Option<BTreeSet<u16>>, needed: &Option<BTreeSet<u16>>| match (allowed, needed) {
                (None, _) => None,
                (Some(_), None) => Some(format!("{what} any port ({CLOSED})")),
                (Some(allowed), Some(needed)) => {
                    let ports: Vec<String> = needed.difference(allowed).map(u16::to_string).collect();
                    (!ports.is_empty()).then(|| format!("{what} port {} ({CLOSED})", ports.join(", ")))
                }
            };
        let connect = lacks("connections to", &self.connect, &needed.connect);
        connect.into_iter().chain(lacks("listening on", &self.bind, &needed.bind)).collect()
    }
}

/// Why a port is not available.
const CLOSED: &str = "Pixy closed it to itself at the start, see `hardening.network`";

/// Limits a thread of its own to these ports, and tries another one. Returns what was proven, or why it does not hold here.
#[cfg(target_os = "linux")]
pub fn prove_ports(ports: &AllowedPorts) -> Result<String, String> {
    let ports = ports.clone();
    let limited = std::thread::spawn(move || landlock::limit_ports(&ports)).join();
    limited.map_err(|_| "the attempt failed".to_owned())?.map_err(|NotInForce(why)| why)
}

/// As on Linux.
#[cfg(not(target_os = "linux"))]
pub fn prove_ports(_: &AllowedPorts) -> Result<String, String> {
    Err("TCP ports are not limited (only Linux can)".to_owned())
}

/// Restricts the process itself. Call it before reading a secret.
pub fn harden_process() -> Hardening {
    let mut hardening = Hardening::default();
    process::restrict(&mut hardening);
    #[cfg(target_os = "linux")]
    hardening.record(swap::lock_memory());
    hardening.warnings.extend(peer_audit::shared_process_list());
    hardening
}

impl Hardening {
    /// Limits files, TCP ports (unless `None`) and system calls. Call it before the first thread is started. Returns whether the
    /// ports are limited.
    pub fn confine(&mut self, paths: &AllowedPaths, ports: Option<&AllowedPorts>) -> bool {
        #[cfg(target_os = "linux")]
        {
            self.record(landlock::limit_files(paths));
            let limited = ports.map(landlock::limit_ports);
            let are_limited = matches!(limited, Some(Ok(_)));
            if let Some(outcome) = limited {
                self.record(outcome);
            }
            self.record(seccomp::limit_system_calls());
            are_limited
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (paths, ports);
            self.record(Err(NotInForce("files, ports and system calls are not limited (only Linux can)".to_owned())));
            false
        }
    }

    /// What the operator should change: each is a whole sentence.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether every restriction is in force.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    fn record(&mut self, outcome: Result<String, NotInForce>) {
        match outcome {
            Ok(restriction) => self.in_force.push(restriction),
            Err(missing) => self.missing.push(missing),
        }
    }
}

impl fmt::Display for Hardening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.in_force.is_empty() { "nothing".to_owned() } else { self.in_force.join(", ") })?;
        for (position, NotInForce(why)) in self.missing.iter().enumerate() {
            write!(f, "{}{why}", if position == 0 { "; but " } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_lists_what_is_in_force_and_what_is_missing() {
        let mut hardening = Hardening::default();
        assert_eq!(hardening.to_string(), "nothing");
        hardening.record(Ok("no core dumps".to_owned()));
        hardening.record(Ok("memory closed".to_owned()));
        assert_eq!(hardening.to_string(), "no core dumps, memory closed");
        assert!(hardening.is_complete());
        hardening.record(Err(NotInForce("files are not limited (this kernel has no Landlock)".to_owned())));
        assert_eq!(
            hardening.to_string(),
            "no core dumps, memory closed; but files are not limited (this kernel has no Landlock)"
        );
        assert!(!hardening.is_complete());
    }
}
