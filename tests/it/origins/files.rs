//! A configuration file that others may change is refused, at the start, by `check` and at a reload; what is mounted read-only is
//! not.
#![allow(clippy::print_stdout, reason = "what was skipped goes to the log")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::support::{Pixy, Scratch};

/// Any user but root and the test's own.
const STRANGER: u32 = 4242;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Gives the file to another user; `false` where the test does not run as root.
fn give_away(path: &Path) -> bool {
    chown(path, Some(STRANGER), None).is_ok()
}

fn pixy(words: &[&str], config: &Path) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("pixy"))
        .env_clear()
        .arg("--config")
        .arg(config)
        .args(words)
        .output()
        .unwrap()
}

/// Runs `pixy check` in a mount namespace in which `place` is mounted over itself, read-only or not.
fn check_mounted(place: &Path, options: &str, config: &Path) -> Output {
    let script = "mount --bind \"$1\" \"$1\" && mount -o \"remount,bind,$2\" \"$1\" && shift 2 && exec \"$@\"";
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"])
        .args([place.as_os_str(), options.as_ref(), assert_cmd::cargo::cargo_bin!("pixy").as_os_str()])
        .args(["--config".as_ref(), config.as_os_str(), "check".as_ref()])
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap()
}

/// Whether this machine allows mounts in a namespace.
fn can_mount(scratch: &Scratch) -> bool {
    let place = scratch.path("");
    let script = "mount --bind \"$0\" \"$0\"";
    let words = ["--user", "--map-root-user", "--mount", "sh", "-ec", script];
    let is_possible =
        Command::new("unshare").args(words).arg(place).output().is_ok_and(|output| output.status.success());
    if !is_possible {
        println!("skipped: this needs the right to mount in a user namespace");
    }
    is_possible
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn assert_refused(output: &Output, fix: &str) {
    let shown = text(output);
    assert_eq!(output.status.code(), Some(64), "{shown}");
    assert!(shown.contains(fix) && shown.contains("or mount it read-only"), "{fix}: {shown}");
}

#[test]
fn attack_85_a_world_writable_configuration_is_refused() {
    let scratch = Scratch::new();
    let config = scratch.config(&json!({}));
    assert_eq!(pixy(&["check"], &config).status.code(), Some(0));
    set_mode(&config, 0o646);
    let fix = format!("run `chmod o-w {}`", config.display());
    assert_refused(&pixy(&["check"], &config), &fix);
    assert_refused(&pixy(&["serve"], &config), &fix);
    set_mode(&config, 0o664);
    let warned = pixy(&["check"], &config);
    assert_eq!(warned.status.code(), Some(0));
    assert!(text(&warned).contains(&format!("run `chmod g-w {}`", config.display())), "{}", text(&warned));
    set_mode(&config, 0o644);
    if give_away(&config) {
        assert_refused(&pixy(&["check"], &config), "belongs to user 4242");
    }
}

#[test]
fn attack_85_a_directory_that_allows_replacement_is_refused() {
    let scratch = Scratch::new();
    let config = scratch.config(&json!({}));
    let open = scratch.path("open");
    fs::create_dir(&open).unwrap();
    fs::copy(&config, open.join("pixy.yaml")).unwrap();
    // Also on the way of a link, and above the directory of the file.
    fs::create_dir(open.join("below")).unwrap();
    fs::copy(&config, open.join("below/pixy.yaml")).unwrap();
    symlink(open.join("pixy.yaml"), scratch.path("link.yaml")).unwrap();
    let ways = [open.join("pixy.yaml"), open.join("below/pixy.yaml"), scratch.path("link.yaml")];
    set_mode(&open, 0o777);
    for way in &ways {
        assert_refused(&pixy(&["check"], way), &format!("run `chmod o-w {}`", open.display()));
    }
    set_mode(&open, 0o1777); // as /tmp
    for way in &ways {
        assert_eq!(pixy(&["check"], way).status.code(), Some(0), "{}", way.display());
    }
    set_mode(&open, 0o755);
    if give_away(&open) {
        assert_refused(&pixy(&["check"], &ways[0]), "belongs to user 4242");
    }
}

#[tokio::test]
async fn attack_85_a_reload_of_a_world_writable_file_is_refused() {
    let mut running = Pixy::start(&json!({})).await;
    set_mode(&running.scratch.path("pixy.yaml"), 0o666);
    let error = running.reload(&json!({}), &json!({})).await.unwrap_err();
    assert!(error.contains("may be changed by every user (mode 0666)"), "{error}");
    assert!(error.ends_with("the configuration before stays in force"), "{error}");
    set_mode(&running.scratch.path("pixy.yaml"), 0o600);
    running.reload(&json!({}), &json!({})).await.unwrap();
}

/// The layout of a ConfigMap: links into a directory that everybody may write, on a mount that is read-only.
#[test]
fn a_read_only_mount_is_trusted() {
    let scratch = Scratch::new();
    if !can_mount(&scratch) {
        return;
    }
    let written = scratch.config(&json!({}));
    let mount = scratch.path("mount");
    fs::create_dir_all(mount.join("..1")).unwrap();
    fs::copy(&written, mount.join("..1/pixy.yaml")).unwrap();
    symlink("..1", mount.join("..data")).unwrap();
    symlink("..data/pixy.yaml", mount.join("pixy.yaml")).unwrap();
    for open in [&mount, &mount.join("..1")] {
        set_mode(open, 0o777);
    }
    set_mode(&mount.join("..1/pixy.yaml"), 0o666);
    let config = mount.join("pixy.yaml");
    assert_refused(&check_mounted(&mount, "rw", &config), "chmod o-w");
    let trusted = check_mounted(&mount, "ro", &config);
    assert_eq!(trusted.status.code(), Some(0), "{}", text(&trusted));
}

/// Every example that mounts a configuration file, with the options that it writes: the file of another machine's user works.
#[test]
fn the_examples_mount_a_file_that_is_trusted() {
    if !can_mount(&Scratch::new()) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = fs::read_dir(root.join("examples/compose")).unwrap().map(|entry| entry.unwrap().path());
    let files =
        compose.filter(|path| path.extension().is_some_and(|end| end == "yaml")).chain([root.join("README.md")]);
    let mut examples = 0;
    for file in files {
        let example = fs::read_to_string(&file).unwrap();
        for (before, after) in example
            .match_indices(":/etc/pixy/pixy.yaml")
            .map(|(at, mount)| (&example[..at], &example[at + mount.len()..]))
        {
            examples += 1;
            let source = before.rsplit(['"', ' ', '/']).next().unwrap();
            let options = after.strip_prefix(':').map_or("rw", |options| &options[..2]);
            let scratch = Scratch::new();
            let config = scratch.write("pixy.yaml", fs::read(root.join("examples/compose").join(source)).unwrap());
            set_mode(&config, 0o666);
            give_away(&config);
            let checked = check_mounted(&config, options, &config);
            assert!(!text(&checked).contains("mount it read-only"), "{}: {}", file.display(), text(&checked));
            assert!(text(&checked).contains("pixy.yaml"), "it was read: {}", text(&checked));
        }
    }
    assert!(examples >= 4, "{examples}");
}
