//! seccomp: refuses system calls that Pixy never makes, with EPERM. A list of forbidden calls rather than of allowed ones:
//! libraries change the calls that they need, and a gateway that an update breaks protects nothing.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::NotInForce;

/// Applies the filter to all threads.
pub(super) fn limit_system_calls() -> Result<String, NotInForce> {
    let failed = |why: &dyn std::fmt::Display| NotInForce(format!("system calls are not limited ({why})"));
    let programs = programs().map_err(|error| failed(&error))?;
    for program in &programs {
        apply_filter_all_threads(program).map_err(|error| failed(&error))?;
    }
    Ok(format!("{} system calls refused (seccomp)", FORBIDDEN.len()))
}

fn programs() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    // Allows threads, but no processes and no namespaces.
    let mut clone = vec![flag(0, libc::CLONE_THREAD, false)?];
    for namespace in NAMESPACES {
        clone.push(flag(0, namespace, true)?);
    }
    rules.insert(libc::SYS_clone, clone);
    // Keeps what `process` has set.
    rules.insert(libc::SYS_prctl, vec![first(libc::PR_SET_DUMPABLE)?, first(libc::PR_SET_PTRACER)?]);
    #[cfg(target_arch = "x86_64")]
    for call in rules.keys().copied().chain(X32_ONLY).collect::<Vec<_>>() {
        rules.insert(call | X32, Vec::new());
    }
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let refusing = SeccompFilter::new(rules, SeccompAction::Allow, refused, target)?;
    // The flags of clone3 are in memory, which no filter can read: with ENOSYS the C library falls back to clone.
    let absent = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let hiding = SeccompFilter::new(clone3, SeccompAction::Allow, absent, target)?;
    Ok([refusing.try_into()?, hiding.try_into()?])
}

/// Matches calls in which the bits of `flag` in an argument are set, or are not.
fn flag(argument: u8, flag: i32, set: bool) -> Result<SeccompRule, seccompiler::BackendError> {
    let mask = u64::from(flag.cast_unsigned());
    let value = if set { mask } else { 0 };
    SeccompRule::new(vec![SeccompCondition::new(argument, Length::Qword, Is::MaskedEq(mask), value)?])
}

/// Matches calls whose first argument is this number.
fn first(number: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let number = u64::from(number.cast_unsigned());
    SeccompRule::new(vec![SeccompCondition::new(0, Length::Dword, Is::Eq, number)?])
}

const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// The x32 numbering of x86-64: the same calls with this bit set, and some with numbers of their own.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;
#[cfg(target_arch = "x86_64")]
const X32_ONLY: std::ops::RangeInclusive<i64> = 512..=547;

const FORBIDDEN: &[c_long] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Inspection of other programs.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mknodat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Other ways into the kernel, which bypass the rules above.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // The kernel's keyrings.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Another user.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn programs_do_not_start_and_threads_do() {
        // On this thread alone: a filter on all threads would affect the other tests.
        let programs = programs().unwrap();
        let outcome = std::thread::spawn(move || {
            for program in &programs {
                seccompiler::apply_filter(program).unwrap();
            }
            let started = Command::new("true").stdin(Stdio::null()).status();
            let joined = std::thread::spawn(|| 7).join().unwrap();
            let dumpable = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
            (started.unwrap_err().raw_os_error(), joined, dumpable)
        });
        let refused = rustix::io::Errno::PERM;
        assert_eq!(outcome.join().unwrap(), (Some(refused.raw_os_error()), 7, Err(refused)));
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut calls = FORBIDDEN.to_vec();
        calls.sort_unstable();
        calls.dedup();
        assert_eq!(calls.len(), FORBIDDEN.len());
    }
}
