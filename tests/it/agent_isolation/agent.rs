//! The tasks of a hostile agent, in a process with a user of its own. Each panics if an attack succeeds, otherwise prints a summary.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
use serde_json::Value;

use super::harness::count;

pub(super) fn run(task: &Value) {
    let summary = match task["do"].as_str().unwrap() {
        "crawl" => crawl(task),
        "listen" => bind_taken_ports(task),
        "files" => files(task),
        "attach" => attach(task),
        "proc" => proc(task),
        "connect" => connect(task),
        "ask" => {
            let address = task["address"].as_str().unwrap().parse().unwrap();
            assert_eq!(ask(address, "GET", "/a/v1/models", "").0, 200);
            "asked".to_owned()
        }
        other => panic!("{other}"),
    };
    println!("agent: {summary}");
}

/// Every port × method × path, without a secret and with a guess.
fn crawl(task: &Value) -> String {
    let ports = ports(task);
    assert_eq!(ports.len(), 3, "agents, page, probes: {ports:?}");
    let (mut answers, mut same) = (0, BTreeMap::new());
    for &port in &ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for method in METHODS {
            for path in paths(port) {
                for guess in ["", "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n"] {
                    let (status, body, whole) = ask(address, method, &path, guess);
                    let request = format!("{method} {path} on port {port}: {}", String::from_utf8_lossy(&whole));
                    let open = OPEN.contains(&path.as_str()) || path.starts_with("/assets/");
                    let greeting = ["/a", "/a/"].contains(&path.as_str()) && body.is_empty();
                    assert!(open || greeting || !(200..400).contains(&status), "{request}");
                    assert!(status != 101 && status < 500, "{request}");
                    assert_clean(task, &request, &whole);
                    // Wrong guesses may be answered by a 429.
                    let locked = status == 429 && !guess.is_empty();
                    if path.starts_with("/api/") && path != "/api/session" && !locked {
                        let body = without_request_id(body);
                        let before = same.entry((port, method, guess)).or_insert_with(|| (status, body.clone()));
                        assert!(*before == (status, body), "an existing path looks like a missing one: {request}");
                    }
                    answers += 1;
                }
            }
        }
    }
    format!("{answers} requests to {} ports, no access", ports.len())
}

/// Removes the request id, which differs in every error.
fn without_request_id(body: Vec<u8>) -> Vec<u8> {
    let mut text = String::from_utf8(body).unwrap();
    if let Some(at) = text.find("\"request_id\":\"") {
        text.replace_range(at..at + "\"request_id\":\"0123456789abcdef\"".len(), "");
    }
    text.into_bytes()
}

/// Every path of the JSON API, from its table of routes, and what else an attacker would try.
fn paths(port: u16) -> Vec<String> {
    let concrete = |path: &str| path.replace("{name}", "a").replace("{id}", "0123456789abcdef");
    let mut paths: Vec<String> = pixy::api::ROUTES.iter().map(|route| concrete(route.path)).collect();
    assert!(paths.len() > 10, "the routes are listed: {paths:?}");
    paths.extend(OTHERS.iter().map(|&path| path.to_owned()));
    paths.push(format!("http://127.0.0.1:{port}/api/accounts"));
    paths
}

fn bind_taken_ports(task: &Value) -> String {
    let ports = ports(task);
    assert_eq!(ports.len(), 3, "{ports:?}");
    let mut tried = 0;
    for &port in &ports {
        let places: [SocketAddr; 4] = [
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv4Addr::UNSPECIFIED, port).into(),
            (Ipv6Addr::UNSPECIFIED, port).into(),
            (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
        ];
        for place in places {
            let family = if place.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let Ok(socket) = socket(family, SocketType::STREAM, None) else { continue }; // no IPv6 here
            if !place.is_ipv4() {
                sockopt::set_ipv6_v6only(&socket, false).unwrap();
            }
            sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            sockopt::set_socket_reuseport(&socket, true).unwrap();
            let taken = bind(&socket, &place).and_then(|()| listen(&socket, 1));
            assert_eq!(taken, Err(rustix::io::Errno::ADDRINUSE), "{place}");
            tried += 1;
        }
    }
    format!("{tried} attempts to listen on a port of Pixy, all refused")
}

/// Connects to sockets that admit this user, and to sockets that do not.
fn connect(task: &Value) -> String {
    let sockets = |key: &str| -> Vec<PathBuf> { serde_json::from_value(task[key].clone()).unwrap() };
    for socket in sockets("open") {
        let mut stream = UnixStream::connect(&socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.write_all(b"GET /a/v1/models HTTP/1.1\r\nHost: pixy\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_clean(task, "the socket", answer.as_bytes());
    }
    for socket in sockets("closed") {
        let refused = UnixStream::connect(&socket).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::PermissionDenied), "{}", socket.display());
    }
    format!("{} sockets open, {} closed", sockets("open").len(), sockets("closed").len())
}

fn files(task: &Value) -> String {
    let paths = |key: &str| -> Vec<PathBuf> { serde_json::from_value(task[key].clone()).unwrap() };
    let (files, directories) = (paths("files"), paths("directories"));
    assert!(files.len() > 5 && directories.len() == 2);
    for file in &files {
        refused(File::open(file), file);
        refused(OpenOptions::new().append(true).open(file), file);
        refused(fs::remove_file(file), file);
        refused(fs::rename(file, file.with_extension("taken")), file);
        if file.ends_with("control.sock") {
            refused(UnixStream::connect(file), file);
        }
    }
    for directory in &directories {
        refused(fs::read_dir(directory), directory);
        refused(File::create(directory.join("planted")), directory);
        refused(fs::rename(directory, std::env::temp_dir().join("pixy-taken")), directory);
    }
    format!("{} files and {} directories, nothing opened", files.len(), directories.len())
}

/// Runs debuggers, where installed, and opens the memory file that they would use.
fn attach(task: &Value) -> String {
    let process = task["process"].as_u64().unwrap().to_string();
    let mut tried = Vec::new();
    for (program, arguments) in
        [("strace", vec!["-f", "-o", "/dev/null", "-p", &process]), ("gcore", vec!["-o", "/tmp/pixy-taken", &process])]
    {
        let status = Command::new("timeout")
            .args(["10", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        match status.code() {
            Some(127) => {} // not installed
            Some(code @ 1..124) => tried.push(format!("{program} ends with {code}")),
            code => panic!("{program} could attach ({code:?})"),
        }
    }
    refused(OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem")), Path::new("mem"));
    format!("memory cannot be opened, {}", tried.join(", "))
}

fn proc(task: &Value) -> String {
    let process = PathBuf::from(format!("/proc/{}", task["process"]));
    for closed in ["environ", "mem", "maps", "smaps", "pagemap", "auxv", "io", "stack", "syscall"] {
        let path = process.join(closed);
        let read = File::open(&path).and_then(|mut file| file.read(&mut [0; 16]));
        if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            refused(read, &path);
        }
    }
    for closed in ["fd", "fdinfo", "map_files"] {
        refused(fs::read_dir(process.join(closed)), &process.join(closed));
    }
    for closed in ["exe", "cwd", "root"] {
        refused(fs::read_link(process.join(closed)), &process.join(closed));
    }
    // Readable files hold no secret.
    let mut readable = 0;
    for entry in fs::read_dir(&process).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let mut bytes = Vec::new();
        if File::open(entry.path()).and_then(|file| file.take(1 << 20).read_to_end(&mut bytes)).is_ok() {
            assert_clean(task, &entry.path().display().to_string(), &bytes);
            readable += 1;
        }
    }
    assert!(readable > 3, "the command line is readable");
    format!("15 paths closed, {readable} readable files without a secret")
}

/// Status, body and the raw response. A status of 0: there was none.
fn ask(address: SocketAddr, method: &str, path: &str, fields: &str) -> (u16, Vec<u8>, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut whole = Vec::new();
    match stream.read_to_end(&mut whole) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{method} {path}: {error}"),
        _ => {}
    }
    let text = String::from_utf8_lossy(&whole);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).as_bytes().to_vec();
    (status, body, whole.clone())
}

/// Every listening TCP port of Pixy.
fn ports(task: &Value) -> Vec<u16> {
    let not: Vec<u16> = serde_json::from_value(task["not"].clone()).unwrap();
    assert!(!not.is_empty());
    listening().into_iter().filter(|port| !not.contains(port)).collect()
}

/// Every listening TCP port in this network namespace.
pub(super) fn listening() -> Vec<u16> {
    let mut ports = Vec::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = fields[1].rsplit(':').next().unwrap();
            if fields[3] == "0A" {
                ports.push(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports.sort_unstable();
    ports
}

fn refused<T>(outcome: std::io::Result<T>, what: &Path) {
    match outcome {
        Ok(_) => panic!("{} is open to the agent", what.display()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{}: {error}", what.display()),
    }
}

fn assert_clean(task: &Value, place: &str, bytes: &[u8]) {
    let canaries: Vec<(String, String)> = serde_json::from_value(task["canaries"].clone()).unwrap();
    assert_eq!(canaries.len(), 4);
    for (name, canary) in canaries {
        assert_eq!(count(bytes, canary.as_bytes()), 0, "{place} holds the {name}");
    }
}

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"];

/// Paths that need no secret and show none.
const OPEN: [&str; 4] = ["/", "/livez", "/readyz", "/metrics"];

const OTHERS: &[&str] = &[
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/assets/page.js",
    "/api/session",
    "/api/accounts/unknown",
    "/api/no-such-call",
    "/api",
    "//api/accounts",
    "/a/../api/accounts",
    "/%61pi/accounts",
    "/api%2faccounts",
    "/a",
    "/a/",
    "/a/api/accounts",
    "/k/api/setup",
    "/a/v1/organizations",
    "/debug/pprof",
    "/config",
    "/.env",
    "/proc/self/environ",
    "/healthz",
    "*",
];
