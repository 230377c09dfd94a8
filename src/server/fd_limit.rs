//! How many connections the process's file descriptors allow.

use rustix::process::{Resource, getrlimit};

/// Not for agents: the vault, refreshes, listeners, the other surfaces.
const RESERVED: u64 = 64;

/// Of the reserve, for connections of the other surfaces, each.
const LEAST: u64 = 8;

/// The most connections of agents, and of each other surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of agents: each may need a second descriptor, towards the upstream.
    pub agents: usize,
    /// Of each other surface.
    pub others: usize,
}

/// Shares out what this process may open (`RLIMIT_NOFILE`).
pub fn share(wanted_agents: usize, wanted_others: usize) -> Share {
    share_of(getrlimit(Resource::Nofile).current, wanted_agents, wanted_others)
}

fn share_of(limit: Option<u64>, wanted_agents: usize, wanted_others: usize) -> Share {
    let Some(limit) = limit else { return Share { agents: wanted_agents, others: wanted_others } };
    let usable = limit.saturating_sub(RESERVED);
    let agents = usize::try_from(usable / 2).unwrap_or(usize::MAX).clamp(1, wanted_agents);
    let spare = usable.saturating_sub(2 * agents as u64) / 3; // the page, the control socket, probes
    let others = usize::try_from(LEAST + spare).unwrap_or(usize::MAX).min(wanted_others);
    Share { agents, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_kept_back_for_the_vault_and_refreshes() {
        let of = |limit| {
            let share = share_of(limit, 1024, 64);
            (share.agents, share.others)
        };
        assert_eq!(of(None), (1024, 64));
        assert_eq!(of(Some(1 << 20)), (1024, 64));
        assert_eq!(of(Some(1024)), (480, 8));
        assert_eq!(of(Some(256)), (96, 8));
        assert_eq!(of(Some(10)), (1, 8));
        assert_eq!(of(Some(2048 + 64)), (1024, 8));
    }
}
