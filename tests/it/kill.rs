//! `kill -9` at every syscall of a refresh, and disk errors during one: `strace` injects both into the real binary.
//!
//! strace counts the syscalls of each thread by name, so a kill point is a thread (the main one, which does the network I/O, or
//! a blocking one, which does the file I/O), a syscall name and a number. One refresh is traced without a kill first; its
//! syscalls are the kill points. strace is attached once Pixy runs, so that the syscalls of its start are not counted.
#![allow(clippy::print_stdout, reason = "the log reports what was skipped")]

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
    let with_grace = LinkedAccount::new(Duration::from_secs(5)).await.kill_at_all_points().await;
    assert_eq!(with_grace.lost, Vec::<String>::new(), "a login was lost although the server has a grace period");
    LinkedAccount::new(Duration::ZERO).await.kill_at_all_points().await; // each loss is checked against its kill point
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and needs strace and the right to trace: tests/run --long"]
async fn attack_75_a_failing_disk_is_detected_before_the_call() {
    if strace_is_missing() {
        return;
    }
    let account = LinkedAccount::new(Duration::ZERO).await;
    for fault in DISK_FAULTS {
        account.restore();
        let program = account.start_with_two_threads().await;
        let strace =
            Strace::attach(&program, &[Thread::Files(0), Thread::Files(1)], &[&format!("--inject={fault}")]).await;
        program.api(Method::POST, "/api/accounts/a/refresh").await;
        within(async {
            while !program.shown().await["error"].to_string().contains("No refresh was tried") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(account.endpoint.refreshes(), 0, "{fault}: the token was sent");
        assert_eq!(program.get("/a/v1/models").await.status, 200, "{fault}: the old token is no longer used");
        program.kill().await;
        strace.ended().await;
        assert_eq!(
            fs::read(account.record()).unwrap(),
            account.files[&account.record()],
            "{fault}: the record was changed"
        );
    }
}

/// A refresh first probes the disk: it opens a file, writes it and syncs it.
const DISK_FAULTS: &[&str] = &[
    "openat:error=ENOSPC",
    "openat:error=EDQUOT",
    "openat:error=EROFS",
    "write:error=ENOSPC:when=1",
    "fsync:error=EIO",
];

/// The state right after linking: Pixy's files, and the provider's grant.
struct LinkedAccount {
    endpoint: TokenEndpoint,
    upstream: Upstream,
    scratch: Scratch,
    config: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
    rotation: Rotation,
    refresh_token: String,
}

/// The outcomes of all kill points with one kind of server.
#[derive(Debug, Default)]
struct Tally {
    points: usize,
    unharmed: usize,
    old: usize,
    new: usize,
    lost: Vec<String>,
}

impl LinkedAccount {
    async fn new(grace: Duration) -> Self {
        let endpoint = TokenEndpoint::with(Rotation::new(Duration::from_hours(1), grace)).await;
        let upstream = Upstream::start().await;
        // Both accounts are read concurrently at the start, which starts two blocking threads. One of them is always idle when
        // the next file operation comes, so that no thread is started after strace is attached.
        let account = oauth_account(&endpoint, &upstream);
        let pixy = Pixy::start(&json!({ "a": account, "b": account })).await;
        pixy.link(&endpoint).await;
        let (scratch, config) = pixy.dismantle().await;
        let read = |path: PathBuf| path.is_file().then(|| fs::read(&path).map(|bytes| (path, bytes)).unwrap());
        let files = scratch.files().into_iter().filter_map(read).collect();
        let rotation = endpoint.rotation(|rotation| rotation.clone());
        // The token endpoint numbers its tokens in order: access, then refresh.
        let refresh_token = "marked-refresh-0-1".to_owned();
        Self { endpoint, upstream, scratch, config, files, rotation, refresh_token }
    }

    async fn start(&self) -> Program {
        Program::start(&self.scratch, &self.config).await
    }

    /// Starts Pixy with two blocking threads: on a busy machine the first read may end before the second begins, and then there
    /// is one thread. Not after an interrupted refresh, because a start retries it.
    async fn start_with_two_threads(&self) -> Program {
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

    /// Restores the files and the grant to the state right after linking.
    fn restore(&self) {
        for path in self.scratch.files().iter().filter(|path| !self.files.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &self.files {
            fs::write(path, bytes).unwrap();
        }
        self.endpoint.rotation(|rotation| rotation.clone_from(&self.rotation));
    }

    async fn kill_at_all_points(self) -> Tally {
        let mut tally = Tally::default();
        let every = if std::env::var("PIXY_LONG").is_ok_and(|long| long == "1") { 1 } else { SAMPLE };
        for point in self.points().await.into_iter().step_by(every) {
            tally.points += 1;
            self.kill_at(&point, &mut tally).await;
        }
        tally
    }

    /// Every syscall of one uninterrupted refresh.
    async fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for thread in [Thread::Main, Thread::Files(0), Thread::Files(1)] {
            self.restore();
            let log = self.scratch.path("strace.log");
            let mut program = self.start_with_two_threads().await;
            let strace = Strace::attach(&program, &[thread], &["-o", log.to_str().unwrap()]).await;
            assert!(!self.refresh(&mut program).await, "it was killed without an injection");
            program.kill().await;
            strace.ended().await;
            let mut counts = BTreeMap::<String, usize>::new();
            for name in fs::read_to_string(&log).unwrap().lines().filter_map(name_of_call) {
                let nth = counts.entry(name.to_owned()).or_default();
                *nth += 1;
                points.push(Point { thread, name: name.to_owned(), nth: *nth });
            }
        }
        assert!(points.iter().any(|point| point.name == "fsync"), "the traced threads do no file I/O: {points:?}");
        points
    }

    async fn kill_at(&self, point: &Point, tally: &mut Tally) {
        self.restore();
        let before = self.endpoint.refreshes();
        let mut program = self.start_with_two_threads().await;
        let injection = format!("--inject={}:signal=KILL:when={}", point.name, point.nth);
        let strace = Strace::attach(&program, &[point.thread], &[&injection]).await;
        let died = self.refresh(&mut program).await;
        if !died {
            tally.unharmed += 1; // not every run makes every call
        }
        program.kill().await;
        strace.ended().await;
        let spent_before = self.endpoint.refreshes() - before;

        // An interrupted refresh is retried at once; otherwise one is requested below. One call either way.
        let program = self.start().await;
        assert_eq!(program.get("/a/v1/models").await.status, 200, "{point:?}: the access token is no longer used");
        let is_set_aside = |path: &PathBuf| path.to_string_lossy().contains("damaged");
        assert!(!self.scratch.files().iter().any(is_set_aside), "{point:?}: {:?}", self.scratch.files());
        assert!(spent_before <= 1, "{point:?}: one refresh is one call");

        program.api(Method::POST, "/api/accounts/a/refresh").await;
        let shown = self.settled(&program, before + spent_before).await;
        let calls = self.endpoint.calls();
        let calls: Vec<_> =
            calls.iter().filter(|call| call.field("grant_type") == "refresh_token").skip(before).collect();
        // On a slow machine the retry ends before the request below, which then causes another refresh.
        let since = &calls[spent_before..];
        assert!(matches!(since.len(), 1 | 2), "{point:?}: {} calls", since.len());
        let again = since.get(1).is_some_and(|call| call.field("refresh_token") == since[0].field("refresh_token"));
        assert!(!again, "{point:?}: one token was spent twice");
        let (committed, is_old) = (spent_before == 1, calls[spent_before].field("refresh_token") == self.refresh_token);
        assert!(is_old || committed, "{point:?}: the token was never issued");
        if is_old {
            tally.old += 1;
        } else {
            tally.new += 1;
        }
        // The server rotated and the outcome was not durable: without a grace period the login is lost.
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

    /// Requests a refresh and waits until it has ended; `true` if Pixy was killed.
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

/// Where Pixy is killed: at the `nth` syscall `name` of that thread.
#[derive(Debug)]
struct Point {
    thread: Thread,
    name: String,
    nth: usize,
}

#[derive(Debug, Clone, Copy)]
enum Thread {
    Main,
    /// The first or the second blocking thread of tokio.
    Files(usize),
}

/// An attached strace; it ends with the threads that it traces.
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

/// Also `true` for a thread that has ended: the syscall it was waiting in may be the kill point.
fn is_traced(process: u32, thread: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/task/{thread}/status")).unwrap_or_default();
    status.contains("\nState:\tZ") || !status.contains("\nTracerPid:\t0\n")
}

/// `fsync` of `1234 fsync(16) = 0`; `None` for a line that resumes an earlier one.
fn name_of_call(line: &str) -> Option<&str> {
    let (head, _) = line.split_once('(')?;
    let name = head.rsplit(' ').next()?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !line.contains("resumed>")).then_some(name)
}

/// Reports a missing strace, and fails in CI. Root is needed because Pixy is not dumpable: its own user cannot trace it.
fn strace_is_missing() -> bool {
    let missing = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err()
        || !rustix::process::geteuid().is_root();
    if missing {
        println!("skipped: strace is missing, or this is not root");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
    }
    missing
}

/// Without `PIXY_LONG=1`, every nth kill point is tested.
const SAMPLE: usize = 4;
