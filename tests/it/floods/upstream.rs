//! An upstream on threads of its own, so that a flood of the test does not slow it down.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Answers `GET /v1/models` at once and `GET /v1/models/long` with a long body, accepts WebSockets, reads and discards everything
/// else, and never answers it.
pub(super) struct SilentUpstream {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl SilentUpstream {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let in_runtime = runtime.enter();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(32 * 1024).unwrap(); // what Pixy does not read costs no time here
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        drop(in_runtime);
        Self { address, runtime: Some(runtime) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for SilentUpstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut space = [0; 16 * 1024];
            let length = stream.read(&mut space).await.ok().filter(|&length| length > 0)?;
            head.extend_from_slice(&space[..length]);
        }
        if head.starts_with(b"GET /v1/models ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.ok()?;
        } else if head.starts_with(b"GET /v1/models/long") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await.ok()?;
            for _ in 0..10_000 {
                stream.write_all(&[b'x'; 10_000]).await.ok()?;
            }
        } else {
            if head.starts_with(b"GET /v1/responses") {
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                               Sec-WebSocket-Accept: from-the-upstream\r\n\r\n";
                stream.write_all(switch).await.ok()?;
            }
            let mut space = vec![0; 64 * 1024];
            while stream.read(&mut space).await.ok()? > 0 {}
            return None;
        }
    }
}
