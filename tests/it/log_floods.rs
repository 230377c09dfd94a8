//! A flood of requests, and a standard error that accepts nothing: neither fills the disk nor stops the service.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::support::{Pixy, Scratch, Upstream, within};

/// Pixy as a process with this standard error, on Unix sockets: their addresses are known without reading what it prints.
struct Fixture {
    _upstream: Upstream,
    scratch: Scratch,
    child: Child,
}

impl Fixture {
    async fn start(stderr: Stdio) -> Self {
        let upstream = Upstream::start().await;
        let accounts =
            json!({ "k": { "provider": "openai-compatible", "profile": { "api": { "base_url": upstream.url() } } } });
        let scratch = Scratch::new();
        let at = |name: &str| json!({ "listen": format!("unix:{}", scratch.path(name).display()) });
        let more = json!({ "agent": at("agent.sock"), "ops": at("ops.sock"), "link": "off" });
        let pixy = Pixy::at(scratch, &accounts, &more).await;
        pixy.post("/api/accounts/k/key", json!({ "key": "a-key-of-the-provider" })).await;
        let (scratch, config) = pixy.dismantle().await;
        let child = Command::new(assert_cmd::cargo::cargo_bin!("pixy"))
            .env_clear()
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let fixture = Self { _upstream: upstream, scratch, child };
        within(async {
            while !ask(&fixture.scratch.path("ops.sock"), "/readyz").await.is_some_and(|text| text.contains("ready\n"))
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        fixture
    }

    async fn serves(&self, path: &str) -> String {
        ask(&self.scratch.path("agent.sock"), path).await.expect("the agents' socket answers")
    }

    /// The slowest answer of `/livez` while `count` requests of a polite agent are served.
    async fn serves_politely(&self, count: usize) -> Duration {
        let mut slowest = Duration::ZERO;
        for number in 0..count {
            let answer = within(self.serves("/k/models")).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("upstream"), "{answer}");
            if number % 50 == 0 {
                let asked = Instant::now();
                let alive = within(ask(&self.scratch.path("ops.sock"), "/livez")).await.unwrap();
                assert!(alive.ends_with("alive\n"), "{alive}");
                slowest = slowest.max(asked.elapsed());
            }
        }
        slowest
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = ask(&self.scratch.path("ops.sock"), "/metrics").await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("it is initialised");
        line.parse().unwrap()
    }

    /// SIGTERM ends it in time.
    async fn stops(mut self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        assert!(ended.expect("a log that blocks does not keep it").unwrap().success());
    }
}

/// One request on a connection of its own; `None` if nothing listens.
async fn ask(socket: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The writing end of a pipe that is full, and the reading end, which keeps it open.
fn full_pipe() -> (OwnedFd, std::io::PipeReader) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap(); // of the file description, which the child shares
    (writer, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_84_a_full_pipe_delays_no_request() {
    let (writer, reader) = full_pipe();
    let fixture = Fixture::start(writer.into()).await;
    let slowest = fixture.serves_politely(1_500).await; // more lines than the buffer holds
    assert!(slowest < Duration::from_secs(1), "/livez took {slowest:?}");
    assert!(fixture.metric("pixy_log_lines_dropped_total").await > 0);
    // Once the pipe is read again, the log says what it lacks.
    let reading = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        lines.find(|line| line.contains("log lines were dropped")).map(|_| lines)
    });
    let lines = within(reading).await.unwrap();
    assert!(lines.is_some());
    fixture.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_84_a_full_pipe_does_not_stop_sigterm() {
    let (writer, reader) = full_pipe();
    let fixture = Fixture::start(writer.into()).await;
    fixture.serves_politely(1).await;
    fixture.stops().await;
    drop(reader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_84_a_full_disk_delays_no_request() {
    let fixture = Fixture::start(File::options().write(true).open("/dev/full").unwrap().into()).await;
    let slowest = fixture.serves_politely(100).await;
    assert!(slowest < Duration::from_secs(1), "/livez took {slowest:?}");
    within(async { while fixture.metric("pixy_log_lines_dropped_total").await < 100 {} }).await;
    fixture.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_84_a_flood_of_refusals_fills_no_log() {
    const REQUESTS: u64 = 2_000;
    let directory = Scratch::new();
    let log = directory.path("log");
    let fixture = Fixture::start(File::create(&log).unwrap().into()).await;
    let began = fs::metadata(&log).unwrap().len();
    let path = format!("/{}", "é%41".repeat(1_300)); // about the 8 KiB that the head may have
    let methods = async {
        for _ in 0..REQUESTS {
            assert!(fixture.serves(&path).await.starts_with("HTTP/1.1 4"));
        }
    };
    tokio::time::timeout(Duration::from_mins(1), methods).await.unwrap();
    // The suppressed lines are counted, and reported within a second.
    let reported = || -> u64 {
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("log lines were suppressed"));
        lines.map(|line| line.split_once(" lines=").unwrap().1.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let suppressed = fixture.metric("pixy_log_lines_suppressed_total").await;
    within(async {
        while reported() < suppressed {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let text = fs::read_to_string(&log).unwrap();
    let refused = text.lines().filter(|line| line.contains(" status=40") || line.contains(" status=41")).count() as u64;
    assert_eq!(refused + suppressed, REQUESTS);
    let written = fs::metadata(&log).unwrap().len() - began;
    assert!(written < 100_000, "{written} bytes for {REQUESTS} requests");
    assert!(text.lines().all(|line| line.len() < 600), "every line is short");
    // Requests that a provider answers are all logged.
    fixture.serves_politely(100).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let served = fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(" status=200 ")).count();
    assert!(served >= 100, "{served}");
    fixture.stops().await;
}
