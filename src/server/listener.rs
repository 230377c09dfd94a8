//! The sockets that are listened on.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use crate::lock::lock;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP socket; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket, in a directory that exists.
    Unix(PathBuf),
}

/// Who may connect to a Unix socket: who may write to its file (unix(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Pixy's own user: mode 0600.
    #[default]
    Owner,
    /// The socket's group too, 0660: Pixy's own, or that of the directory where that is setgid.
    Group,
    /// Whoever reaches the directory: 0666.
    Everybody,
}

/// A bound socket.
pub struct Listener {
    socket: Socket,
    address: Address,
    /// Until it is taken away.
    file: Mutex<Option<SocketFile>>,
    /// Held by whoever accepts.
    turn: tokio::sync::Mutex<()>,
}

/// Who is at the other end, as the kernel says; in each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The user id of a Unix socket's peer.
    pub uid: Option<u32>,
    /// The address of a TCP socket's peer.
    pub address: Option<SocketAddr>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Removes the socket's file when the listener ends, if it is still there.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: somebody may have put something else in its place.
    identity: (u64, u64),
}

impl Address {
    /// Only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
            Self::Everybody => 0o666,
        }
    }
}

impl Listener {
    /// Binds. A TCP port that somebody else holds is an error, never a reason to take another; a Unix socket that nobody
    /// answers on is a leftover and is replaced. A Unix socket is for Pixy's own user.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Self::bind_for(address, Access::Owner).await
    }

    /// The same, with a word on who may connect if it is a Unix socket.
    pub async fn bind_for(address: &Address, access: Access) -> io::Result<Self> {
        match address {
            Address::Tcp(wanted) => {
                let socket = bind_tcp(*wanted)?;
                let address = Address::Tcp(socket.local_addr()?);
                Ok(Self::new(Socket::Tcp(socket), address, None))
            }
            Address::Unix(path) => {
                remove_leftover(path).await?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                let file = SocketFile { path: path.clone(), identity: identity(path)? };
                // Before anybody can connect.
                set_mode(path, access)?;
                let socket = Socket::Unix(socket.listen(WAITING)?);
                Ok(Self::new(socket, address.clone(), Some(file)))
            }
        }
    }

    fn new(socket: Socket, address: Address, file: Option<SocketFile>) -> Self {
        Self { socket, address, file: Mutex::new(file), turn: tokio::sync::Mutex::default() }
    }

    /// From now on these may connect, if it is a Unix socket; who has connected stays.
    ///
    /// # Errors
    /// The mode cannot be set, or something else stands where the socket was.
    pub fn set_access(&self, access: Access) -> io::Result<()> {
        let file = lock(&self.file);
        let Some(file) = &*file else { return Ok(()) };
        if identity(&file.path)? != file.identity {
            return Err(io::Error::other("something else was put in its place"));
        }
        set_mode(&file.path, access)
    }

    /// Takes the socket's file away, so that nobody else comes. Who has connected is still there to be accepted.
    pub fn withdraw(&self) {
        drop(lock(&self.file).take());
    }

    /// Resolves when nobody accepts from it any more.
    pub async fn rested(&self) {
        drop(self.turn().await);
    }

    /// Hangs up on who waits to be accepted.
    pub fn turn_away(&self) {
        for _ in 0..WAITING {
            if self.take_waiting().is_err() {
                return;
            }
        }
    }

    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                of_tcp(stream, address)
            }
            Socket::Unix(socket) => of_unix(socket.accept().await?.0),
        }
    }

    /// One that is in the kernel's queue now, whether the runtime has heard of it or not; an error when there is none.
    pub(super) fn take_waiting(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let socket = std::net::TcpListener::from(socket.as_fd().try_clone_to_owned()?);
                let (stream, address) = socket.accept()?;
                stream.set_nonblocking(true)?;
                of_tcp(TcpStream::from_std(stream)?, address)
            }
            Socket::Unix(socket) => {
                let socket = std::os::unix::net::UnixListener::from(socket.as_fd().try_clone_to_owned()?);
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                of_unix(UnixStream::from_std(stream)?)
            }
        }
    }
}

fn of_tcp(stream: TcpStream, address: SocketAddr) -> io::Result<(Box<dyn Stream>, Peer)> {
    stream.set_nodelay(true)?;
    Ok((Box::new(stream), Peer { uid: None, address: Some(address) }))
}

fn of_unix(stream: UnixStream) -> io::Result<(Box<dyn Stream>, Peer)> {
    let uid = stream.peer_cred()?.uid();
    Ok((Box::new(stream), Peer { uid: Some(uid), address: None }))
}

fn bind_tcp(wanted: SocketAddr) -> io::Result<TcpListener> {
    let socket = if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Otherwise a restart waits for the kernel to forget the old connections. Never SO_REUSEPORT: it lets others in beside us.
    socket.set_reuseaddr(true)?;
    socket.bind(wanted)?;
    socket.listen(WAITING)
}

async fn remove_leftover(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket has this name"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Also one whose queue is full, or that is not for us.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program answers on this socket")),
    }
}

/// Gives a new socket its mode, of which the umask has left less. Where others may write to its directory, one of them could have
/// put a link to a file of ours in its place: what is opened here is no link, and only what was opened is changed.
#[cfg(target_os = "linux")]
fn set_mode(path: &Path, access: Access) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !opened.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("something else was put in its place"));
    }
    // A descriptor of this kind cannot be changed itself, but what it stands for can (proc_pid_fd(5)).
    let permissions = Permissions::from_mode(access.mode());
    match std::fs::set_permissions(format!("/proc/self/fd/{}", opened.as_raw_fd()), permissions.clone()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::set_permissions(path, permissions), // no /proc
        set => set,
    }
}

#[cfg(not(target_os = "linux"))]
fn set_mode(path: &Path, access: Access) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(access.mode()))
}

/// What stands there now.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path); // already gone is as good
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How many connections may wait to be accepted, if the system allows so many (`net.core.somaxconn`): while Pixy sleeps, has no
/// descriptors left, or serves as many as `limits.connections` says. The library would ask for 128.
const WAITING: u32 = 4096;
