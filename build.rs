//! Gives `pixy --version` the commit that it was built from: `0.1.0 (0123456789ab)`.
//!
//! `PIXY_COMMIT` names it where there is no repository (an image); otherwise git does, where the sources are a repository of their
//! own. Without either, as in a tarball, only the version is shown: nothing here may fail a build. Development builds show no
//! commit, because every commit would recompile everything.

#![allow(clippy::print_stdout, reason = "cargo reads the output of a build script")]

use std::env;
use std::path::Path;
use std::process::Command;

/// The sources of the program: only a change of these makes a build dirty.
const SOURCES: [&str; 5] = ["src", "config", "Cargo.toml", "Cargo.lock", "build.rs"];

/// How many digits of a commit are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PIXY_COMMIT");
    let given = env::var("PIXY_COMMIT").ok();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release"); // also of profiles that inherit from it
    let commit = match given.as_deref().and_then(shown) {
        Some(commit) => Some(commit),
        None if is_release => of_repository(),
        None => None,
    };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = commit.map_or_else(|| version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo:rustc-env=PIXY_VERSION={version}");
}

/// The shortened commit; `None` if the text is not a commit, like `unknown`.
fn shown(commit: &str) -> Option<String> {
    let (digits, dirty) = match commit.trim().strip_suffix("-dirty") {
        Some(digits) => (digits, "-dirty"),
        None => (commit.trim(), ""),
    };
    let is_one = digits.len() >= 7 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| format!("{}{dirty}", digits[..digits.len().min(SHOWN)].to_ascii_lowercase()))
}

fn of_repository() -> Option<String> {
    // Sources that were unpacked within another repository do not belong to it.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = shown(git(&["rev-parse", "HEAD"])?.trim())?;
    let [head, branches, packed] =
        ["HEAD", "refs/heads", "packed-refs"].map(|path| git(&["rev-parse", "--git-path", path]));
    for path in [head, branches, packed].into_iter().flatten() {
        rerun_if_changed(path.trim());
    }
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    SOURCES.into_iter().for_each(rerun_if_changed);
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

/// Rebuilds when `path` changes. A missing path would run this script at every build.
fn rerun_if_changed(path: &str) {
    if Path::new(path).exists() {
        println!("cargo:rerun-if-changed={path}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    // Without optional locks, so that git commands of a developer do not fail meanwhile.
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    if output.status.success() { String::from_utf8(output.stdout).ok() } else { None }
}
