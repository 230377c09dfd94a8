//! Whether other users may change the configuration file: who writes it decides where logins are sent.
//!
//! Trusted are root and Pixy's own user. A file or directory on a mount that is read-only in Pixy's namespace is trusted whatever
//! its mode and owner say: ConfigMaps and bind mounts of a container show those of another machine or user.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use rustix::fs::StatVfsMountFlags;

/// What is wrong with the permissions; sentences for a person.
pub(super) enum Distrust {
    /// Another user may change it.
    Refused(String),
    /// The members of a group may change it.
    Warning(String),
}

/// Who may change a file or directory.
#[derive(Clone, Copy)]
struct Writers {
    mode: u32,
    owner: u32,
    on_read_only_mount: bool,
}

/// Checks the opened file, and every directory and link through which `path` leads to it. Without a path in the file system (a
/// pipe, a deleted file) there is nothing to replace.
pub(super) fn check(opened: &File, path: &Path) -> io::Result<Option<Distrust>> {
    let us = rustix::process::geteuid().as_raw();
    let metadata = opened.metadata()?;
    let file = Writers::of(&metadata, || rustix::fs::fstatvfs(opened));
    let shown = path.display();
    if let Some(why) = file.refused_as_file(us, &shown.to_string()) {
        return Ok(Some(Distrust::Refused(format!("the configuration {why}, or mount it read-only. {REASON}"))));
    }
    if metadata.is_file() {
        for (place, is_link) in places(path).unwrap_or_default() {
            let Ok(metadata) = place.symlink_metadata() else { continue };
            // Of a link, the mount that it is on, not the one that it leads to.
            let mounted = if is_link { place.parent().unwrap_or(&place) } else { &place };
            let writers = Writers::of(&metadata, || rustix::fs::statvfs(mounted));
            if let Some(why) = writers.refused_as_place(us, is_link, &place.display().to_string()) {
                let what = if is_link { "a link to the configuration" } else { "a directory of the configuration" };
                return Ok(Some(Distrust::Refused(format!("{what} {why}, or mount it read-only. {REASON}"))));
            }
        }
    }
    Ok(file.is_writable_by_group().then(|| {
        Distrust::Warning(format!(
            "the members of its group may change this file (mode {:04o}); unless each of them may use every login, run \
             `chmod g-w {shown}`.",
            file.mode & 0o7777
        ))
    }))
}

impl Writers {
    fn of(metadata: &Metadata, statvfs: impl FnOnce() -> rustix::io::Result<rustix::fs::StatVfs>) -> Self {
        let on_read_only_mount = statvfs().is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY));
        Self { mode: metadata.mode(), owner: metadata.uid(), on_read_only_mount }
    }

    fn refused_as_file(self, us: u32, shown: &str) -> Option<String> {
        if self.on_read_only_mount {
            None
        } else if self.mode & 0o002 != 0 {
            Some(format!("may be changed by every user (mode {:04o}): run `chmod o-w {shown}`", self.mode & 0o7777))
        } else {
            self.foreign_owner(us, shown)
        }
    }

    fn refused_as_place(self, us: u32, is_link: bool, shown: &str) -> Option<String> {
        // Of a link the mode means nothing. In a sticky directory only the owners may replace an entry.
        let replaceable = !is_link && self.mode & 0o002 != 0 && self.mode & 0o1000 == 0;
        if self.on_read_only_mount {
            return None;
        }
        if replaceable {
            let mode = self.mode & 0o7777;
            return Some(format!("lets every user replace it ({shown}, mode {mode:04o}): run `chmod o-w {shown}`"));
        }
        if self.owner == UNMAPPED && *HAS_UNMAPPED_USERS {
            return None;
        }
        self.foreign_owner(us, shown)
    }

    fn foreign_owner(self, us: u32, shown: &str) -> Option<String> {
        let own = if us == 0 { "root".to_owned() } else { format!("root nor Pixy's user {us}") };
        let neither = if us == 0 { "not" } else { "neither" };
        (self.owner != 0 && self.owner != us)
            .then(|| format!("belongs to user {} ({shown}), {neither} to {own}: run `chown {us} {shown}`", self.owner))
    }

    fn is_writable_by_group(self) -> bool {
        !self.on_read_only_mount && self.mode & 0o020 != 0
    }
}

/// Every directory and link (`true`) through which `path` is resolved.
fn places(path: &Path) -> io::Result<BTreeSet<(PathBuf, bool)>> {
    let mut places = BTreeSet::new();
    let mut here = PathBuf::from("/");
    let mut rest = steps(&std::path::absolute(path)?);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        if step == ".." {
            here.pop();
            continue;
        }
        places.insert((here.clone(), false));
        let next = here.join(&step);
        if !next.symlink_metadata()?.is_symlink() {
            here = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let target = next.read_link()?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        rest.extend(steps(&target));
        places.insert((next, true));
    }
    Ok(places)
}

/// The names of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

const REASON: &str = "Who changes the configuration decides where logins are sent.";

/// The owner of what belongs to users that a user namespace does not map (`/proc/sys/kernel/overflowuid`). In such a namespace the
/// directories above a home belong to it.
const UNMAPPED: u32 = 65534;

/// Whether some users are not mapped here (user_namespaces(7)). Read once: later, Landlock may not allow it.
static HAS_UNMAPPED_USERS: LazyLock<bool> =
    LazyLock::new(|| std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| leaves_users_out(&map)));

/// Whether a `uid_map` is another than that of the initial namespace, which has every user.
fn leaves_users_out(map: &str) -> bool {
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// As the kernel's limit (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const fn writers(mode: u32, owner: u32) -> Writers {
        Writers { mode, owner, on_read_only_mount: false }
    }

    #[test]
    fn attack_85_a_file_that_others_may_change_is_refused() {
        for (mode, owner) in [(0o644, 0), (0o644, 1000), (0o600, 1000), (0o664, 1000), (0o4755, 0)] {
            assert!(writers(mode, owner).refused_as_file(1000, "/c").is_none(), "{mode:o} {owner}");
        }
        let why = |mode, owner, us| writers(mode, owner).refused_as_file(us, "/c").unwrap();
        assert_eq!(why(0o646, 1000, 1000), "may be changed by every user (mode 0646): run `chmod o-w /c`");
        assert_eq!(
            why(0o644, 1001, 1000),
            "belongs to user 1001 (/c), neither to root nor Pixy's user 1000: run `chown 1000 /c`"
        );
        assert_eq!(why(0o600, 1001, 0), "belongs to user 1001 (/c), not to root: run `chown 0 /c`");
        assert!(writers(0o644, UNMAPPED).refused_as_file(1000, "/c").is_some(), "an unmapped owner of the file itself");
        let read_only = Writers { on_read_only_mount: true, ..writers(0o666, 1001) };
        assert!(read_only.refused_as_file(1000, "/c").is_none() && !read_only.is_writable_by_group());
        assert!(writers(0o664, 1000).is_writable_by_group());
    }

    #[test]
    fn attack_85_a_directory_that_allows_replacement_is_refused() {
        let refused = |mode, owner, is_link| writers(mode, owner).refused_as_place(1000, is_link, "/d").is_some();
        for (mode, owner) in [(0o755, 0), (0o1777, 0), (0o775, 1000)] {
            assert!(!refused(mode, owner, false), "{mode:o} {owner}");
        }
        assert_eq!(refused(0o755, UNMAPPED, false), !*HAS_UNMAPPED_USERS);
        assert!(refused(0o777, UNMAPPED, false), "whoever owns it");
        assert!(
            leaves_users_out("0 1000 1\n1 100000 65536\n") && !leaves_users_out("         0          0 4294967295\n")
        );
        assert!(refused(0o777, 0, false) && refused(0o757, 1000, false) && refused(0o755, 1001, false));
        assert!(refused(0o777, 1001, true) && !refused(0o777, 1000, true) && !refused(0o777, 0, true), "links");
        let config_map = Writers { on_read_only_mount: true, ..writers(0o777, 0) };
        assert!(config_map.refused_as_place(1000, false, "/d").is_none());
    }

    #[test]
    fn every_directory_and_link_on_the_way_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("..data")).unwrap();
        std::fs::write(base.join("..data/pixy.yaml"), "").unwrap();
        std::os::unix::fs::symlink("..data/pixy.yaml", base.join("pixy.yaml")).unwrap();
        std::fs::create_dir(base.join("sub")).unwrap();
        let found = places(&base.join("sub/../pixy.yaml")).unwrap();
        let expected = [(base.clone(), false), (base.join("..data"), false), (base.join("pixy.yaml"), true)];
        for place in &expected {
            assert!(found.contains(place), "{place:?} in {found:?}");
        }
        assert!(
            found.contains(&(PathBuf::from("/"), false)) && !found.iter().any(|(path, _)| path.ends_with("sub/.."))
        );
        std::os::unix::fs::symlink("loop", base.join("loop")).unwrap();
        assert!(places(&base.join("loop")).is_err());
    }
}
