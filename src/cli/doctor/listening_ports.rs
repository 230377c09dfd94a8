//! Listening sockets by the kernel's tables (proc(5)): also those of other users, and of containers that share the network.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

/// A listening TCP socket of this network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) port: u16,
    /// The owner, as this user namespace maps it.
    pub(super) uid: u32,
}

/// Every listening TCP socket of this network namespace.
pub(super) fn listening() -> Vec<Listening> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].iter().flat_map(|table| parse_table(&read(table))).collect()
}

/// The paths of all Unix sockets of this network namespace, as they were bound.
pub(super) fn unix_sockets() -> Vec<PathBuf> {
    // Num RefCount Protocol Flags Type State Inode Path
    let table = read("/proc/self/net/unix");
    table.lines().skip(1).filter_map(|line| Some(PathBuf::from(&line[line.find(" /")? + 1..]))).collect()
}

fn parse_table(table: &str) -> Vec<Listening> {
    let listening = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        let &[_, local, _, LISTEN, _, _, _, uid] = fields.as_slice() else { return None };
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        Some(Listening { port, uid: uid.parse().ok()? })
    };
    table.lines().skip(1).filter_map(listening).collect()
}

fn read(table: &str) -> String {
    let mut text = String::new();
    let _ = File::open(table).and_then(|file| file.take(MAX_TABLE_BYTES).read_to_string(&mut text)); // no table without /proc
    text
}

const LISTEN: &str = "0A";
const MAX_TABLE_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_with_its_user() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let uid = rustix::process::geteuid().as_raw();
        assert!(listening().contains(&Listening { port, uid }));
        drop(listener);
        assert!(!listening().contains(&Listening { port, uid }), "the table is read again");
    }

    #[test]
    fn connections_are_not_listeners() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:21FC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1\n\
            1: 0100007F:21FC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 222 1\n";
        assert_eq!(parse_table(table), [Listening { port: 8700, uid: 1000 }]);
    }
}
