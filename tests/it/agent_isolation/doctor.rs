//! `pixy doctor --as-agent` with a running Pixy: it finds no fault as the agent's user, and reports each planted fault.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::harness::{AGENT, Harness, PIXY, in_a_namespace, public};
use crate::doctor::DoctorReport;

/// The doctor in a directory where every user may execute it, which is also its home.
struct Doctor {
    directory: TempDir,
}

impl Doctor {
    fn new() -> Self {
        let directory = public();
        fs::copy(assert_cmd::cargo::cargo_bin!("pixy"), directory.path().join("doctor")).unwrap();
        Self { directory }
    }

    fn run(&self, user: u32, base_url: &str) -> DoctorReport {
        let mut command = Command::new("timeout");
        command.arg("50").arg(self.directory.path().join("doctor"));
        command.args(["doctor", "--as-agent", "--json", "--provider", "http://127.0.0.1:1", "--base-url", base_url]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.directory.path()).current_dir("/");
        DoctorReport::parse(&command.uid(user).gid(user).output().unwrap())
    }
}

#[test]
fn the_doctor_finds_no_fault_in_a_sound_setup() {
    in_a_namespace("doctor::the_doctor_finds_no_fault_in_a_sound_setup", async || {
        let (harness, doctor) = (Harness::new().await, Doctor::new());
        let url = format!("http://{}/a", harness.program.agents());
        let found = tokio::task::block_in_place(|| doctor.run(AGENT, &url));
        assert_eq!(found.0["healthy"], true, "{:#}", found.0);
        found.assert("base url", "good", "to the provider and back");
        found.assert("separate users", "good", &format!("Pixy is user {PIXY}, the agent is user {AGENT}"));
        found.assert("process list", "warning", "none of its entries can be opened");
        found.assert("page", "warning", "requires its code");
        found.assert("vault", "good", "");
        found.assert("key", "good", "");
        found.assert("direct way", "good", "");
    });
}

#[test]
fn the_doctor_finds_an_agent_of_the_same_user_or_root() {
    in_a_namespace("doctor::the_doctor_finds_an_agent_of_the_same_user_or_root", async || {
        let (harness, doctor) = (Harness::new().await, Doctor::new());
        let url = format!("http://{}/a", harness.program.agents());
        let found = tokio::task::block_in_place(|| doctor.run(PIXY, &url));
        found.assert("user", "bad", "runs as the agent's own user");
        found.assert("separate users", "bad", "are the same user");
        found.assert("control socket", "bad", "control.sock");
        let found = tokio::task::block_in_place(|| doctor.run(0, &url));
        found.assert("user", "bad", "the agent runs as root");
        found.assert("process list", "bad", "environ");
    });
}

#[test]
fn the_doctor_finds_an_open_pixy_in_a_shared_process_list() {
    in_a_namespace("doctor::the_doctor_finds_an_open_pixy_in_a_shared_process_list", async || {
        let (harness, doctor) = (Harness::new().await, Doctor::new());
        // A process named pixy whose memory is open.
        let program = doctor.directory.path().join("pixy");
        fs::copy("/bin/sleep", &program).unwrap();
        let open =
            KillOnDrop(Command::new(&program).arg("60").stdin(Stdio::null()).uid(AGENT).gid(AGENT).spawn().unwrap());
        let url = format!("http://{}/a", harness.program.agents());
        let found = tokio::task::block_in_place(|| doctor.run(AGENT, &url));
        let id = open.0.id();
        found.assert("process list", "bad", &format!("/proc/{id}: environ"));
        found.assert("user", "bad", &format!("process {id}"));
    });
}

#[test]
fn the_doctor_finds_a_page_that_opens_without_a_code() {
    in_a_namespace("doctor::the_doctor_finds_a_page_that_opens_without_a_code", async || {
        let (harness, doctor) = (Harness::new().await, Doctor::new());
        let _open = OpenPage::at(DEFAULT_PAGE_PORT);
        let found =
            tokio::task::block_in_place(|| doctor.run(AGENT, &format!("http://{}/a", harness.program.agents())));
        found.assert("page", "bad", "without a code");
    });
}

/// A server that sends a page to every request, on the default port of the page.
struct OpenPage;

impl OpenPage {
    fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free in this namespace");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let page = "<title>Pixy</title>";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{page}",
                    page.len()
                );
            }
        });
        Self
    }
}

/// A child process that is killed after the test.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The default port of the page, which an agent would try.
const DEFAULT_PAGE_PORT: u16 = 8701;
