//! How many connections the process's limit of file descriptors allows.

use rustix::process::{Resource, getrlimit};

/// File descriptors kept back for the vault, refreshes, listeners and the other surfaces.
const RESERVED: u64 = 64;

/// Of the reserve, for connections of each other surface.
const RESERVED_PER_SURFACE: u64 = 8;

/// The maximum of open connections of all agent listeners, and of each other surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionBudget {
    /// Of agents: each may need a second descriptor, towards the upstream.
    pub(super) agents: usize,
    /// Of each other surface.
    pub(super) others: usize,
}

/// Lowers the wanted numbers of connections to what `RLIMIT_NOFILE` allows.
pub(super) fn connection_budget(wanted_agents: usize, wanted_others: usize) -> ConnectionBudget {
    budget(getrlimit(Resource::Nofile).current, wanted_agents, wanted_others)
}

fn budget(limit: Option<u64>, wanted_agents: usize, wanted_others: usize) -> ConnectionBudget {
    let Some(limit) = limit else { return ConnectionBudget { agents: wanted_agents, others: wanted_others } };
    let usable = limit.saturating_sub(RESERVED);
    let agents = usize::try_from(usable / 2).unwrap_or(usize::MAX).clamp(1, wanted_agents);
    let spare = usable.saturating_sub(2 * agents as u64) / 3; // the page, the control socket, ops
    let others = usize::try_from(RESERVED_PER_SURFACE + spare).unwrap_or(usize::MAX).min(wanted_others);
    ConnectionBudget { agents, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_back_for_the_vault_and_refreshes() {
        let of = |limit| {
            let budget = budget(limit, 1024, 64);
            (budget.agents, budget.others)
        };
        assert_eq!(of(None), (1024, 64));
        assert_eq!(of(Some(1 << 20)), (1024, 64));
        assert_eq!(of(Some(1024)), (480, 8));
        assert_eq!(of(Some(256)), (96, 8));
        assert_eq!(of(Some(10)), (1, 8));
        assert_eq!(of(Some(2048 + 64)), (1024, 8));
    }
}
