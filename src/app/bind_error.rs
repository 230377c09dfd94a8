//! Why a listener cannot be bound.

use std::fmt;
use std::io;

use crate::server::Address;

/// A new listener cannot be bound.
#[derive(Debug)]
pub struct BindError {
    /// The key of the configuration, outermost first.
    pub(super) key: Vec<String>,
    /// Which surface: "agents", "the page", …
    pub(super) surface: &'static str,
    pub(super) address: Address,
    pub(super) source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { surface, address, source, .. } = self;
        if source.kind() == io::ErrorKind::AddrInUse {
            write!(
                f,
                "{address}, the address for {surface}, is in use by another program. Pixy never takes another port by itself: \
                 the program that has this one could impersonate Pixy. Find it (`ss -ltnp`), or set another address in the \
                 configuration"
            )
        } else {
            write!(f, "Pixy cannot listen on {address}, the address for {surface}: {source}")
        }
    }
}
