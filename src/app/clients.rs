//! How many clients each surface may have, and the memory that all of them share.

use crate::config::Config;
use crate::memory::MemoryBudget;
use crate::server::{BASELINE, Bound, Capacity, ConnectionLimit, ConnectionMemory, Transfers};

/// The limits of all surfaces. Each has permits of its own, so that no surface can exclude the clients of another.
pub(super) struct Clients {
    /// Of all agent listeners together.
    pub(super) agents: ConnectionLimit,
    pub(super) page: ConnectionLimit,
    pub(super) control: ConnectionLimit,
    pub(super) ops: ConnectionLimit,
    /// What clients keep beyond the fixed parts of their connections.
    pub(super) variable: MemoryBudget,
    /// All of it; passphrases are stretched in it too.
    pub(super) memory: MemoryBudget,
    /// Bytes of the process without clients.
    baseline: usize,
    capacity: Capacity,
}

/// Most connections of the page, of the control socket and of the probes, each.
const OTHER_CONNECTIONS: usize = 64;

/// The most bytes that connections of the page, the control socket and ops keep beyond their fixed parts: agents need the rest.
const OTHERS_VARIABLE: usize = 4 << 20;

/// What a start with this configuration allows, if the process itself takes no more than usual.
pub fn capacity(config: &Config) -> Capacity {
    plan(config, BASELINE)
}

fn plan(config: &Config, baseline: usize) -> Capacity {
    Capacity::new(&config.limits, OTHER_CONNECTIONS, config.memory, baseline)
}

impl Clients {
    /// `resident`: bytes of the process before it serves, if they are known.
    pub(super) fn new(config: &Config, resident: Option<usize>) -> Self {
        let baseline = resident.map_or(BASELINE, |resident| BASELINE.max(resident + START_TO_LOAD));
        let capacity = plan(config, baseline);
        let memory = MemoryBudget::new(capacity.memory);
        let variable = memory.part(capacity.variable);
        let of = |per_connection, variable: &MemoryBudget| ConnectionMemory {
            fixed: memory.clone(),
            per_connection,
            variable: variable.clone(),
        };
        let others_variable = variable.part(OTHERS_VARIABLE);
        let other = || {
            let memory = of(capacity.per_other(), &others_variable);
            ConnectionLimit::with_memory(capacity.others, Transfers::Short, memory)
        };
        let agents = of(capacity.per_agent, &variable);
        Self {
            agents: ConnectionLimit::with_memory(capacity.agents, Transfers::Long, agents),
            page: other(),
            control: other(),
            ops: other(),
            variable,
            memory,
            baseline,
            capacity,
        }
    }

    /// Applies the limits of a changed configuration: to new connections and further bytes.
    pub(super) fn apply(&mut self, config: &Config) {
        self.capacity = plan(config, self.baseline);
        self.memory.resize(self.capacity.memory);
        self.variable.resize(self.capacity.variable);
        self.agents.resize(self.capacity.agents, self.capacity.per_agent);
        for other in [&self.page, &self.control, &self.ops] {
            other.resize(self.capacity.others, self.capacity.per_other());
        }
    }

    pub(super) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Logs how many connections fit, with a warning if that is less than configured.
    pub(super) fn report(&self, config: &Config) {
        let (configured, connections) = (config.limits.connections, self.capacity.agents);
        let memory = config.memory;
        if self.capacity.bound == Bound::Configured {
            tracing::info!(connections, memory, "connections of agents that fit");
        } else {
            let bound = self.capacity.bound.setting();
            tracing::warn!(
                configured,
                connections,
                memory,
                "fewer connections than `limits.connections`: {bound} allows no more"
            );
        }
    }
}

/// Bytes that the start and the first requests add: components, trusted roots, pages of code.
const START_TO_LOAD: usize = 16 << 20;
