//! The gateway.

pub mod agent;
