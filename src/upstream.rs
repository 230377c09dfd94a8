//! The way out: TLS connections to providers.

use std::path::PathBuf;
use std::time::Duration;

/// How connections to providers are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Further trusted roots, PEM (a company's gateway).
    pub extra_ca_file: Option<PathBuf>,
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the request's end to the response's head.
    pub head_timeout: Duration,
    /// Between two pieces of a response.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            extra_ca_file: None,
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_mins(10),
            idle_timeout: Duration::from_mins(10),
        }
    }
}
