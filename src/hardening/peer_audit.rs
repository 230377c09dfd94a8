//! Warns of peers from which the process cannot protect itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Seek as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;
use crate::metrics::Metrics;
use crate::server::Peer;

/// Checks whether an agent runs as the same user as Pixy, or as root, and warns once.
///
/// A Unix socket reports the peer's user. For TCP over loopback the kernel's socket tables do (Linux); they are read at most
/// once a minute, because a long table takes milliseconds, and before the request is served, because the agent may hang up.
pub struct PeerAudit {
    own: u32,
    /// The tables of TCP over IPv4 and IPv6, held open because Landlock forbids opening them later.
    tables: Mutex<Vec<File>>,
    next_check: Mutex<Option<Instant>>,
    reported: AtomicBool,
}

impl PeerAudit {
    /// Opens the kernel's tables. Call it before [`super::Hardening::confine`].
    pub fn open() -> Self {
        Self {
            own: rustix::process::geteuid().as_raw(),
            tables: Mutex::new(TABLES.iter().filter_map(|path| File::open(path).ok()).collect()),
            next_check: Mutex::new(None),
            reported: AtomicBool::new(false),
        }
    }

    /// Checks the peer of an agent's request. Each request is a chance, so that a long connection is checked in the end.
    pub async fn check(self: &Arc<Self>, peer: Peer, metrics: &Arc<Metrics>) {
        if self.reported.load(Ordering::Relaxed) {
            return;
        }
        match (peer.uid, peer.address) {
            (Some(uid), _) => self.report_if_privileged(uid, metrics),
            (None, Some(address)) if address.ip().to_canonical().is_loopback() && self.is_due() => {
                let (audit, metrics) = (Arc::clone(self), Arc::clone(metrics));
                let checked = tokio::task::spawn_blocking(move || {
                    if let Some(uid) = audit.owner(address) {
                        audit.report_if_privileged(uid, &metrics);
                    }
                });
                let _ = checked.await; // best effort
            }
            _ => {}
        }
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut next = lock(&self.next_check);
        let due = next.is_none_or(|next| next <= now);
        if due {
            *next = Some(now + PAUSE);
        }
        due
    }

    fn report_if_privileged(&self, uid: u32, metrics: &Metrics) {
        if uid != self.own && uid != 0 || self.reported.swap(true, Ordering::Relaxed) {
            return;
        }
        metrics.set_agent_same_uid();
        if uid == self.own {
            tracing::warn!(
                uid,
                "an agent runs as the same user as Pixy: it can read the vault and its key. Run it as another user"
            );
        } else {
            tracing::warn!("an agent runs as root: it can read the vault and its key. Run it as another user");
        }
    }

    /// The user whose socket has this local address.
    fn owner(&self, address: SocketAddr) -> Option<u32> {
        let mut tables = lock(&self.tables);
        tables.iter_mut().find_map(|table| {
            table.rewind().ok()?;
            owner_in(BufReader::new(table.take(LONGEST_TABLE)), address) // read in pieces, because it may be megabytes
        })
    }
}

/// Finds a socket by its local address in a table of the kernel: `sl local remote state queues timer retransmits uid timeout
/// inode …` (proc(5)). A socket without an inode has no owner any more, and its uid means nothing.
fn owner_in(table: impl BufRead, address: SocketAddr) -> Option<u32> {
    let kernel_notation = |octets: &[u8]| kernel_notation(octets, address.port());
    let local = match address.ip().to_canonical() {
        // A program that speaks both versions has an IPv6 socket for an IPv4 peer.
        IpAddr::V4(v4) => vec![kernel_notation(&v4.octets()), kernel_notation(&v4.to_ipv6_mapped().octets())],
        IpAddr::V6(v6) => vec![kernel_notation(&v6.octets())],
    };
    table.lines().map_while(Result::ok).skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let &[_, here, _, _, _, _, _, uid, _, inode] = fields.as_slice() else { return None };
        (inode != "0" && local.iter().any(|local| local == here)).then(|| uid.parse().ok())?
    })
}

/// An address as the kernel writes it: words of 32 bits in the machine's byte order.
fn kernel_notation(octets: &[u8], port: u16) -> String {
    let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let words: Vec<String> = words.map(|word| format!("{word:08X}")).collect();
    format!("{}:{port:04X}", words.concat())
}

/// A warning when Pixy shares the process list of a container with programs other than those that started it.
pub(super) fn shared_process_list() -> Option<String> {
    let own = std::process::id();
    if own == 1 || !in_a_container() {
        return None;
    }
    let others = others(own, &processes());
    (others > 0).then(|| {
        format!(
            "{others} other programs are in Pixy's process list (one container for all, or a pod with \
             shareProcessNamespace). Run Pixy in a container of its own."
        )
    })
}

/// Every visible process with its parent, without kernel threads and zombies.
fn processes() -> BTreeMap<u32, u32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().take(MOST_PROCESSES);
    let process = |id: u32| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
        let runs = fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty());
        runs.then_some((id, parent))
    };
    listed.filter_map(|entry| process(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// How many processes are neither `own` nor an ancestor of it.
fn others(own: u32, processes: &BTreeMap<u32, u32>) -> usize {
    let ancestors: Vec<u32> =
        std::iter::successors(Some(own), |id| processes.get(id).copied()).take(MOST_PROCESSES).collect();
    processes.keys().filter(|id| !ancestors.contains(id)).count()
}

fn in_a_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv", "/run/secrets/kubernetes.io"];
    let groups = || fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    marks.iter().any(|mark| Path::new(mark).exists())
        || ["docker", "kubepods", "containerd", "libpod", "lxc"].iter().any(|word| groups().contains(word))
        || mounts().lines().any(|line| line.contains(" / / ") && line.contains(" - overlay "))
}

const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
const PAUSE: Duration = Duration::from_mins(1);
/// In bytes: about 27,000 sockets.
const LONGEST_TABLE: u64 = 4 * 1024 * 1024;
const MOST_PROCESSES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_owner_of_a_tcp_peer_is_found() {
        let audit = PeerAudit::open();
        let Ok(listener) = std::net::TcpListener::bind("127.0.0.1:0") else { panic!("loopback is available") };
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = client.local_addr().unwrap();
        assert_eq!(audit.owner(address), Some(rustix::process::geteuid().as_raw()));
        drop((client, listener));
        assert_eq!(audit.owner(address), None, "the table is read again");
    }

    #[tokio::test]
    async fn attack_06_an_agent_of_the_same_user_or_root_is_counted() {
        let counted = async |uid| {
            let (audit, metrics) = (Arc::new(PeerAudit { own: 1000, ..PeerAudit::open() }), Arc::default());
            audit.check(Peer { uid: Some(uid), address: None }, &metrics).await;
            metrics.encode().contains("\npixy_agent_same_uid 1\n")
        };
        assert!(counted(1000).await && counted(0).await);
        assert!(!counted(1001).await);
    }

    #[tokio::test(start_paused = true)]
    async fn tables_are_read_once_a_minute() {
        let audit = PeerAudit::open();
        assert!(audit.is_due() && !audit.is_due());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(!audit.is_due());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(audit.is_due());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_socket_is_found_by_its_local_address_alone() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:21FC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 20 4 30 10 -1\n\
            1: 0100007F:9C40 0100007F:21FC 01 00000000:00000000 00:00000000 00000000  1001        0 222 1 0 20 4 30 10 -1\n\
            2: 0100007F:9C41 0100007F:21FC 06 00000000:00000000 03:00000000 00000000     0        0 0 1 0 20 4 30 10 -1\n\
            3: 0000000000000000FFFF00000100007F:9C42 0100007F:21FC 01 0:0 0:0 0  1003        0 333 1\n\
            4: 00000000000000000000000001000000:9C43 0100007F:21FC 01 0:0 0:0 0  1004        0 444 1\n";
        let owner = |text: &str| owner_in(table.as_bytes(), text.parse().unwrap());
        assert_eq!(owner("127.0.0.1:40000"), Some(1001));
        assert_eq!(owner("[::ffff:127.0.0.1]:40000"), Some(1001));
        assert_eq!(owner("127.0.0.1:40001"), None, "closed");
        assert_eq!(owner("127.0.0.1:40002"), Some(1003), "an IPv6 socket with an IPv4 peer");
        assert_eq!(owner("[::1]:40003"), Some(1004));
        assert_eq!(owner("127.0.0.1:40003"), None);
    }

    #[test]
    fn ancestors_of_pixy_are_not_counted_as_others() {
        let processes = BTreeMap::from([(1, 0), (5, 1), (7, 5)]);
        assert_eq!(others(7, &processes), 0, "an init and a shell");
        let processes = BTreeMap::from([(1, 0), (5, 1), (7, 1), (8, 5)]);
        assert_eq!(others(7, &processes), 2);
    }
}
