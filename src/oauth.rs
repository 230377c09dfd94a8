//! OAuth 2.0 as providers implement it: protocol functions without state, and the calls to the endpoints.
//!
//! This module has no access to the vault; `account` and `link` decide when a call is made and store its result.

pub mod device;
pub mod discovery;
pub mod token_endpoint;
pub mod id_token;
pub mod identity;
pub mod pkce;
pub mod profile;
pub mod token_response;
pub mod revoke;
