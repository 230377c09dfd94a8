//! Restricts the process before it holds a secret, and warns of peers that can read its files or memory.
//!
//! ```text
//! process     no core dumps, memory closed to other programs, no new privileges, private files
//! swap        memory is locked where the machine swaps
//! landlock    only the paths that Pixy needs
//! seccomp     refuses system calls that Pixy never makes
//! peer_audit  warns of an agent that runs as the same user, and of a shared process list
//! ```
//! Nothing here needs a setting or stops Pixy from starting: what this machine does not support is skipped and reported.
//! Everything applies to the calling thread and to threads that it starts later, so it runs before the runtime is built.

#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod landlock;
mod peer_audit;
mod process;
#[cfg(target_os = "linux")]
mod swap;

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
    /// Limits files and system calls. Call it before the first thread is started.
    pub fn confine(&mut self, paths: &AllowedPaths) {
        #[cfg(target_os = "linux")]
        {
            self.record(landlock::limit_files(paths));
            self.record(seccomp::limit_system_calls());
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = paths;
            self.record(Err(NotInForce("files and system calls are not limited (only Linux can)".to_owned())));
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
