//! `pixy doctor --as-agent` beside a real Pixy: as the agent's user it finds nothing to mend, as another it says what is wrong.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::harness::{AGENT, Harness, PIXY, in_a_namespace, public};
use crate::doctor::DoctorReport;

/// The doctor at a place where every user may start it; its home is there too.
struct Doctor {
    place: TempDir,
}

impl Doctor {
    fn new() -> Self {
        let place = public();
        fs::copy(assert_cmd::cargo::cargo_bin!("pixy"), place.path().join("looker")).unwrap();
        Self { place }
    }

    fn look(&self, user: u32, base_url: &str) -> DoctorReport {
        let mut command = Command::new("timeout");
        command.arg("50").arg(self.place.path().join("looker"));
        command.args(["doctor", "--as-agent", "--json", "--provider", "http://127.0.0.1:1", "--base-url", base_url]);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.place.path()).current_dir("/");
        DoctorReport::parse(&command.uid(user).gid(user).output().unwrap())
    }
}

#[test]
fn the_doctor_finds_nothing_to_mend_where_all_is_well() {
    in_a_namespace("doctor::the_doctor_finds_nothing_to_mend_where_all_is_well", async || {
        let (house, doctor) = (Harness::new().await, Doctor::new());
        let url = format!("http://{}/a", house.program.agents());
        let found = tokio::task::block_in_place(|| doctor.look(AGENT, &url));
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
fn the_doctor_finds_an_agent_of_pixys_own_user_and_one_of_root() {
    in_a_namespace("doctor::the_doctor_finds_an_agent_of_pixys_own_user_and_one_of_root", async || {
        let (house, doctor) = (Harness::new().await, Doctor::new());
        let url = format!("http://{}/a", house.program.agents());
        let found = tokio::task::block_in_place(|| doctor.look(PIXY, &url));
        found.assert("user", "bad", "runs as the agent's own user");
        found.assert("separate users", "bad", "are the same user");
        found.assert("control socket", "bad", "control.sock");
        let found = tokio::task::block_in_place(|| doctor.look(0, &url));
        found.assert("user", "bad", "the agent runs as root");
        found.assert("process list", "bad", "environ");
    });
}

#[test]
fn the_doctor_finds_a_shared_process_list_in_which_pixy_is_open() {
    in_a_namespace("doctor::the_doctor_finds_a_shared_process_list_in_which_pixy_is_open", async || {
        let (house, doctor) = (Harness::new().await, Doctor::new());
        // A Pixy that has not closed its memory: any program of its name will do.
        let program = doctor.place.path().join("pixy");
        fs::copy("/bin/sleep", &program).unwrap();
        let open = Ended(Command::new(&program).arg("60").stdin(Stdio::null()).uid(AGENT).gid(AGENT).spawn().unwrap());
        let url = format!("http://{}/a", house.program.agents());
        let found = tokio::task::block_in_place(|| doctor.look(AGENT, &url));
        let id = open.0.id();
        found.assert("process list", "bad", &format!("/proc/{id}: environ"));
        found.assert("user", "bad", &format!("process {id}"));
    });
}

#[test]
fn the_doctor_finds_a_page_that_opens_without_a_code() {
    in_a_namespace("doctor::the_doctor_finds_a_page_that_opens_without_a_code", async || {
        let (house, doctor) = (Harness::new().await, Doctor::new());
        let _open = OpenPage::at(USUAL_PAGE);
        let found = tokio::task::block_in_place(|| doctor.look(AGENT, &format!("http://{}/a", house.program.agents())));
        found.assert("page", "bad", "without a code");
    });
}

/// What every request gets a page from, on the port where the doctor looks in any case; it ends with its process.
struct OpenPage;

impl OpenPage {
    fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("this namespace is the test's own");
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

/// A child that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fixed, because it is the one that an agent would try; in a namespace of the test's own.
const USUAL_PAGE: u16 = 8701;
