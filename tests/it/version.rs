//! `pixy --version` names the commit. `build.rs` is compiled and run here, in repositories that the test makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::Scratch;

/// The build script as a program.
fn script(scratch: &Scratch) -> PathBuf {
    let program = scratch.path("script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let rustc = option_env!("RUSTC").unwrap_or("rustc");
    let status = Command::new(rustc).args(["--edition", "2024", "-o"]).arg(&program).arg(source).status().unwrap();
    assert!(status.success());
    program
}

/// Runs the script: the version that it sets, and the paths for which cargo runs it again.
fn run_script(script: &Path, directory: &Path, profile: &str, commit: Option<&str>) -> (String, Vec<String>) {
    let mut command = Command::new(script);
    command.current_dir(directory).env("PROFILE", profile).env("CARGO_PKG_VERSION", "1.2.3").env_remove("PIXY_COMMIT");
    command.envs(commit.map(|commit| ("PIXY_COMMIT", commit)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "it never fails a build");
    let text = String::from_utf8(output.stdout).unwrap();
    let values = |key: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect()
    };
    let again = values("cargo:rerun-if-changed=");
    for path in &again {
        assert!(directory.join(path).exists() || path == "build.rs", "{path}: cargo would rebuild every time");
    }
    (values("cargo:rustc-env=PIXY_VERSION=").pop().unwrap(), again)
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(directory).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_release_names_its_commit_and_local_changes() {
    let scratch = Scratch::new();
    let script = script(&scratch);
    let tree = scratch.path("tree");
    std::fs::create_dir_all(tree.join("src")).unwrap();
    std::fs::write(tree.join("src/lib.rs"), "// one\n").unwrap();
    let version = |directory: &Path, profile, commit| run_script(&script, directory, profile, commit).0;
    assert_eq!(version(&tree, "release", None), "1.2.3", "a tarball");
    git(&tree, &["init", "--quiet", "--initial-branch=main"]);
    assert_eq!(version(&tree, "release", None), "1.2.3", "no commit yet");
    git(&tree, &["add", "."]);
    git(&tree, &["commit", "--quiet", "-m", "one"]);
    let commit = git(&tree, &["rev-parse", "HEAD"])[..12].to_owned();
    let clean = format!("1.2.3 ({commit})");
    let (version_text, again) = run_script(&script, &tree, "release", None);
    assert_eq!(version_text, clean);
    for path in [".git/HEAD", ".git/refs/heads", "src"] {
        assert!(again.iter().any(|known| known == path), "{path} is not in {again:?}");
    }
    assert_eq!(version(&tree, "debug", None), "1.2.3", "a development build has no commit");
    std::fs::write(tree.join("notes.txt"), "").unwrap();
    assert_eq!(version(&tree, "release", None), clean, "not a source of the program");
    std::fs::write(tree.join("src/lib.rs"), "// two\n").unwrap();
    assert_eq!(version(&tree, "release", None), format!("1.2.3 ({commit}-dirty)"));
    git(&tree, &["checkout", "--quiet", "src/lib.rs"]);
    git(&tree, &["pack-refs", "--all"]);
    let (version_text, again) = run_script(&script, &tree, "release", None);
    assert_eq!(version_text, clean);
    assert!(again.iter().any(|known| known == ".git/packed-refs"), "{again:?}");
    let second = scratch.path("second");
    git(&tree, &["worktree", "add", "--quiet", "--detach", second.to_str().unwrap()]);
    assert_eq!(version(&second, "release", None), clean, "a work tree, whose .git is a file");
    let inner = tree.join("unpacked");
    std::fs::create_dir(&inner).unwrap();
    assert_eq!(version(&inner, "release", None), "1.2.3", "inside another repository");
}

#[test]
fn pixy_commit_overrides_the_repository() {
    let scratch = Scratch::new();
    let script = script(&scratch);
    let directory = scratch.path("");
    for (given, version) in [
        ("0123456789ABCDEF0123456789abcdef01234567", "1.2.3 (0123456789ab)"),
        ("0123456-dirty\n", "1.2.3 (0123456-dirty)"),
        ("unknown", "1.2.3"),
        ("", "1.2.3"),
        ("012345", "1.2.3"),
        ("0123456789ab\ncargo:rustc-env=X=1", "1.2.3"),
    ] {
        for profile in ["debug", "release"] {
            assert_eq!(run_script(&script, &directory, profile, Some(given)).0, version, "{given:?}");
        }
    }
}

#[test]
fn the_program_prints_the_version_of_the_manifest() {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("pixy")).arg("--version").env_clear().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rest =
        text.trim_end().strip_prefix(concat!("pixy ", env!("CARGO_PKG_VERSION"))).unwrap_or_else(|| panic!("{text}"));
    assert!(rest.is_empty() || (rest.starts_with(" (") && rest.ends_with(')')), "{text}");
}
