//! Who answers on the control socket: the command line says nothing to another user's.
#![allow(clippy::print_stdout, reason = "what was skipped goes to the log; a child process answers by it")]

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::Scratch;

const SQUATTER: u32 = 64_711;
const PERSON: u32 = 64_712;
const OTHER: u32 = 64_713;

#[test]
fn attack_91_nothing_is_said_to_the_socket_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can run programs as other users");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return;
    }
    let stage = Stage::new();
    // (the socket's user, the owner of `state_dir`, the caller, whether it is asked)
    for (answers, owner, caller, is_asked) in [
        (SQUATTER, SQUATTER, PERSON, false),
        (SQUATTER, PERSON, PERSON, false),
        (SQUATTER, OTHER, 0, false),
        (PERSON, OTHER, PERSON, true),
        (SQUATTER, SQUATTER, 0, true), // root runs the command for the Pixy of another user
    ] {
        chown(stage.scratch.path("state"), Some(owner), Some(owner)).unwrap();
        let squatter = stage.squat(answers);
        let output = stage.link(caller);
        let heard = heard(squatter);
        let what = format!("{answers} {owner} {caller}: {output:?}");
        assert_eq!(!heard.is_empty(), is_asked, "{what}: {heard:?}");
        assert_ne!(output.status.code(), Some(0), "{what}");
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(says.contains(&format!("user id {answers} answers on the control socket")), !is_asked, "{what}");
        assert_eq!(says.contains("nothing was sent"), !is_asked, "{what}");
    }
}

/// The entry point of a process that listens as another user: it prints what it gets from one client.
#[test]
#[ignore = "started by the test of this file, as another user"]
fn the_squatter() {
    let Ok(path) = std::env::var("PIXY_SQUAT") else { return };
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    println!("listening");
    let (mut client, _) = listener.accept().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut heard = [0; 4096];
    let length = client.read(&mut heard).unwrap_or_default();
    println!("heard {}", String::from_utf8_lossy(&heard[..length]).lines().next().unwrap_or_default());
}

struct Stage {
    scratch: Scratch,
    pixy: PathBuf,
    squatter: PathBuf,
    config: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let scratch = Scratch::new();
        let publish = |program: &Path, name: &str| {
            let path = scratch.path(name);
            if fs::hard_link(program, &path).is_err() {
                fs::copy(program, &path).unwrap();
            }
            path
        };
        let pixy = publish(assert_cmd::cargo::cargo_bin!("pixy"), "pixy");
        let squatter = publish(&std::env::current_exe().unwrap(), "squatter");
        let config = scratch.config(&json!({ "a": { "provider": "openrouter" } }));
        fs::set_permissions(scratch.path(""), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(scratch.path("state")).unwrap();
        fs::set_permissions(scratch.path("state"), Permissions::from_mode(0o777)).unwrap();
        Self { scratch, pixy, squatter, config }
    }

    fn squat(&self, user: u32) -> Child {
        let _ = fs::remove_file(self.scratch.path("state/control.sock"));
        let mut child = Command::new("timeout")
            .arg("20")
            .arg(&self.squatter)
            .args(["--exact", "control_socket::the_squatter", "--ignored", "--nocapture"])
            .env("PIXY_SQUAT", self.scratch.path("state/control.sock"))
            .current_dir("/")
            .uid(user)
            .gid(user)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        child
    }

    fn link(&self, user: u32) -> Output {
        let mut command = Command::new("timeout");
        command.arg("20").arg(&self.pixy).arg("--config").arg(&self.config).args(["link", "a"]);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/").stdin(Stdio::null());
        command.uid(user).gid(user).output().unwrap()
    }
}

/// What the squatter got; empty if its client sent nothing.
fn heard(mut squatter: Child) -> String {
    let mut rest = String::new();
    squatter.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    squatter.wait().unwrap();
    let heard = rest.lines().find_map(|line| line.strip_prefix("heard")).expect("a client connected");
    heard.trim().to_owned()
}
