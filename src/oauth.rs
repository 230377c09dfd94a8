//! OAuth 2.0 as providers speak it: pure pieces, and the calls to their endpoints.
//!
//! Nothing here keeps state or knows the vault; `account` decides when a call is made and what becomes of its answer.

pub mod device;
pub mod discovery;
pub mod token_endpoint;
pub mod id_token;
pub mod identity;
pub mod pkce;
pub mod profile;
pub mod token_response;
pub mod revoke;
