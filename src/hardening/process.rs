//! No core dumps, memory closed to programs of the same user, no new privileges, and files that only Pixy may read.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

use super::{Hardening, NotInForce};

pub(super) fn restrict(hardening: &mut Hardening) {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let no_core_dumps = setrlimit(Resource::Core, none)
        .map(|()| "no core dumps".to_owned())
        .map_err(|error| NotInForce(format!("core dumps are possible ({error})")));
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // If root dumps the process after all, its memory is left out. First, because afterwards the file belongs to root.
        let _ = std::fs::write("/proc/self/coredump_filter", "0");
        // The limit binds the kernel but not the program that `core_pattern` may pipe a dump to; this binds both. It also
        // makes root the owner of /proc/self, so that no program of the same user reads memory, environment or descriptors, or attaches.
        match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            Ok(()) => {
                hardening.record(Ok("no core dumps".to_owned()));
                hardening.record(Ok("memory closed to programs of the same user".to_owned()));
            }
            Err(error) => {
                hardening.record(no_core_dumps);
                let why = format!("memory is open to programs of the same user ({error})");
                hardening.record(Err(NotInForce(why)));
            }
        }
        let privileges = rustix::thread::set_no_new_privs(true);
        hardening.record(
            privileges
                .map(|()| "no new privileges".to_owned())
                .map_err(|error| NotInForce(format!("new privileges are possible ({error})"))),
        );
    }
    #[cfg(not(target_os = "linux"))]
    hardening.record(no_core_dumps);
    if rustix::process::geteuid().is_root() {
        hardening.warnings.push(
            "Pixy runs as root, which file permissions do not restrict. Run it as a user of its own, different from the agent's."
                .to_owned(),
        );
    }
}
