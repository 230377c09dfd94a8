//! A log that a test can read.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

/// What is logged, kept.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Default for Log {
    /// Nothing yet. While one subscriber is the only one, an event is switched off for all threads if one without a subscriber
    /// (another test's) comes to it first: so every thread gets one, which takes everything and keeps nothing.
    fn default() -> Self {
        let nobody = tracing_subscriber::registry().with(LevelFilter::INFO);
        let _ = tracing::subscriber::set_global_default(nobody); // it is set already, but for the first
        Self(Arc::default())
    }
}

impl Log {
    /// All of it so far.
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
