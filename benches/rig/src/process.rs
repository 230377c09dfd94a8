//! CPU time and memory of a peer's processes, from /proc.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// A peer's processes; they are ended on drop.
pub struct Running(Child);

impl Running {
    /// Starts a program with its output in a file.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::options().create(true).append(true).open(log)?;
        let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self(command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?))
    }

    /// Whether the process has not exited.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// CPU time so far, in microseconds: /proc/PID/task/*/schedstat of every process (its first field is nanoseconds on a CPU).
    pub fn cpu(&self) -> f64 {
        let tasks = self.process_tree().into_iter().flat_map(|pid| entries(&format!("/proc/{pid}/task")));
        let spent = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_ascii_whitespace().next()?.parse::<u64>().ok()
        });
        spent.sum::<u64>() as f64 / 1e3
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> f64 {
        let resident = self.process_tree().into_iter().filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        resident.sum::<u64>() as f64
    }

    /// The process and its descendants.
    fn process_tree(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = entries("/proc")
            .filter_map(|process| {
                let pid = process.file_name()?.to_str()?.parse().ok()?;
                let stat = fs::read_to_string(process.join("stat")).ok()?;
                // The name may contain any character, and ends at the last parenthesis.
                let parent = stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
                Some((pid, parent))
            })
            .collect();
        let mut process_tree = vec![self.0.id()];
        let mut next = 0;
        while let Some(&parent) = process_tree.get(next) {
            process_tree.extend(parents.iter().filter(|(_, other)| *other == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        process_tree
    }
}

impl Drop for Running {
    /// Sends SIGTERM, which nginx's master forwards to its workers, and after 3 s SIGKILL.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status();
        let until = Instant::now() + Duration::from_secs(3);
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in self.process_tree() {
            if pid != self.0.id() {
                let _ = Command::new("kill").arg("-KILL").arg(pid.to_string()).stderr(Stdio::null()).status();
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn entries(directory: &str) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}
