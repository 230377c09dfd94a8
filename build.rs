//! Gives `pixy --version` the commit that it was built from: `0.1.0 (0123456789ab)`.
//!
//! `PIXY_COMMIT` says it where there is no repository (an image); else git is asked, where the sources are a repository of their
//! own. Without either, as in a tarball, the version stands alone: nothing here may fail a build. A build for development is not
//! asked: every commit would compile everything anew.

#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::env;
use std::path::Path;
use std::process::Command;

/// What the program is made of: a change elsewhere does not make it another one.
const SOURCES: [&str; 5] = ["src", "config", "Cargo.toml", "Cargo.lock", "build.rs"];

/// Digits of a commit that are shown.
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

/// What is shown of a commit; `None` for what is none, like `unknown`.
fn shown(commit: &str) -> Option<String> {
    let (digits, dirty) = match commit.trim().strip_suffix("-dirty") {
        Some(digits) => (digits, "-dirty"),
        None => (commit.trim(), ""),
    };
    let is_one = digits.len() >= 7 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| format!("{}{dirty}", digits[..digits.len().min(SHOWN)].to_ascii_lowercase()))
}

fn of_repository() -> Option<String> {
    // Unpacked within somebody else's repository, it is not theirs.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = shown(git(&["rev-parse", "HEAD"])?.trim())?;
    let [head, branches, packed] =
        ["HEAD", "refs/heads", "packed-refs"].map(|path| git(&["rev-parse", "--git-path", path]));
    for path in [head, branches, packed].into_iter().flatten() {
        again_with(path.trim());
    }
    let changed = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    SOURCES.into_iter().for_each(again_with);
    Some(if changed.is_empty() { commit } else { commit + "-dirty" })
}

/// A path that is not there would run this at every build.
fn again_with(path: &str) {
    if Path::new(path).exists() {
        println!("cargo:rerun-if-changed={path}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    // A lock that git would take to remember what it saw could meet that of a person at work.
    let output = Command::new("git").arg("--no-optional-locks").args(arguments).output().ok()?;
    if output.status.success() { String::from_utf8(output.stdout).ok() } else { None }
}
