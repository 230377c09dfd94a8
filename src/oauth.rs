//! OAuth 2.0 as providers speak it.

pub mod profile;
