//! `kill -9` at every syscall of a refresh, and a disk that fails at the worst moment: `strace` does both to the real binary.
//!
//! strace counts the calls of each thread by their names, so a point of death is a thread (the main one, which has the network,
//! or the one that has the files), a name and a number. One refresh without a death is written down first; its calls are the
//! points. strace is attached once Pixy runs, so that its start uses up no numbers.
#![allow(clippy::print_stdout, reason = "what was skipped, and how the deaths ended, is for the reader of the log")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{Pixy, Program, Rotation, Scratch, TokenEndpoint, Upstream, oauth_account, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and needs strace and the right to trace: tests/run --long"]
async fn attack_73_killed_at_any_syscall_a_login_is_old_or_new() {
    if strace_is_missing() {
        return;
    }
    let with_grace = House::new(Duration::from_secs(5)).await.killed_everywhere().await;
    assert_eq!(with_grace.lost, Vec::<String>::new(), "a server with grace forgives");
    House::new(Duration::ZERO).await.killed_everywhere().await; // it judges each loss by where the kill fell
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and needs strace and the right to trace: tests/run --long"]
async fn attack_75_a_failing_disk_is_detected_before_the_call() {
    if strace_is_missing() {
        return;
    }
    let house = House::new(Duration::ZERO).await;
    for fault in DISK_FAULTS {
        house.restore();
        let program = house.start_with_both().await;
        let strace =
            Strace::attach(&program, &[Thread::Files(0), Thread::Files(1)], &[&format!("--inject={fault}")]).await;
        program.api(Method::POST, "/api/accounts/a/refresh").await;
        within(async {
            while !program.shown().await["error"].to_string().contains("No refresh was tried") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(house.endpoint.refreshes(), 0, "{fault}: the token was sent");
        assert_eq!(program.get("/a/v1/models").await.status, 200, "{fault}: the old token serves on");
        program.kill().await;
        strace.ended().await;
        assert_eq!(fs::read(house.record()).unwrap(), house.files[&house.record()], "{fault}: the record was touched");
    }
}

/// The first thing that a refresh asks of the disk is the probe: to open a file, to write it, to sync it.
const DISK_FAULTS: &[&str] = &[
    "openat:error=ENOSPC",
    "openat:error=EDQUOT",
    "openat:error=EROFS",
    "write:error=ENOSPC:when=1",
    "fsync:error=EIO",
];

/// A login as it was linked: its files, and what its provider thinks of it.
struct House {
    endpoint: TokenEndpoint,
    upstream: Upstream,
    scratch: Scratch,
    config: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    rotation: Rotation,
    refresh_token: String,
}

/// How the deaths of one kind of server ended.
#[derive(Debug, Default)]
struct Tally {
    points: usize,
    unharmed: usize,
    old: usize,
    new: usize,
    lost: Vec<String>,
}

impl House {
    async fn new(grace: Duration) -> Self {
        let endpoint = TokenEndpoint::with(Rotation::new(Duration::from_hours(1), grace)).await;
        let upstream = Upstream::start().await;
        // Both are read at the start, at the same time: that makes two threads for files, and one of them is always idle when
        // the next work comes, so that none is made after strace has looked.
        let account = oauth_account(&endpoint, &upstream);
        let pixy = Pixy::start(&json!({ "a": account, "b": account })).await;
        pixy.link(&endpoint).await;
        let (scratch, config) = pixy.dismantle().await;
        let read = |path: PathBuf| path.is_file().then(|| fs::read(&path).map(|bytes| (path, bytes)).unwrap());
        let files = scratch.files().into_iter().filter_map(read).collect();
        let rotation = endpoint.rotation(|rotation| rotation.clone());
        // The model names its tokens in order: access, then refresh.
        let refresh_token = "marked-refresh-0-1".to_owned();
        Self { endpoint, upstream, scratch, config, files, rotation, refresh_token }
    }

    async fn start(&self) -> Program {
        Program::start(&self.scratch, &self.config).await
    }

    /// With both threads for files: on a busy machine the first read may be over before the second begins, and then there is
    /// one. Only with nothing interrupted, for a start takes that up.
    async fn start_with_both(&self) -> Program {
        for _ in 0..20 {
            let program = self.start().await;
            if program.workers().len() == 2 {
                return program;
            }
            program.kill().await;
        }
        panic!("two reads never overlap")
    }

    fn record(&self) -> PathBuf {
        self.scratch.path("vault").join("a.record")
    }

    /// Everything is as it was right after linking.
    fn restore(&self) {
        for path in self.scratch.files().iter().filter(|path| !self.files.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &self.files {
            fs::write(path, bytes).unwrap();
        }
        self.endpoint.rotation(|rotation| rotation.clone_from(&self.rotation));
    }

    async fn killed_everywhere(self) -> Tally {
        let mut tally = Tally::default();
        let every = if std::env::var("PIXY_LONG").is_ok_and(|long| long == "1") { 1 } else { SAMPLE };
        for point in self.points().await.into_iter().step_by(every) {
            tally.points += 1;
            self.killed_at(&point, &mut tally).await;
        }
        tally
    }

    /// Every syscall of one refresh that nothing disturbs.
    async fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for thread in [Thread::Main, Thread::Files(0), Thread::Files(1)] {
            self.restore();
            let log = self.scratch.path("strace.log");
            let mut program = self.start_with_both().await;
            let strace = Strace::attach(&program, &[thread], &["-o", log.to_str().unwrap()]).await;
            assert!(!self.refresh(&mut program).await, "nothing kills it here");
            program.kill().await;
            strace.ended().await;
            let mut counts = BTreeMap::<String, usize>::new();
            for name in fs::read_to_string(&log).unwrap().lines().filter_map(name_of_call) {
                let nth = counts.entry(name.to_owned()).or_default();
                *nth += 1;
                points.push(Point { thread, name: name.to_owned(), nth: *nth });
            }
        }
        assert!(
            points.iter().any(|point| point.name == "fsync"),
            "the thread with the files is the one traced: {points:?}"
        );
        points
    }

    async fn killed_at(&self, point: &Point, tally: &mut Tally) {
        self.restore();
        let before = self.endpoint.refreshes();
        let mut program = self.start_with_both().await;
        let injection = format!("--inject={}:signal=KILL:when={}", point.name, point.nth);
        let strace = Strace::attach(&program, &[point.thread], &[&injection]).await;
        let died = self.refresh(&mut program).await;
        if !died {
            tally.unharmed += 1; // not every run makes every call
        }
        program.kill().await;
        strace.ended().await;
        let spent_before = self.endpoint.refreshes() - before;

        // What was interrupted is taken up at once; otherwise it is asked for below. One call either way.
        let program = self.start().await;
        assert_eq!(program.get("/a/v1/models").await.status, 200, "{point:?}: the access token still lives");
        let strange = |path: &PathBuf| path.to_string_lossy().contains("damaged");
        assert!(!self.scratch.files().iter().any(strange), "{point:?}: {:?}", self.scratch.files());
        assert!(spent_before <= 1, "{point:?}: one refresh is one call");

        program.api(Method::POST, "/api/accounts/a/refresh").await;
        let shown = self.settled(&program, before + spent_before).await;
        let calls = self.endpoint.calls();
        let calls: Vec<_> =
            calls.iter().filter(|call| call.field("grant_type") == "refresh_token").skip(before).collect();
        // On a slow machine what was interrupted is over before the asking, which then means the next one.
        let since = &calls[spent_before..];
        assert!(matches!(since.len(), 1 | 2), "{point:?}: {} calls", since.len());
        let again = since.get(1).is_some_and(|call| call.field("refresh_token") == since[0].field("refresh_token"));
        assert!(!again, "{point:?}: one token, spent twice");
        let (committed, is_old) = (spent_before == 1, calls[spent_before].field("refresh_token") == self.refresh_token);
        assert!(is_old || committed, "{point:?}: the token came from nowhere");
        if is_old {
            tally.old += 1;
        } else {
            tally.new += 1;
        }
        // The server has rotated and the outcome was not durable: without grace, nobody can save that login.
        if committed && is_old && self.rotation.grace.is_zero() {
            tally.lost.push(format!("{point:?}"));
            assert_eq!(shown["state"], "relink_required", "{point:?}: {shown:#}");
            assert!(shown["error"].to_string().contains("was interrupted"), "{point:?}: {shown:#}");
        } else {
            assert_eq!(shown["state"], "linked", "{point:?}: {shown:#}");
            assert_eq!(program.get("/a/v1/models").await.status, 200, "{point:?}");
            let seen = self.upstream.requests().last().unwrap().header("authorization")[0].to_owned();
            let newest = seen.strip_prefix("Bearer ").unwrap();
            assert!(self.endpoint.lets_in(newest), "{point:?}: {newest}");
        }
        program.kill().await;
    }

    /// Asks for a refresh and waits until it is over; `true` when Pixy died of it.
    async fn refresh(&self, program: &mut Program) -> bool {
        program.api(Method::POST, "/api/accounts/a/refresh").await;
        let marks = self.scratch.path("state").join("high-water.json");
        within(async {
            // Linking wrote generation 1, the intent is 2, the outcome 3.
            while !program.has_ended() {
                if fs::read_to_string(&marks).unwrap().contains("\"a\": 3") {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return program.has_ended();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            true
        })
        .await
    }

    /// The account once the outcome of another refresh is known.
    async fn settled(&self, program: &Program, refreshes: usize) -> Value {
        within(async {
            loop {
                let answered = self.endpoint.refreshes() > refreshes;
                let shown = program.shown().await;
                if answered && shown["state"] != "refreshing" {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

/// Where Pixy dies: at the `nth` call of that name by that thread.
#[derive(Debug)]
struct Point {
    thread: Thread,
    name: String,
    nth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Thread {
    Main,
    /// The first or the second of those that tokio keeps for blocking work.
    Files(usize),
}

/// A strace that is attached; it ends with the thread that it watches.
struct Strace(Child);

impl Strace {
    async fn attach(program: &Program, threads: &[Thread], arguments: &[&str]) -> Self {
        let workers = program.workers();
        let id = |thread: &Thread| match *thread {
            Thread::Main => program.id(),
            Thread::Files(nth) => workers[nth],
        };
        let threads: Vec<u32> = threads.iter().map(id).collect();
        let mut command = Command::new("strace");
        command.args(arguments).args(threads.iter().map(|thread| format!("--attach={thread}")));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        within(async {
            while !threads.iter().all(|&thread| is_traced(program.id(), thread)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        Self(child)
    }

    async fn ended(mut self) {
        within(self.0.wait()).await.expect("it is our child");
    }
}

/// Also when it is no more: the call that it was waiting in may be the one that it dies at.
fn is_traced(process: u32, thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).unwrap_or_default();
    status.contains("\nState:\tZ") || !status.contains("\nTracerPid:\t0\n")
}

/// `fsync` of `1234 fsync(16) = 0`; nothing of a line that only goes on with an earlier one.
fn name_of_call(line: &str) -> Option<&str> {
    let (head, _) = line.split_once('(')?;
    let name = head.rsplit(' ').next()?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !line.contains("resumed>")).then_some(name)
}

/// Says so; where nothing may be skipped, fails. Pixy closes its memory to programs of its own user, strace among them.
fn strace_is_missing() -> bool {
    let missing = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err()
        || !rustix::process::geteuid().is_root();
    if missing {
        println!("skipped: strace is missing, or this is not root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    missing
}

/// Without `PIXY_LONG=1`, one point in so many.
const SAMPLE: usize = 4;
