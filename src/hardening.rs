//! What the process takes from itself before it holds a secret, and what it says of its neighbours.
//!
//! ```text
//! process     no core dumps, memory closed to others, no new privileges, private files
//! swap        memory that stays in memory, where the machine swaps
//! files       the places that Pixy needs, and no others (Landlock)
//! calls       system calls that Pixy never makes (seccomp)
//! neighbours  an agent of the same user, a process list that others share
//! ```
//! Nothing here needs a setting, and nothing here stops Pixy from starting: what this machine does not offer is left out and
//! said. Everything applies to the thread that asks and to those that it makes later, so it comes before the runtime.

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

/// What is on and what is not, for the line that Pixy starts with.
#[derive(Debug, Default)]
pub struct Guards {
    on: Vec<String>,
    off: Vec<String>,
    cautions: Vec<String>,
}

/// Where Pixy's files are. Directories, but for those of `read`; what does not exist is left out.
#[derive(Debug, Default)]
pub struct Places {
    /// Files are made, replaced and removed in these directories.
    pub changed: Vec<PathBuf>,
    /// Unix sockets are made and removed in these directories.
    pub sockets: Vec<PathBuf>,
    /// These files are read, also after they were replaced: so are their directories.
    pub read: Vec<PathBuf>,
}

/// Closes the process to others. To be called before anything secret is read.
pub fn begin() -> Guards {
    let mut guards = Guards::default();
    process::close(&mut guards);
    #[cfg(target_os = "linux")]
    guards.note(swap::avoid());
    guards.cautions.extend(peer_audit::shared_process_list());
    guards
}

impl Guards {
    /// Limits the files and the system calls. To be called before the first thread is made.
    pub fn confine(&mut self, places: &Places) {
        #[cfg(target_os = "linux")]
        {
            self.note(landlock::limit(places));
            self.note(seccomp::refuse());
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = places;
            self.note(Err("files and system calls are not limited (only Linux can)".to_owned()));
        }
    }

    /// What a person should change: each is a whole sentence.
    pub fn cautions(&self) -> &[String] {
        &self.cautions
    }

    /// Everything that was asked for is on.
    pub fn are_whole(&self) -> bool {
        self.off.is_empty()
    }

    fn note(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(on) => self.on.push(on),
            Err(off) => self.off.push(off),
        }
    }
}

impl fmt::Display for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.on.is_empty() { "nothing".to_owned() } else { self.on.join(", ") })?;
        if self.off.is_empty() { Ok(()) } else { write!(f, "; but {}", self.off.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_on_and_what_is_not() {
        let mut guards = Guards::default();
        assert_eq!(guards.to_string(), "nothing");
        guards.note(Ok("no core dumps".to_owned()));
        guards.note(Ok("memory closed".to_owned()));
        assert_eq!(guards.to_string(), "no core dumps, memory closed");
        assert!(guards.are_whole());
        guards.note(Err("files are not limited (this kernel has no Landlock)".to_owned()));
        assert_eq!(
            guards.to_string(),
            "no core dumps, memory closed; but files are not limited (this kernel has no Landlock)"
        );
        assert!(!guards.are_whole());
    }
}
