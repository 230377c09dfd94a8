//! HTTP/1 messages, read strictly (RFC 9112): what passes has one reading. Where the RFC lets a recipient repair a message, it is an
//! error: another program on the path may repair it in another way. `server` checks requests, `upstream` checks responses.

pub mod chunked;
pub mod fields;
pub mod lines;
