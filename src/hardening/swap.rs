//! Keeps memory out of swap.
//!
//! Locking only the pages that hold a token would promise too much: the HTTP and TLS libraries and the allocator hold copies
//! elsewhere. So all memory is locked or none; and none where the limit on locked memory is finite, because a later allocation
//! would then fail and abort Pixy.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::NotInForce;

/// Locks all memory, now and later, unless nothing can be swapped.
pub(super) fn lock_memory() -> Result<String, NotInForce> {
    let devices = fs::read_to_string("/proc/swaps").ok();
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.swap.max").ok();
    if can_swap(devices.as_deref(), limit.as_deref()) { lock() } else { Ok("no swap here".to_owned()) }
}

/// `devices` is /proc/swaps: a heading, then a line for each swap device. `limit` is the cgroup's limit. A file that cannot be
/// read counts as "can swap".
fn can_swap(devices: Option<&str>, limit: Option<&str>) -> bool {
    devices.is_none_or(|devices| devices.lines().skip(1).any(|line| !line.trim().is_empty()))
        && limit.is_none_or(|limit| limit.trim() != "0")
}

fn lock() -> Result<String, NotInForce> {
    let failed = |error| {
        let why = "memory may be swapped to disk (locking it needs CAP_IPC_LOCK or `ulimit -l unlimited`";
        NotInForce(format!("{why}: {error})"))
    };
    // With the capability there is no limit (mlock(2)).
    if !capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::IPC_LOCK)) {
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(failed)?;
    }
    // ONFAULT: pages that are only reserved, such as the rest of a thread's stack, stay unallocated.
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(failed)?;
    Ok("memory never swapped".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_50_memory_is_locked_only_where_it_could_be_swapped() {
        let headings = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let one = format!("{headings}/dev/sda2                               partition\t8388604\t0\t-2\n");
        for (devices, limit, expected) in [
            (Some(headings), None, false),
            (Some(headings), Some("max\n"), false),
            (Some(&one), None, true),
            (Some(&one), Some("max\n"), true),
            (Some(&one), Some("1048576\n"), true),
            (Some(&one), Some("0\n"), false), // as Kubernetes sets it
            (None, None, true),
            (None, Some("0\n"), false),
        ] {
            assert_eq!(can_swap(devices, limit), expected, "{devices:?} {limit:?}");
        }
    }

    #[test]
    fn attack_50_all_memory_is_locked_now_and_later() {
        let locked = || -> usize {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        match lock() {
            Ok(_) => {
                let before = locked();
                let more = vec![1_u8; 64 << 20]; // large enough for a mapping of its own
                assert!(before > 0 && locked() >= before + (60 << 10), "{before} kB, then {} kB", locked());
                drop(more);
                rustix::mm::munlockall().unwrap();
            }
            Err(NotInForce(why)) => assert!(why.contains("needs CAP_IPC_LOCK"), "{why}"), // a user without the capability
        }
    }
}
