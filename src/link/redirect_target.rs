//! Where the provider sends the browser after the person has decided.

use std::sync::Arc;

use tokio::sync::watch;
use url::Url;

use crate::server::Shutdown;

/// Where an authorization response arrives.
pub struct RedirectTarget {
    /// The redirect URI.
    pub redirect_uri: Url,
    /// The redirect URI reaches Pixy: the person has nothing to paste.
    pub reaches_pixy: bool,
    /// Why a loopback redirect does not reach Pixy, or reaches it at another port than usual, for the person.
    pub notice: Option<String>,
    /// Keeps the port of the redirect URI open.
    pub listener: Option<Arc<CallbackListener>>,
}

/// A loopback port that is open for redirects; closed when dropped.
pub struct CallbackListener {
    /// The port.
    pub port: u16,
    close: watch::Sender<Shutdown>,
}

impl CallbackListener {
    /// A listener at `port` that stops when `close` is sent.
    pub fn new(port: u16, close: watch::Sender<Shutdown>) -> Self {
        Self { port, close }
    }
}

impl Drop for CallbackListener {
    fn drop(&mut self) {
        self.close.send_replace(Shutdown::Process);
    }
}
