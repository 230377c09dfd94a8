//! Checks the bytes of a connection's requests before hyper parses them (RFC 9112).

pub(super) mod framer;
pub(super) mod head;
pub(super) mod request_target;
pub(super) mod strict;
