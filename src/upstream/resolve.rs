//! Resolves names to addresses, without those that no provider can have.
//!
//! A name server can resolve a name to this machine or to a cloud's metadata service. The certificate would not match, but even
//! the handshake must not reach them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;

use super::{BoxError, is_loopback_host};

/// Resolves names; cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Lookup>);

/// From a name to its addresses; ports are ignored.
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Resolver {
    /// A resolver that calls `lookup` and filters its addresses.
    pub fn new(
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(lookup))
    }
}

impl Default for Resolver {
    /// The operating system's resolver.
    fn default() -> Self {
        Self::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
    }
}

impl tower::Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let mut addresses = addresses.await?;
            addresses.retain(|address| may_be_dialed(name.as_str(), address.ip()));
            if addresses.is_empty() {
                return Err("the name resolves to no address that a provider can have".into());
            }
            Ok(addresses.into_iter())
        })
    }
}

/// Whether a host may have this address. A loopback host has loopback addresses alone, since plain HTTP is sent there; any other
/// host has none, and no link-local one, where clouds serve their metadata. RFC 1918 is allowed for companies' gateways.
pub(super) fn may_be_dialed(host: &str, address: IpAddr) -> bool {
    // ::ffff:127.0.0.1 is the loopback address.
    let address = address.to_canonical();
    if is_loopback_host(host) {
        return address.is_loopback();
    }
    let never = match address {
        // 0.0.0.0/8 is "this network" (RFC 1122 §3.2.1.3); Linux connects 0.0.0.0 to itself.
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    !(never || address.is_loopback() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str, address: &str) -> bool {
        may_be_dialed(host, address.parse().unwrap())
    }

    #[test]
    fn attack_26_no_name_resolves_to_loopback_or_metadata() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!allowed("api.example.com", address), "{address}");
        }
        for address in
            ["192.0.2.7", "10.1.2.3", "172.16.0.1", "192.168.1.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.7"]
        {
            assert!(allowed("api.example.com", address), "{address}");
        }
    }

    #[test]
    fn a_loopback_host_has_loopback_addresses_alone() {
        for (host, address) in
            [("localhost", "127.0.0.1"), ("LocalHost", "::1"), ("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")]
        {
            assert!(allowed(host, address), "{host} {address}");
        }
        // Plain HTTP is sent to loopback hosts.
        assert!(!allowed("localhost", "192.0.2.7") && !allowed("localhost", "169.254.169.254"));
    }
}
