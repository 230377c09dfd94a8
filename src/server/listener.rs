//! Listening sockets, TCP and Unix.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::oneshot;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP socket; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket, in a directory that exists.
    Unix(PathBuf),
}

/// Which users may connect to a Unix socket: those who may write to its file (unix(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Pixy's own user: mode 0600.
    #[default]
    Owner,
    /// The socket's group too, 0660: Pixy's own, or that of the directory where that is setgid.
    Group,
    /// Every user who can reach the directory: 0666.
    Everybody,
}

/// A bound socket. Dropping it closes the socket and removes a Unix socket's file.
pub struct Listener {
    // Dropped in this order.
    socket: Socket,
    _file: Option<SocketFile>,
    closed: Option<oneshot::Sender<()>>,
    address: Address,
}

/// A listening socket that a service manager holds and passed to this process. It stays open while Pixy restarts: connections wait
/// for the next Pixy, and no other program can take the address.
#[derive(Debug)]
pub struct PassedSocket {
    socket: StdSocket,
    address: Address,
}

#[derive(Debug)]
enum StdSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The peer of a connection, as the kernel reports it.
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

/// Removes the socket's file when dropped, if it is still the same file.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: the path may name another file by now.
    identity: (u64, u64),
}

impl Address {
    /// Whether only this machine can reach it.
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

impl PassedSocket {
    /// # Errors
    /// It does not listen.
    pub fn tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        listens(&socket)?;
        let address = Address::Tcp(socket.local_addr()?);
        Ok(Self { socket: StdSocket::Tcp(socket), address })
    }

    /// # Errors
    /// It does not listen, or has no path.
    pub fn unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listens(&socket)?;
        let path = socket.local_addr()?.as_pathname().map(Path::to_path_buf);
        let path = path.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no path"))?;
        Ok(Self { socket: StdSocket::Unix(socket), address: Address::Unix(path) })
    }

    /// The address that it is bound to.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

fn listens(socket: impl std::os::fd::AsFd) -> io::Result<()> {
    if rustix::net::sockopt::socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"))
}

impl Listener {
    /// Serves a socket of a service manager, which sets the mode of a Unix socket and removes its file.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub fn from_passed(passed: PassedSocket) -> io::Result<Self> {
        let PassedSocket { socket, address } = passed;
        let socket = match socket {
            StdSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Socket::Tcp(TcpListener::from_std(socket)?)
            }
            StdSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Socket::Unix(UnixListener::from_std(socket)?)
            }
        };
        Ok(Self::new(socket, address, None))
    }

    /// Binds with [`Access::Owner`]. A TCP port in use is an error, never a reason to take another. A Unix socket file without a
    /// listening process is a leftover and is replaced.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Self::bind_with_access(address, Access::Owner).await
    }

    /// As [`Listener::bind`]; `access` is the mode of a Unix socket.
    pub async fn bind_with_access(address: &Address, access: Access) -> io::Result<Self> {
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
                // Before `listen`: nothing can connect yet.
                set_mode(path, access)?;
                let socket = Socket::Unix(socket.listen(BACKLOG)?);
                Ok(Self::new(socket, address.clone(), Some(file)))
            }
        }
    }

    fn new(socket: Socket, address: Address, file: Option<SocketFile>) -> Self {
        Self { socket, _file: file, closed: None, address }
    }

    /// Resolves, with an error, when this listener was dropped and its socket is closed.
    pub fn closed(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.closed = Some(sender);
        receiver
    }

    /// The bound address, with the port that the system chose.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer { uid: None, address: Some(address) }))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Box::new(stream), Peer { uid: Some(uid), address: None }))
            }
        }
    }
}

fn bind_tcp(wanted: SocketAddr) -> io::Result<TcpListener> {
    let socket = if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without it a restart fails while old connections are in TIME-WAIT. Never SO_REUSEPORT: another process could then bind
    // the same port.
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit them. The kernel's own maxima are megabytes for each connection: a client that does not read would
    // have so much copied for it, and in a container they count as Pixy's memory. A Unix socket has 208 KiB by default.
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(wanted)?;
    socket.listen(BACKLOG)
}

async fn remove_leftover(path: &Path) -> io::Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of this name exists and is not a socket"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Also one whose accept queue is full, or that this user may not connect to.
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens on this socket")),
    }
}

/// Sets the mode of a new socket file, which the umask has reduced. Another user who may write to its directory could have
/// replaced it by a symbolic link to a file of Pixy's: `O_NOFOLLOW` opens no link, and only the opened file is changed.
#[cfg(target_os = "linux")]
fn set_mode(path: &Path, access: Access) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !opened.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("the socket file was replaced by another file"));
    }
    // fchmod refuses an O_PATH descriptor; its entry in /proc is accepted (proc_pid_fd(5)).
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

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path); // it may be gone already
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

/// The socket of an accepted connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Ready when a byte can be read, or the client has closed its side. Reads nothing, and needs no buffer.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Stream for TcpStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

impl Stream for UnixStream {
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

/// In bytes, of each direction; the kernel doubles it for its own overhead. With a round trip of 50 ms it allows 1.3 MB a second.
const SOCKET_BUFFER: u32 = 64 * 1024;

/// Connections in the accept queue, if the system allows so many (`net.core.somaxconn`): while Pixy is suspended, has no
/// descriptors left, or has reached `limits.connections`. The default would be 128.
const BACKLOG: u32 = 4096;
