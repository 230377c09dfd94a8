//! Memory that is not written to disk.
//!
//! To lock only the pages that hold a token would promise too much: the HTTP and TLS libraries and the allocator hold copies
//! where they like. So it is all of the memory or none of it; and none where the limit on locked memory is a number, because
//! then memory that is asked for later would be refused, and Pixy would die of it.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// What is on, in words; or what is not, and why.
pub(super) fn avoid() -> Result<String, String> {
    let places = fs::read_to_string("/proc/swaps").ok();
    let most = fs::read_to_string("/sys/fs/cgroup/memory.swap.max").ok();
    if can_swap(places.as_deref(), most.as_deref()) { lock() } else { Ok("no swap here".to_owned()) }
}

/// The kernel's list has headings and a line for each place; a container may be allowed none of them. Who does not know is
/// careful.
fn can_swap(places: Option<&str>, most: Option<&str>) -> bool {
    places.is_none_or(|places| places.lines().skip(1).any(|line| !line.trim().is_empty()))
        && most.is_none_or(|most| most.trim() != "0")
}

fn lock() -> Result<String, String> {
    let failed = |error| {
        format!("memory may be swapped to disk (locking it needs CAP_IPC_LOCK or `ulimit -l unlimited`: {error})")
    };
    // Who has the capability has no limit (mlock(2)).
    if !capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::IPC_LOCK)) {
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(failed)?;
    }
    // On fault: what is only reserved, such as the rest of a thread's stack, takes no memory for it.
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
        for (places, most, expected) in [
            (Some(headings), None, false),
            (Some(headings), Some("max\n"), false),
            (Some(&one), None, true),
            (Some(&one), Some("max\n"), true),
            (Some(&one), Some("1048576\n"), true),
            (Some(&one), Some("0\n"), false), // as Kubernetes sets it
            (None, None, true),
            (None, Some("0\n"), false),
        ] {
            assert_eq!(can_swap(places, most), expected, "{places:?} {most:?}");
        }
    }

    #[test]
    fn attack_50_what_is_locked_is_all_there_is_and_all_that_comes() {
        let locked = || -> usize {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        match lock() {
            Ok(_) => {
                let before = locked();
                let more = vec![1_u8; 64 << 20]; // large enough to be mapped by itself
                assert!(before > 0 && locked() >= before + (60 << 10), "{before} kB, then {} kB", locked());
                drop(more);
                rustix::mm::munlockall().unwrap();
            }
            Err(why) => assert!(why.contains("needs CAP_IPC_LOCK"), "{why}"), // a user without that right
        }
    }
}
