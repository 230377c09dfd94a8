//! Pixy.

pub mod account;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod link;
pub mod metrics;
pub mod name;
pub mod oauth;
pub mod ops;
pub mod proxy;
pub mod secret;
pub mod server;
pub mod upstream;
pub mod vault;
