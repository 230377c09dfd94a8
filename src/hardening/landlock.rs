//! Landlock: the places that Pixy needs, and no others. Nothing can be executed at all.
//!
//! Rules are on directories rather than on files: keys, certificates and the resolver's settings are replaced by renaming, and
//! a rule on a file stays with the file that is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::Places;

/// What is on, in words; or what is not, and why.
pub(super) fn limit(places: &Places) -> Result<String, String> {
    let rules = rules(places);
    if rules.get(Path::new("/")).is_some_and(|access| access.contains(AccessFs::WriteFile)) {
        return Err("files are not limited (one of Pixy's directories is /)".to_owned());
    }
    let status = restrict(&rules).map_err(|error| format!("files are not limited ({error})"))?;
    let count = rules.len();
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("files are not limited (Landlock is switched off on this machine)".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => Err("files are not limited (this kernel has no Landlock)".to_owned()),
        (RulesetStatus::PartiallyEnforced, _) => {
            Ok(format!("files limited to {count} places (Landlock, as far as this kernel's goes)"))
        }
        (RulesetStatus::FullyEnforced, _) => Ok(format!("files limited to {count} places (Landlock)")),
    }
}

fn restrict(rules: &BTreeMap<PathBuf, BitFlags<AccessFs>>) -> Result<landlock::RestrictionStatus, RulesetError> {
    // Version 6 is the newest one whose every right is known here: a later one may forbid what nobody has tried.
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    for (path, access) in rules {
        // What went away since `rules` looked is left out.
        if let Ok(opened) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(opened, *access))?;
        }
    }
    ruleset.restrict_self()
}

/// Every place by its real path, with what may be done below it.
fn rules(places: &Places) -> BTreeMap<PathBuf, BitFlags<AccessFs>> {
    let changed = make_bitflags!(AccessFs::{
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
    for directory in &places.changed {
        allow(directory, changed);
    }
    for directory in &places.sockets {
        allow(directory, sockets);
    }
    for path in SYSTEM.iter().map(Path::new) {
        allow(path, read);
    }
    for file in places.read.iter().map(PathBuf::as_path).chain(SYSTEM_FILES.iter().map(Path::new)) {
        // A file may be a link into another directory: a mounted secret, the resolver's own copy.
        let target = file.canonicalize().ok();
        for file in [Some(file), target.as_deref()].into_iter().flatten() {
            allow(readable(file), read);
        }
    }
    // What a wider place allows needs no rule of its own.
    let all = rules.clone();
    rules.retain(|path, access| {
        !path.ancestors().skip(1).any(|above| all.get(above).is_some_and(|a| a.contains(*access)))
    });
    rules
}

/// The directory of a file, unless that would open the whole machine.
fn readable(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if parent != Path::new("/") => parent,
        _ => file,
    }
}

/// The resolver and its modules, and the roots of certificates.
const SYSTEM: [&str; 5] = ["/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Often links that lead out of /etc.
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
    fn a_mounted_secret_is_readable_where_it_lies_and_where_it_seems_to_lie() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        for directory in ["vault", "run", "real", "seen"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::write(at("real/key"), "x").unwrap();
        symlink(at("real/key"), at("seen/key")).unwrap();
        let places = Places {
            changed: vec![at("vault"), at("missing")],
            sockets: vec![at("run")],
            read: vec![at("seen/key"), at("vault/in-a-changed-place")],
        };
        let rules = rules(&places);
        let may = |path: &str, access: AccessFs| rules.get(&at(path)).is_some_and(|allowed| allowed.contains(access));
        assert!(may("seen", AccessFs::ReadFile) && may("real", AccessFs::ReadFile));
        assert!(!may("seen", AccessFs::WriteFile) && !may("real", AccessFs::WriteFile));
        assert!(may("vault", AccessFs::WriteFile) && may("vault", AccessFs::ReadFile));
        assert!(may("run", AccessFs::MakeSock) && !may("run", AccessFs::ReadFile));
        assert!(!rules.contains_key(&at("missing")));
        assert!(!rules.values().any(|access| access.contains(AccessFs::Execute)), "nothing is executed");
    }

    #[test]
    fn files_elsewhere_are_closed_and_pixys_own_are_not() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("file"), "x").unwrap();
        let places = Places { changed: vec![own.path().to_owned()], ..Places::default() };
        // Landlock stays with its thread.
        let (own, other) = (own.path().to_owned(), other.path().to_owned());
        let limited = std::thread::spawn(move || {
            let said = limit(&places);
            if said.is_err() {
                return; // a kernel without it: said, and nothing to see
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
    fn the_whole_machine_is_never_the_place_of_a_file() {
        assert_eq!(readable(Path::new("/key")), Path::new("/key"));
        assert_eq!(readable(Path::new("/run/secrets/key")), Path::new("/run/secrets"));
        assert_eq!(readable(Path::new("pixy.yaml")), Path::new("."));
        let places = Places { changed: vec![PathBuf::from("/")], ..Places::default() };
        assert!(limit(&places).unwrap_err().contains("is /"), "said, and not enforced");
    }
}
