//! How the memory and the file descriptors of the process are shared among its connections.
//!
//! `limits.memory` is the ceiling of the process's resident memory. From it are taken, in this order:
//!
//! - the baseline: the process without clients ([`BASELINE`], or more where it measures more at its start);
//! - the fixed part of each connection: what it costs whatever its client does, within what `buffers` and `proxy` count;
//! - the rest is the variable part: long heads, bodies that are kept or on their way, responses that are not read.
//!
//! A connection reserves its fixed part when it is accepted, and the variable part is reserved before it is kept; so the sum stays
//! below the ceiling.
//!
//! The constants are measured: the growth of `VmHWM` of the program with 128 MiB, jemalloc and one I/O thread, divided by the number
//! of connections, in the dearest state that the fixed part covers. `tests/it/floods.rs` measures the sum in each flood
//! (`PIXY_LONG=1` prints it).

use super::fd_limit::connection_budget;
use super::limits::ServerLimits;

/// The connections that fit, and the memory for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Open connections of agents, all agent listeners together.
    pub agents: usize,
    /// Open connections of each other surface: the page, the control socket, ops.
    pub others: usize,
    /// Bytes of all clients together.
    pub memory: usize,
    /// Of these, bytes beyond the fixed parts.
    pub variable: usize,
    /// Bytes of the fixed part of an agent's connection.
    pub per_agent: usize,
    /// What allows no more connections of agents.
    pub bound: Bound,
}

/// What bounds the number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `limits.connections`.
    Configured,
    /// The system's limit of open files.
    OpenFiles,
    /// `limits.memory`.
    Memory,
}

/// Bytes of a process that serves no client: 11 MiB at rest in the shipped build, and the pages of its code that the first requests
/// of each kind load.
pub const BASELINE: usize = 24 << 20;

/// The least of `limits.memory`.
pub const LEAST_MEMORY: usize = 40 << 20;

/// The fixed part of an agent's connection: the task, hyper's buffers, a request with 100 fields and a body of 16 KiB that is kept, and
/// its connection to the upstream. An open stream over HTTP/1.1 and TLS measures 42 KiB (`benches/rig`).
const AGENT: usize = 64 * 1024;

/// For each further field that a head may have: its entries in the tables of the request and of the one to the upstream.
const FIELD: usize = 320;

/// The fixed part of a connection of another surface: the task, hyper's buffers, a body of the JSON API and its answer.
pub(super) const OTHER: usize = 80 * 1024;

/// Other surfaces than that of agents.
const OTHERS: usize = 3;

/// The fewest connections of each other surface.
const LEAST_OTHERS: usize = 4;

/// Fields of a head that [`AGENT`] covers.
const FIELDS: usize = 100;

impl Capacity {
    /// Shares `memory` bytes, of which the process itself takes `baseline`. `others` is the wanted number of connections for each
    /// other surface.
    pub fn new(limits: &ServerLimits, others: usize, memory: usize, baseline: usize) -> Self {
        let files = connection_budget(limits.connections, others);
        let memory = memory.saturating_sub(baseline);
        let others = files.others.min((memory / 8 / OTHERS / OTHER).max(LEAST_OTHERS));
        let rest = memory.saturating_sub(OTHERS * others * OTHER);
        let per_agent = AGENT + FIELD * limits.header_fields.saturating_sub(FIELDS);
        // A quarter stays for the variable part.
        let fitting = (rest / 4 * 3 / per_agent).max(1);
        let agents = files.agents.min(fitting);
        let bound = match agents {
            agents if agents == limits.connections => Bound::Configured,
            agents if agents == files.agents => Bound::OpenFiles,
            _ => Bound::Memory,
        };
        Self { agents, others, memory, variable: rest.saturating_sub(agents * per_agent), per_agent, bound }
    }

    /// Bytes of the fixed part of a connection of another surface.
    pub fn per_other(&self) -> usize {
        OTHER
    }
}

impl Bound {
    /// The setting that allows no more, for a person.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Configured => "`limits.connections`",
            Self::OpenFiles => "the system's limit of open files (`ulimit -n`)",
            Self::Memory => "`limits.memory`",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn capacity(connections: usize, memory: usize) -> Capacity {
        let limits = ServerLimits { connections, ..ServerLimits::default() };
        Capacity::new(&limits, 64, memory, BASELINE)
    }

    #[test]
    fn the_parts_stay_within_the_memory() {
        for memory in [LEAST_MEMORY, 64 * MIB, 128 * MIB, 256 * MIB, 4096 * MIB] {
            for connections in [1, 100, 1024, 100_000] {
                let fits = capacity(connections, memory);
                let fixed = fits.agents * fits.per_agent + OTHERS * fits.others * fits.per_other();
                assert!(BASELINE + fixed + fits.variable <= memory, "{fits:?}");
                assert!(fits.agents >= 1 && fits.agents <= connections && fits.others >= LEAST_OTHERS, "{fits:?}");
                assert!(fits.variable >= MIB, "{fits:?}");
            }
        }
    }

    #[test]
    fn memory_bounds_the_connections() {
        assert_eq!(capacity(10, 128 * MIB).bound, Bound::Configured);
        let small = capacity(1024, LEAST_MEMORY);
        assert!(small.agents >= 100 && small.agents < 300, "{small:?}");
        assert!(matches!(small.bound, Bound::Memory | Bound::OpenFiles));
        assert_eq!(capacity(1, 0).agents, 1, "Pixy always serves");
    }
}
