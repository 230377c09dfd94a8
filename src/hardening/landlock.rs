//! Landlock: only the paths and TCP ports that Pixy needs, and no execution of any file.
//!
//! Rules are on directories rather than on files: keys, certificates and the resolver's settings are replaced by renaming, and
//! a rule on a file stays with the old inode.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};

use super::{AllowedPaths, AllowedPorts, NotInForce};

/// Restricts this thread, and those that it starts, to `paths`.
pub(super) fn limit_files(paths: &AllowedPaths) -> Result<String, NotInForce> {
    let not_limited = |why: &dyn std::fmt::Display| NotInForce(format!("files are not limited ({why})"));
    let rules = rules(paths);
    if rules.get(Path::new("/")).is_some_and(|access| access.contains(AccessFs::WriteFile)) {
        return Err(not_limited(&"one of Pixy's directories is /"));
    }
    let status = restrict(&rules).map_err(|error| not_limited(&error))?;
    let count = rules.len();
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err(not_limited(&"Landlock is disabled on this machine"))
        }
        (RulesetStatus::NotEnforced, _) => Err(not_limited(&"this kernel has no Landlock")),
        (RulesetStatus::PartiallyEnforced, _) => {
            Ok(format!("files limited to {count} paths (Landlock, as far as this kernel supports it)"))
        }
        (RulesetStatus::FullyEnforced, _) => Ok(format!("files limited to {count} paths (Landlock)")),
    }
}

fn restrict(rules: &BTreeMap<PathBuf, BitFlags<AccessFs>>) -> Result<landlock::RestrictionStatus, RulesetError> {
    // Version 6 is the newest whose rights were all tested: a later one may forbid something that Pixy needs.
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for (path, access) in rules {
        // A path that was removed since `rules` ran is skipped.
        if let Ok(opened) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(opened, *access))?;
        }
    }
    ruleset.restrict_self()
}

/// Restricts this thread, and those that it starts, to these TCP ports, and proves it by trying another one.
pub(super) fn limit_ports(ports: &AllowedPorts) -> Result<String, NotInForce> {
    let not_limited = |why: &dyn std::fmt::Display| NotInForce(format!("TCP ports are not limited ({why})"));
    if ports.connect.is_none() && ports.bind.is_none() {
        return Err(not_limited(&"an account's endpoints are discovered, and a redirect may use any port"));
    }
    // Required, not at best effort: a kernel that limits files only would say nothing.
    restrict_ports(ports).map_err(|_| not_limited(&"this kernel has no Landlock for them: Linux 6.7 or later"))?;
    let unlisted = |allowed: &BTreeSet<u16>| UNUSED_PORTS.into_iter().find(|port| !allowed.contains(port));
    if let Some(port) = ports.connect.as_ref().and_then(unlisted)
        && !is_refused(TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
    {
        return Err(not_limited(&"a connection to another port was not refused"));
    }
    if let Some(port) = ports.bind.as_ref().and_then(unlisted)
        && !is_refused(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
    {
        return Err(not_limited(&"listening on another port was not refused"));
    }
    let shown = |ports: &Option<BTreeSet<u16>>| {
        let listed = |ports: &BTreeSet<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        ports.as_ref().map_or_else(|| "any".to_owned(), listed)
    };
    Ok(format!("TCP to ports {}, listening on {} (Landlock)", shown(&ports.connect), shown(&ports.bind)))
}

fn restrict_ports(ports: &AllowedPorts) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut handled = BitFlags::EMPTY;
    for (access, ports) in [(AccessNet::ConnectTcp, &ports.connect), (AccessNet::BindTcp, &ports.bind)] {
        if ports.is_some() {
            handled |= access;
        }
    }
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(handled)?;
    let mut ruleset = ruleset.create()?;
    for (access, ports) in [(AccessNet::ConnectTcp, &ports.connect), (AccessNet::BindTcp, &ports.bind)] {
        for &port in ports.iter().flatten() {
            ruleset = ruleset.add_rule(NetPort::new(port, access))?;
        }
    }
    ruleset.restrict_self()
}

/// Landlock's error; others come from ports in use.
fn is_refused<T>(outcome: std::io::Result<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Ports that no service has, for the proof: the first that is not allowed is tried.
const UNUSED_PORTS: [u16; 3] = [65_531, 65_530, 65_529];

/// The access that is allowed below each canonical path.
fn rules(paths: &AllowedPaths) -> BTreeMap<PathBuf, BitFlags<AccessFs>> {
    let written = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeSock | RemoveFile
    });
    let sockets = make_bitflags!(AccessFs::{ReadDir | MakeSock | RemoveFile});
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});

    let mut rules = BTreeMap::new();
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| {
        let Ok(target) = path.canonicalize() else { return };
        let access = if target.is_dir() { access } else { access & AccessFs::from_file(ABI::V6) };
        *rules.entry(target).or_insert(BitFlags::EMPTY) |= access;
    };
    for directory in &paths.written {
        allow(directory, written);
    }
    for directory in &paths.sockets {
        allow(directory, sockets);
    }
    for path in SYSTEM.iter().map(Path::new) {
        allow(path, read);
    }
    for file in paths.read.iter().map(PathBuf::as_path).chain(SYSTEM_FILES.iter().map(Path::new)) {
        // A file may be a symbolic link into another directory: a mounted secret, the resolver's own copy.
        let target = file.canonicalize().ok();
        for file in [Some(file), target.as_deref()].into_iter().flatten() {
            allow(readable(file), read);
        }
    }
    // A rule that a parent directory already covers is not needed.
    let all = rules.clone();
    rules.retain(|path, access| {
        !path.ancestors().skip(1).any(|above| all.get(above).is_some_and(|a| a.contains(*access)))
    });
    rules
}

/// The directory of a file; the file itself where the directory is the root.
fn readable(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if parent != Path::new("/") => parent,
        _ => file,
    }
}

/// The resolver with its modules, and the root certificates.
const SYSTEM: [&str; 5] = ["/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Often symbolic links to files outside /etc.
const SYSTEM_FILES: [&str; 7] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_mounted_secret_is_readable_by_link_and_by_target() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        for directory in ["vault", "run", "real", "seen"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::write(at("real/key"), "x").unwrap();
        symlink(at("real/key"), at("seen/key")).unwrap();
        let paths = AllowedPaths {
            written: vec![at("vault"), at("missing")],
            sockets: vec![at("run")],
            read: vec![at("seen/key"), at("vault/in-a-written-directory")],
        };
        let rules = rules(&paths);
        let may = |path: &str, access: AccessFs| rules.get(&at(path)).is_some_and(|allowed| allowed.contains(access));
        assert!(may("seen", AccessFs::ReadFile) && may("real", AccessFs::ReadFile));
        assert!(!may("seen", AccessFs::WriteFile) && !may("real", AccessFs::WriteFile));
        assert!(may("vault", AccessFs::WriteFile) && may("vault", AccessFs::ReadFile));
        assert!(may("run", AccessFs::MakeSock) && !may("run", AccessFs::ReadFile));
        assert!(!rules.contains_key(&at("missing")));
        assert!(!rules.values().any(|access| access.contains(AccessFs::Execute)), "nothing is executed");
    }

    #[test]
    fn only_allowed_directories_are_accessible() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("file"), "x").unwrap();
        let paths = AllowedPaths { written: vec![own.path().to_owned()], ..AllowedPaths::default() };
        // Landlock applies to this thread alone.
        let (own, other) = (own.path().to_owned(), other.path().to_owned());
        let limited = std::thread::spawn(move || {
            if limit_files(&paths).is_err() {
                return; // this kernel does not support it
            }
            fs::write(own.join("a"), "x").unwrap();
            fs::rename(own.join("a"), own.join("b")).unwrap();
            fs::hard_link(own.join("b"), own.join("c")).unwrap();
            fs::read("/etc/hosts").unwrap();
            for refused in [
                fs::read(other.join("file")).map(drop),
                fs::write(other.join("new"), "x"),
                fs::read_dir(&other).map(drop),
                fs::read_dir("/proc").map(drop),
                fs::rename(own.join("b"), other.join("b")),
            ] {
                let kind = refused.unwrap_err().kind();
                assert!(matches!(kind, std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::CrossesDevices));
            }
        });
        limited.join().unwrap();
    }

    #[test]
    fn attack_95_only_known_ports_are_used() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let known = open.local_addr().unwrap().port();
        let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // closed again
        let ports = AllowedPorts { connect: Some([known].into()), bind: Some([other].into()) };
        // Landlock applies to this thread alone.
        let limited = std::thread::spawn(move || {
            if let Err(NotInForce(why)) = limit_ports(&ports) {
                assert!(why.contains("Linux 6.7"), "{why}");
                return; // this kernel does not support it
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, known)).unwrap();
            let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, other)).unwrap();
            for port in [other, 443, 1, 65_535] {
                assert!(is_refused(TcpStream::connect((Ipv4Addr::LOCALHOST, port))), "{port}");
            }
            drop(bound);
            for port in [0, 8700, known] {
                assert!(is_refused(TcpListener::bind((Ipv4Addr::LOCALHOST, port))), "{port}");
            }
        });
        limited.join().unwrap();
    }

    #[test]
    fn the_root_directory_is_never_allowed() {
        assert_eq!(readable(Path::new("/key")), Path::new("/key"));
        assert_eq!(readable(Path::new("/run/secrets/key")), Path::new("/run/secrets"));
        assert_eq!(readable(Path::new("pixy.yaml")), Path::new("."));
        let paths = AllowedPaths { written: vec![PathBuf::from("/")], ..AllowedPaths::default() };
        assert!(limit_files(&paths).unwrap_err().0.contains("is /"), "reported, and not enforced");
    }
}
