//! Pixy.

pub mod clock;
pub mod config;
pub mod name;
pub mod oauth;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod upstream;
pub mod vault;
