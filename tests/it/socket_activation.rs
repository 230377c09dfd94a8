//! Sockets that a service manager holds: the addresses stay Pixy's while it restarts.
#![allow(clippy::print_stdout, reason = "what was skipped goes to the log")]

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pixy::app::{self, Process};
use pixy::config::{self, Env};
use pixy::server::PassedSocket;
use serde_json::json;
use tokio::process::Command;

use crate::support::{Pixy, Program, RawClient, Scratch, Upstream, within};

/// The service manager: holds a TCP socket for agents and a Unix socket for probes.
struct Manager {
    agents: TcpListener,
    ops: UnixListener,
    scratch: Scratch,
    config: PathBuf,
    _upstream: Upstream,
}

impl Manager {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let accounts =
            json!({ "k": { "provider": "openai-compatible", "profile": { "api": { "base_url": upstream.url() } } } });
        let pixy = Pixy::start(&accounts).await;
        pixy.post("/api/accounts/k/key", json!({ "key": "a-key-of-the-provider" })).await;
        let (scratch, _) = pixy.dismantle().await;
        let agents = TcpListener::bind("127.0.0.1:0").unwrap();
        let ops = UnixListener::bind(scratch.path("ops.sock")).unwrap();
        let more = json!({
            "agent": { "listen": agents.local_addr().unwrap().to_string() },
            "ops": { "listen": format!("unix:{}", scratch.path("ops.sock").display()) },
            "link": "off",
        });
        let config = scratch.config_with(&accounts, &more);
        Self { agents, ops, scratch, config, _upstream: upstream }
    }

    fn address(&self) -> SocketAddr {
        self.agents.local_addr().unwrap()
    }

    async fn start(&self) -> Program {
        let sockets = [OwnedFd::from(self.agents.try_clone().unwrap()), self.ops.try_clone().unwrap().into()];
        Program::spawn_with_stdin(self.command(sockets), &self.scratch).await
    }

    /// Pixy with these as files 3 and 4, as systemd passes them.
    fn command(&self, [third, fourth]: [OwnedFd; 2]) -> Command {
        let mut command = Command::new("sh");
        let script = "exec 3<&0 4>&1 0</dev/null 1>/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$0\" \"$@\"";
        command.args(["-c", script]).arg(assert_cmd::cargo::cargo_bin!("pixy")).arg("--config").arg(&self.config);
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(third).stdout(fourth);
        command
    }
}

fn terminate(program: &Program) {
    let id = rustix::process::Pid::from_raw(i32::try_from(program.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
}

const REQUEST: &str = "GET /k/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_95_a_restart_refuses_no_connection() {
    let manager = Manager::new().await;
    let address = manager.address();
    let (stop, served, cut) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let client = tokio::spawn({
        let (stop, served, cut) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&cut));
        async move {
            while !stop.load(Ordering::Relaxed) {
                // Panics if the connection is refused.
                match RawClient::once(address, REQUEST).await {
                    Some(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                    None => drop(cut.fetch_add(1, Ordering::Relaxed)),
                }
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let serves_more = async || {
        let before = served.load(Ordering::Relaxed);
        within(async {
            while served.load(Ordering::Relaxed) < before + 20 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    };
    for number in 0..4 {
        let program = manager.start().await;
        serves_more().await;
        if number % 2 == 0 {
            terminate(&program);
            assert!(program.ended().await.success());
        } else {
            program.kill().await;
        }
        assert!(manager.scratch.path("ops.sock").exists(), "the manager's file");
    }
    let program = manager.start().await;
    serves_more().await;
    stop.store(true, Ordering::Relaxed);
    within(client).await.unwrap();
    let cut = cut.load(Ordering::Relaxed);
    assert!(cut <= 4, "at most the request under way at each end: {cut}");
    terminate(&program);
    assert!(program.ended().await.success());
}

/// The other user of `attack_95_a_held_address_cannot_be_squatted`, in a process of its own.
#[test]
#[ignore = "run by attack_95_a_held_address_cannot_be_squatted as another user"]
fn the_squatter() {
    let place = std::env::var("PIXY_SQUAT").unwrap();
    let (port, socket) = place.split_once(' ').unwrap();
    let port: u16 = port.parse().unwrap();
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ] {
        let error = TcpListener::bind(address).expect_err("a program of another user took the address");
        assert!(error.kind() == std::io::ErrorKind::AddrInUse || address.is_ipv6(), "{address}: {error}");
    }
    UnixListener::bind(socket).expect_err("the directory is not its own");
    fs::remove_file(socket).expect_err("the directory is not its own");
    println!("squatter: refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_95_a_held_address_cannot_be_squatted() {
    const OTHER: u32 = 64_702;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this needs root, to be another user");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in CI");
        return;
    }
    let manager = Manager::new().await;
    // A directory that agents can reach but not write to, as a read-only mount.
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o755)).unwrap();
    let left = shared.path().join("agent.sock");
    drop(UnixListener::bind(&left).unwrap());
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), Permissions::from_mode(0o777)).unwrap();
    let squatter = open.path().join("squatter");
    fs::copy(std::env::current_exe().unwrap(), &squatter).unwrap();
    chown(&squatter, Some(OTHER), Some(OTHER)).unwrap();

    let program = manager.start().await;
    assert_eq!(RawClient::once(manager.address(), REQUEST).await.unwrap().status, 200);
    program.kill().await; // as a crash does
    let mut waiting = RawClient::connect(manager.address()).await;
    waiting.send(REQUEST).await;
    let output = std::process::Command::new(&squatter)
        .args(["--exact", "socket_activation::the_squatter", "--ignored", "--nocapture"])
        .env("PIXY_SQUAT", format!("{} {}", manager.address().port(), left.display()))
        .current_dir("/")
        .uid(OTHER)
        .gid(OTHER)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("squatter: refused"), "{said}");
    let _program = manager.start().await;
    assert_eq!(waiting.response().await.unwrap().status, 200, "the request waited for the next Pixy");
}

#[tokio::test]
async fn a_passed_socket_that_fits_no_listener_is_refused() {
    let manager = Manager::new().await;
    let wrong = TcpListener::bind("127.0.0.1:0").unwrap();
    let stated = format!("the service manager passed a socket on {}", wrong.local_addr().unwrap());
    let file = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let agents = || OwnedFd::from(manager.agents.try_clone().unwrap());
    for (other, code, stated) in [
        (OwnedFd::from(wrong), 1, stated.as_str()),
        (file(), 64, "file 4 of LISTEN_FDS is no listening stream socket"),
        (OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()), 64, "file 4 of LISTEN_FDS is no listening"),
    ] {
        // Without the manager's own socket in its place.
        fs::write(&manager.config, fs::read_to_string(&manager.config).unwrap().replace("ops.sock", "other.sock"))
            .unwrap();
        let child = manager.command([agents(), other]).stderr(Stdio::piped()).spawn().unwrap();
        let output = within(child.wait_with_output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(stated), "{code}: {said}");
    }
}

#[tokio::test]
async fn a_reload_cannot_drop_a_passed_socket() {
    let manager = Manager::new().await;
    let text = fs::read_to_string(&manager.config).unwrap().replace("ops.sock", "own.sock");
    fs::write(&manager.config, &text).unwrap();
    let parsed = config::parse(&text, Some(manager.config.clone()), &Env::default()).unwrap();
    let socket = PassedSocket::tcp(manager.agents.try_clone().unwrap()).unwrap();
    let mut running = app::start_with(parsed, Process { passed: vec![socket], ..Process::default() })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    fs::write(&manager.config, text.replace(&manager.address().to_string(), "127.0.0.1:0")).unwrap();
    let refused = running.reload(&Env::default()).await.unwrap_err().to_string();
    assert!(
        refused.contains("needs a restart") && refused.contains("the service manager holds this socket"),
        "{refused}"
    );
    fs::write(&manager.config, text.replace("\"off\"", "{ \"listen\": \"127.0.0.1:0\" }")).unwrap();
    running.reload(&Env::default()).await.unwrap();
    within(running.stop()).await.unwrap();
}
