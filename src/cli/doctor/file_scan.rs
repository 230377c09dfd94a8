//! Files that the agent must not reach: Pixy's keys, records and control sockets, and logins of other programs.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustix::fs::{Access, access};

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Report, listening_ports};
use crate::secret::Secret;

/// Scans the home directory, the usual directories of Pixy's files, and every mount.
pub(super) async fn check(home: Option<&Path>, more: &[PathBuf], agent_key: Option<&Secret>, report: &mut Report) {
    let mut directories: Vec<PathBuf> = more.iter().cloned().chain(home.map(Path::to_owned)).collect();
    directories.extend(USUAL_DIRECTORIES.iter().map(PathBuf::from));
    directories.extend(mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()));
    let (files, complete) = walk(directories);
    let mut sockets: BTreeSet<PathBuf> = BTreeSet::new();
    let mut scanned = 0;
    for file in files {
        scanned += 1;
        let path = file.path;
        if file.is_socket {
            sockets.extend(path.ends_with(CONTROL_SOCKET).then_some(path));
            continue;
        }
        if path.ends_with("pixy.yaml") && access(&path, Access::WRITE_OK).is_ok() {
            report.bad("configuration", format!("the agent may write Pixy's configuration {}", path.display()));
        }
        let (check, what) = match classify(&path, agent_key) {
            Some(SensitiveFile::Record) => ("vault", "a record of the vault"),
            Some(SensitiveFile::Export) => ("vault", "an export of all logins"),
            Some(SensitiveFile::Key) => ("key", "the vault's key"),
            Some(SensitiveFile::MaybeKey) => {
                report.warn("key", format!("{} looks like a vault's key; check that it is not", path.display()));
                continue;
            }
            None => continue,
        };
        report.bad(check, format!("the agent can read {what}: {}", path.display()));
    }
    sockets.extend(listening_ports::unix_sockets().into_iter().filter(|path| path.ends_with(CONTROL_SOCKET)));
    for socket in sockets {
        // A connection is enough: the socket then checks the user id, which may be Pixy's own.
        if timeout(TIMEOUT, UnixStream::connect(&socket)).await.is_ok_and(|connected| connected.is_ok()) {
            report.bad("control socket", format!("the agent can connect to the control socket {}", socket.display()));
        }
    }
    for login in home.into_iter().flat_map(|home| LOGINS.map(|login| home.join(login))) {
        if File::open(&login).and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.len() > 2) {
            report.bad("other logins", format!("{} may hold a login of its own; sign out there", login.display()));
        }
    }
    let all = if complete { "" } else { " (the first of more)" };
    report.good_by_default("control socket", "no control socket accepts the agent");
    report.good_by_default("vault", format!("no record of the vault is readable: {scanned} files checked{all}"));
    report.good_by_default("key", "no key of the vault is readable");
    report.good_by_default("configuration", "no configuration of Pixy is writable");
    report.good_by_default("other logins", "no client has a login of its own");
}

#[derive(Debug, PartialEq, Eq)]
enum SensitiveFile {
    Record,
    Export,
    Key,
    MaybeKey,
}

struct ScannedFile {
    path: PathBuf,
    is_socket: bool,
}

/// Classifies a file by its content: a copy under another name is as sensitive.
fn classify(path: &Path, agent_key: Option<&Secret>) -> Option<SensitiveFile> {
    let mut head = zeroize::Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut head)).ok()?;
    if head.starts_with(b"PIXYVLT") {
        return Some(SensitiveFile::Record);
    }
    if head.starts_with(b"PIXYEXP") {
        return Some(SensitiveFile::Export);
    }
    let text = std::str::from_utf8(&head).ok()?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
    lines.peek()?;
    if !lines.all(is_key) || agent_key.is_some_and(|key| key.matches(text.trim())) {
        return None;
    }
    let name = path.file_name()?.to_str()?;
    let is_pixys = name == "key"
        || path
            .components()
            .any(|part| part.as_os_str().to_str().is_some_and(|part| part.contains("pixy") || part.contains("vault")));
    Some(if is_pixys { SensitiveFile::Key } else { SensitiveFile::MaybeKey })
}

fn is_key(line: &str) -> bool {
    (43..=44).contains(&line.len()) && BASE64.decode(line).is_ok_and(|key| zeroize::Zeroizing::new(key).len() == 32)
}

/// Files and sockets below these directories, in breadth-first order; false when there are more than [`MAX_FILES`].
fn walk(directories: Vec<PathBuf>) -> (Vec<ScannedFile>, bool) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let mut found = Vec::new();
    let mut waiting: VecDeque<(PathBuf, usize)> = directories.into_iter().map(|directory| (directory, 0)).collect();
    while let Some((path, depth)) = waiting.pop_front() {
        if found.len() >= MAX_FILES {
            return (found, false);
        }
        // A mount can be a single file, and a secret a symbolic link (Kubernetes): the target counts.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !path.canonicalize().is_ok_and(|real| known.insert(real)) {
            continue;
        }
        let kind = metadata.file_type();
        if kind.is_dir() && depth < MAX_DEPTH && !SKIPPED.iter().any(|skipped| path.starts_with(skipped)) {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten().take(MAX_FILES);
            waiting.extend(entries.map(|entry| (entry.path(), depth + 1)));
        } else if kind.is_socket() || kind.is_file() && metadata.len() <= MAX_RECORD_BYTES {
            found.push(ScannedFile { path, is_socket: kind.is_socket() });
        }
    }
    (found, true)
}

/// Every mount point, except the root and the kernel's virtual file systems.
fn mounts(table: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let place = mount.split(' ').nth(4)?.replace("\\040", " ");
        let kind = rest.split(' ').next()?;
        let virtual_kinds =
            ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "bpf", "tracefs", "debugfs"];
        (place != "/" && !virtual_kinds.contains(&kind)).then(|| PathBuf::from(place))
    };
    table.lines().filter_map(mount).collect()
}

const CONTROL_SOCKET: &str = "control.sock";
const USUAL_DIRECTORIES: [&str; 9] = [
    "/run/secrets",
    "/var/run/secrets",
    "/run/pixy",
    "/run/credentials",
    "/etc/pixy",
    "/var/lib/pixy",
    "/var/lib/private/pixy",
    "/root/.config/pixy",
    "/root/.local/state/pixy",
];
const SKIPPED: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Below the home directory: where clients store a login of their own.
const LOGINS: [&str; 6] = [
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".local/share/opencode/auth.json",
    ".gemini/oauth_creds.json",
    ".cache/huggingface/token",
    ".config/gcloud/application_default_credentials.json",
];
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DEPTH: usize = 6;
const MAX_FILES: usize = 20_000;
const MAX_RECORD_BYTES: u64 = 64 << 20;
const MAX_KEY_BYTES: u64 = 4096;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_recognised_by_its_content_and_path() {
        let scratch = tempfile::Builder::new().prefix("elsewhere-").tempdir().unwrap();
        let write = |name: &str, content: &str| {
            fs::write(scratch.path().join(name), content).unwrap();
            scratch.path().join(name)
        };
        let key = crate::vault::new_key();
        let line = format!("# since May\n{}\n", key.expose());
        assert_eq!(classify(&write("pixy-key", &line), None), Some(SensitiveFile::Key));
        assert_eq!(classify(&write("coder", &line), None), Some(SensitiveFile::MaybeKey));
        assert_eq!(classify(&write("coder", key.expose()), Some(&key)), None, "the agent's own");
        assert_eq!(classify(&write("key", "not a key"), None), None);
        assert_eq!(classify(&write("key", "\n"), None), None);
        assert_eq!(classify(&write("a.bak", "PIXYVLT…"), None), Some(SensitiveFile::Record));
    }

    #[test]
    fn mount_points_are_parsed() {
        let table = "22 28 0:21 / /proc rw - proc proc rw\n\
            30 28 8:1 / / rw - ext4 /dev/root rw\n\
            41 30 8:1 /x /run/secrets/pixy\\040key ro - ext4 /dev/root rw\n";
        assert_eq!(mounts(table), [PathBuf::from("/run/secrets/pixy key")]);
    }
}
