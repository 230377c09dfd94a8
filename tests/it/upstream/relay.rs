//! A TCP relay between client and server that can stop forwarding without closing its connections.

use std::net::{Ipv4Addr, SocketAddr};

use futures_util::future;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::support::within;

/// Relays TCP connections until they are frozen.
pub(super) struct Relay {
    address: SocketAddr,
    connections: watch::Receiver<(usize, usize)>,
    frozen: watch::Sender<usize>,
    accepting: AbortHandle,
}

impl Relay {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, freezing) = watch::channel(0);
        let (count, connections) = watch::channel((0, 0));
        let accepting = tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            loop {
                let Ok((mut client, _)) = listener.accept().await else { continue };
                let (mut freezing, count) = (freezing.clone(), count.clone());
                let number = count.borrow().0;
                count.send_modify(|(accepted, _)| *accepted += 1);
                all.spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = async { drop(freezing.wait_for(|frozen| *frozen > number).await) } => future::pending().await,
                    }
                    count.send_modify(|(_, closed)| *closed += 1);
                });
            }
        });
        Self { address, connections, frozen, accepting: accepting.abort_handle() }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Stops forwarding on the connections so far; they stay open.
    pub(super) fn freeze(&self) {
        self.frozen.send_replace(self.connections.borrow().0);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.borrow().0
    }

    pub(super) async fn until_closed(&self, count: usize) {
        within(self.connections.clone().wait_for(|(_, closed)| *closed >= count)).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
