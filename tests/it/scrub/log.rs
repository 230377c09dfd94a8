//! A log that a test can read.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

/// The log lines so far.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Default for Log {
    /// An empty log. With a single subscriber, tracing disables a callsite for all threads if a thread without a subscriber (another
    /// test's) reaches it first. So all threads get a global subscriber, which discards the events.
    fn default() -> Self {
        let discard = tracing_subscriber::registry().with(LevelFilter::INFO);
        let _ = tracing::subscriber::set_global_default(discard); // fails if it is set already
        Self(Arc::default())
    }
}

impl Log {
    /// The text so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
