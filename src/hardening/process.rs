//! No core dumps, memory closed to programs of the same user, no new privileges, and files that only Pixy may read.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

use super::Guards;

pub(super) fn close(guards: &mut Guards) {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // Should root dump it all the same, then without its memory. It must come first: afterwards the file is root's.
        let _ = std::fs::write("/proc/self/coredump_filter", "0");
        // The limit binds the kernel, not the program that `core_pattern` may pipe a dump to; this binds both. It also gives
        // /proc/self to root, so that no program of the same user reads memory, environment or descriptors, or attaches.
        match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
            Ok(()) => {
                guards.note(Ok("no core dumps".to_owned()));
                guards.note(Ok("memory closed to programs of the same user".to_owned()));
            }
            Err(error) => {
                guards.note(limited.map(|()| "no core dumps".to_owned()).map_err(core_dumps));
                guards.note(Err(format!("memory is open to programs of the same user ({error})")));
            }
        }
        let privileges = rustix::thread::set_no_new_privs(true);
        guards.note(
            privileges
                .map(|()| "no new privileges".to_owned())
                .map_err(|error| format!("new privileges can be had ({error})")),
        );
    }
    #[cfg(not(target_os = "linux"))]
    guards.note(limited.map(|()| "no core dumps".to_owned()).map_err(core_dumps));
    if rustix::process::geteuid().is_root() {
        guards.cautions.push(
            "Pixy runs as root: the walls between users do not hold it. Run it as a user of its own, another than the agent's."
                .to_owned(),
        );
    }
}

fn core_dumps(error: rustix::io::Errno) -> String {
    format!("core dumps are possible ({error})")
}
