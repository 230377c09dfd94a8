//! Writes standard error from a thread of its own, so that a full pipe, a stopped terminal or a slow disk delays no request.
//!
//! Lines wait in a buffer of [`BUFFER_BYTES`]. Lines that do not fit, or that cannot be written, are dropped and counted
//! (`pixy_log_lines_dropped_total`). The thread pauses between two writes, so that a busy Pixy shares one write among many
//! lines. A process that is killed loses the lines of that pause.

use std::io::{self, Write as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::lock::lock;
use crate::metrics::LOG_LINES;

/// Writes to standard error without blocking.
#[derive(Clone, Copy)]
pub(super) struct LogWriter;

struct Queue {
    state: Mutex<State>,
    /// Wakes the thread.
    wake: Condvar,
    /// Notified after each write.
    written: Condvar,
}

struct State {
    lines: Vec<u8>,
    /// Lines dropped since the last report.
    dropped: u64,
    /// Lines were suppressed since the last report.
    has_suppressed: bool,
    phase: Phase,
    thread: Thread,
}

/// Of the process.
#[derive(PartialEq, Eq)]
enum Phase {
    /// There is no thread yet.
    Starting,
    Running,
    /// The process is about to end: no pauses.
    Closing,
}

/// What the thread does.
#[derive(PartialEq, Eq)]
enum Thread {
    Pauses,
    /// For `wake`.
    Waits,
    /// Or reports, outside the lock.
    Writes,
}

static QUEUE: Queue = Queue::new();

/// Most bytes that wait.
const BUFFER_BYTES: usize = 128 * 1024;

/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(5);

/// Interval of reports of suppressed and dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for the last lines when the process ends.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Starts the thread, which inherits the restrictions of this one. Lines of before wait for it. `report` logs what was
/// suppressed.
///
/// # Errors
/// The system starts no further thread.
pub(super) fn start_thread(report: fn()) -> io::Result<()> {
    std::thread::Builder::new().name("log".to_owned()).spawn(move || QUEUE.run(report))?;
    lock(&QUEUE.state).phase = Phase::Running;
    std::panic::set_hook(Box::new(|panic| {
        write_text(&format!("Pixy failed, which is a fault of Pixy's; please report it: {panic}\n"));
        finish();
    }));
    Ok(())
}

/// Writes whole lines that are no log lines.
pub(super) fn write_text(lines: &str) {
    QUEUE.push(lines.as_bytes());
}

/// Waits until the lines are written, for a bounded time.
pub(super) fn finish() {
    QUEUE.finish();
}

/// Has the thread report within [`REPORT_INTERVAL`] what was suppressed.
pub(super) fn request_report() {
    let mut state = lock(&QUEUE.state);
    state.has_suppressed = true;
    QUEUE.wake(&mut state);
}

impl Queue {
    const fn new() -> Self {
        let (phase, thread) = (Phase::Starting, Thread::Pauses);
        let state = State { lines: Vec::new(), dropped: 0, has_suppressed: false, phase, thread };
        Self { state: Mutex::new(state), wake: Condvar::new(), written: Condvar::new() }
    }

    fn push(&self, lines: &[u8]) {
        let mut state = lock(&self.state);
        if lines.len() > BUFFER_BYTES.saturating_sub(state.lines.len()) {
            state.count_dropped(lines);
        } else {
            state.lines.extend_from_slice(lines);
        }
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut State) {
        if state.thread == Thread::Waits {
            state.thread = Thread::Pauses;
            self.wake.notify_one();
        }
    }

    fn finish(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Starting {
            let lines = std::mem::take(&mut state.lines);
            let _ = io::stderr().write_all(&lines); // there is no other place to report an error to
            return;
        }
        state.phase = Phase::Closing;
        self.wake(&mut state);
        let pending = |state: &mut State| !state.lines.is_empty() || state.thread == Thread::Writes;
        drop(self.written.wait_timeout_while(state, LAST_LINES, pending));
    }

    fn run(&self, report: fn()) {
        let (mut batch, mut next_report) = (Vec::new(), None);
        loop {
            let is_closing = self.take(&mut batch, next_report);
            let written = write(&batch);
            let (dropped, has_suppressed) = {
                let mut state = lock(&self.state);
                if let Err(rest) = written {
                    state.count_dropped(rest);
                }
                // A report that is lost like the lines before it would say nothing.
                let pending = written.is_ok() && (state.dropped > 0 || state.has_suppressed);
                next_report = pending.then(|| next_report.unwrap_or_else(|| Instant::now() + REPORT_INTERVAL));
                if next_report.is_some_and(|at| is_closing || at <= Instant::now()) {
                    next_report = None;
                    (std::mem::take(&mut state.dropped), std::mem::take(&mut state.has_suppressed))
                } else {
                    (0, false)
                }
            };
            batch.clear();
            if dropped > 0 {
                tracing::warn!(dropped, "log lines were dropped: standard error did not accept them in time");
            }
            if has_suppressed {
                report();
            }
            lock(&self.state).thread = Thread::Pauses;
            self.written.notify_all();
            if !is_closing {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Waits for lines, at most until `end`, and moves them to `batch`. Returns whether the process is about to end.
    fn take(&self, batch: &mut Vec<u8>, end: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        if state.lines.is_empty() {
            state.thread = Thread::Waits;
        }
        let waits = |state: &mut State| state.thread == Thread::Waits;
        let mut state: MutexGuard<'_, State> = match end {
            Some(end) => {
                let time = end.saturating_duration_since(Instant::now());
                let woken = self.wake.wait_timeout_while(state, time, waits);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.wake.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
        };
        std::mem::swap(&mut state.lines, batch);
        state.thread = Thread::Writes;
        state.phase == Phase::Closing
    }
}

impl State {
    fn count_dropped(&mut self, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count() as u64;
        self.dropped = self.dropped.saturating_add(count);
        LOG_LINES.dropped.inc_by(count);
    }
}

/// Writes everything, or returns what was not written.
fn write(mut lines: &[u8]) -> Result<(), &[u8]> {
    let mut stderr = io::stderr();
    while !lines.is_empty() {
        match stderr.write(lines) {
            Ok(0) => return Err(lines),
            Ok(length) => lines = lines.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program made the shared file description non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_) => return Err(lines),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl io::Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // the thread writes as soon as it can
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_buffer_are_dropped_and_counted() {
        let queue = Queue::new();
        queue.push(&vec![b'\n'; BUFFER_BYTES - 1]);
        queue.push(b"a\nb\n");
        queue.push(b"\n");
        queue.push(b"c\n");
        let mut batch = Vec::new();
        assert!(!queue.take(&mut batch, None));
        assert_eq!((batch.len(), lock(&queue.state).dropped), (BUFFER_BYTES, 3));
    }
}
