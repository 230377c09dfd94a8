//! Measures Pixy during a flood: its memory, and how long a probe and a polite agent wait.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::POLITE_KEY;

/// What one flood did to Pixy.
#[derive(Debug)]
pub(super) struct Figures {
    /// The peak of resident memory (`VmHWM`), in bytes.
    pub(super) peak: usize,
    /// The longest wait of `/livez`.
    pub(super) livez: Duration,
    /// The longest wait of a polite request.
    pub(super) polite: Duration,
    /// Polite requests with a response.
    pub(super) served: usize,
    /// The first failure of either.
    pub(super) failed: Option<String>,
}

/// The longest wait of a probe.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(20);

/// Probes for this long. Blocking: the caller's own tasks must not delay it.
pub(super) fn measure(pid: u32, agents: SocketAddr, ops: SocketAddr, time: Duration) -> Figures {
    // Resets the peak (proc_pid_clear_refs(5)); where that is not allowed, the peak is the one since the start.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    let polite = std::thread::spawn(move || {
        repeat(time, agents, &format!("GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\nx-api-key: {POLITE_KEY}\r\n"))
    });
    let (livez, _, livez_failed) = repeat(time, ops, "GET /livez HTTP/1.1\r\nHost: pixy\r\n");
    let (polite, served, failed) = polite.join().expect("it does not panic");
    Figures { peak: peak(pid), livez, polite, served, failed: failed.or(livez_failed) }
}

/// The longest wait, the number of answers, and the first failure.
fn repeat(time: Duration, address: SocketAddr, head: &str) -> (Duration, usize, Option<String>) {
    let (started, mut longest, mut answered, mut failed) = (Instant::now(), Duration::ZERO, 0, None);
    while started.elapsed() < time {
        let asked = Instant::now();
        match ask(address, head) {
            Ok(()) => answered += 1,
            Err(error) => failed = failed.or(Some(error)),
        }
        longest = longest.max(asked.elapsed());
        std::thread::sleep(PAUSE);
    }
    (longest, answered, failed)
}

fn ask(address: SocketAddr, head: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("answered {answer:?}")) }
}

fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is a Linux process");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
