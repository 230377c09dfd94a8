//! How a listener and its connections end.

use tokio::sync::watch;

use super::stall::StallTracker;

/// What is being shut down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing: the listener accepts connections.
    #[default]
    No,
    /// The listener: it accepts no more connections. Those that it accepted serve the exchange that is open, or their first one
    /// where they have had none, without a time limit; then they close.
    Listener,
    /// The process: open exchanges may continue for [`drain_time`](super::ServerLimits::drain_time).
    Process,
}

/// Resolves when the listener shuts down, also when the sender was dropped.
pub(super) async fn of_listener(shutdown: &mut watch::Receiver<Shutdown>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown != Shutdown::No).await;
}

/// Resolves when the process shuts down, also when the sender was dropped.
pub(super) async fn of_process(shutdown: &mut watch::Receiver<Shutdown>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown == Shutdown::Process).await;
}

/// Resolves when a connection must close after its open exchange. One that has had no request yet may send its first after its
/// listener was closed.
pub(super) async fn of_connection(shutdown: &mut watch::Receiver<Shutdown>, stall: &StallTracker) {
    of_listener(shutdown).await;
    tokio::select! {
        () = of_process(shutdown) => {}
        () = stall.first_request() => {}
    }
}
