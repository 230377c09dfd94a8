//! What the agent's file system holds of Pixy's: keys, records, control sockets, and other programs' logins.

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

use super::Report;
use super::ports;
use crate::secret::Secret;

/// Looks through the home directory, the places where Pixy's files usually are, and everything that is mounted here.
pub(super) async fn look(home: Option<&Path>, more: &[PathBuf], agent_key: Option<&Secret>, report: &mut Report) {
    let mut places: Vec<PathBuf> = more.iter().cloned().chain(home.map(Path::to_owned)).collect();
    places.extend(USUAL.iter().map(PathBuf::from));
    places.extend(mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()));
    let (files, whole) = walk(places);
    let mut sockets: BTreeSet<PathBuf> = BTreeSet::new();
    let mut seen = 0;
    for file in files {
        seen += 1;
        let path = file.path;
        if file.is_socket {
            sockets.extend(path.ends_with(CONTROL).then_some(path));
            continue;
        }
        if path.ends_with("pixy.yaml") && access(&path, Access::WRITE_OK).is_ok() {
            report.bad("configuration", format!("the agent may write Pixy's configuration {}", path.display()));
        }
        match recognise(&path, agent_key) {
            Some(Found::Record) => {
                report.bad("vault", format!("the agent can read a record of the vault: {}", path.display()));
            }
            Some(Found::Export) => {
                report.bad("vault", format!("the agent can read an export of all logins: {}", path.display()));
            }
            Some(Found::Key) => report.bad("key", format!("the agent can read the vault's key: {}", path.display())),
            Some(Found::MaybeKey) => {
                report.warn("key", format!("{} has the shape of a vault's key; see that it is none", path.display()));
            }
            None => {}
        }
    }
    sockets.extend(ports::unix_sockets().into_iter().filter(|path| path.ends_with(CONTROL)));
    for socket in sockets {
        // Being let in is enough: what the socket then asks for is a user id, and this one may be Pixy's.
        if timeout(PATIENCE, UnixStream::connect(&socket)).await.is_ok_and(|connected| connected.is_ok()) {
            report.bad("control socket", format!("the agent can connect to the control socket {}", socket.display()));
        }
    }
    for login in home.into_iter().flat_map(|home| LOGINS.map(|login| home.join(login))) {
        if File::open(&login).and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.len() > 2) {
            report.bad("other logins", format!("{} may hold a login of its own; sign out there", login.display()));
        }
    }
    let all = if whole { "" } else { " (only the first of very many)" };
    report.else_good("control socket", "no control socket lets the agent in");
    report.else_good("vault", format!("no record of the vault is readable: {seen} files looked at{all}"));
    report.else_good("key", "no key of the vault is readable");
    report.else_good("configuration", "no configuration of Pixy's can be written");
    report.else_good("other logins", "no client has a login of its own");
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Record,
    Export,
    Key,
    MaybeKey,
}

struct Seen {
    path: PathBuf,
    is_socket: bool,
}

/// By what it holds: a copy under another name is as good.
fn recognise(path: &Path, agent_key: Option<&Secret>) -> Option<Found> {
    let mut head = zeroize::Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(LONGEST_KEY).read_to_end(&mut head)).ok()?;
    if head.starts_with(b"PIXYVLT") {
        return Some(Found::Record);
    }
    if head.starts_with(b"PIXYEXP") {
        return Some(Found::Export);
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
    Some(if is_pixys { Found::Key } else { Found::MaybeKey })
}

fn is_key(line: &str) -> bool {
    (43..=44).contains(&line.len()) && BASE64.decode(line).is_ok_and(|key| zeroize::Zeroizing::new(key).len() == 32)
}

/// Files and sockets below these directories, nearest first; false when there were more.
fn walk(places: Vec<PathBuf>) -> (Vec<Seen>, bool) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let mut found = Vec::new();
    let mut waiting: VecDeque<(PathBuf, usize)> = places.into_iter().map(|place| (place, 0)).collect();
    while let Some((path, depth)) = waiting.pop_front() {
        if found.len() >= MOST_FILES {
            return (found, false);
        }
        // Where a mount is a single file, and where a secret is a link (Kubernetes), the target counts.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !path.canonicalize().is_ok_and(|real| known.insert(real)) {
            continue;
        }
        let kind = metadata.file_type();
        if kind.is_dir() && depth < DEEPEST && !CLOSED.iter().any(|closed| path.starts_with(closed)) {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten().take(MOST_FILES);
            waiting.extend(entries.map(|entry| (entry.path(), depth + 1)));
        } else if kind.is_socket() || kind.is_file() && metadata.len() <= LONGEST_RECORD {
            found.push(Seen { path, is_socket: kind.is_socket() });
        }
    }
    (found, true)
}

/// Every place where something is mounted, but the root and what the kernel makes up.
fn mounts(table: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let place = mount.split(' ').nth(4)?.replace("\\040", " ");
        let kind = rest.split(' ').next()?;
        let made_up =
            ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "bpf", "tracefs", "debugfs"];
        (place != "/" && !made_up.contains(&kind)).then(|| PathBuf::from(place))
    };
    table.lines().filter_map(mount).collect()
}

const CONTROL: &str = "control.sock";
const USUAL: [&str; 9] = [
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
const CLOSED: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Below the home directory: where clients keep a login of their own.
const LOGINS: [&str; 6] = [
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".local/share/opencode/auth.json",
    ".gemini/oauth_creds.json",
    ".cache/huggingface/token",
    ".config/gcloud/application_default_credentials.json",
];
const PATIENCE: Duration = Duration::from_secs(2);
const DEEPEST: usize = 6;
const MOST_FILES: usize = 20_000;
const LONGEST_RECORD: u64 = 64 << 20;
const LONGEST_KEY: u64 = 4096;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_content_and_called_one_by_its_place() {
        let scratch = tempfile::Builder::new().prefix("elsewhere-").tempdir().unwrap();
        let write = |name: &str, content: &str| {
            fs::write(scratch.path().join(name), content).unwrap();
            scratch.path().join(name)
        };
        let key = crate::vault::new_key();
        let line = format!("# since May\n{}\n", key.expose());
        assert_eq!(recognise(&write("pixy-key", &line), None), Some(Found::Key));
        assert_eq!(recognise(&write("coder", &line), None), Some(Found::MaybeKey));
        assert_eq!(recognise(&write("coder", key.expose()), Some(&key)), None, "the agent's own");
        assert_eq!(recognise(&write("key", "not a key"), None), None);
        assert_eq!(recognise(&write("key", "\n"), None), None);
        assert_eq!(recognise(&write("a.bak", "PIXYVLT…"), None), Some(Found::Record));
    }

    #[test]
    fn mounts_are_read_off_the_kernels_table() {
        let table = "22 28 0:21 / /proc rw - proc proc rw\n\
            30 28 8:1 / / rw - ext4 /dev/root rw\n\
            41 30 8:1 /x /run/secrets/pixy\\040key ro - ext4 /dev/root rw\n";
        assert_eq!(mounts(table), [PathBuf::from("/run/secrets/pixy key")]);
    }
}
