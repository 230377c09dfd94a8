//! Resolves names to addresses, without those that no provider can have.
//!
//! A name server can resolve a name to this machine, to a host of the local network or to a cloud's metadata service. The
//! certificate would not match, but even the handshake must not reach them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;

use super::address_class::{AddressRange, is_globally_reachable, is_never_a_provider};
use super::{BoxError, is_loopback_host};

/// Resolves names; cheap to clone.
#[derive(Clone)]
pub struct Resolver(Arc<Lookup>);

/// From a name to its addresses; ports are ignored.
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

impl Resolver {
    /// A resolver that calls `lookup`.
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

/// A [`Resolver`] with the address filter, for connections.
#[derive(Clone)]
pub(super) struct FilteredResolver {
    resolver: Resolver,
    filter: AddressFilter,
}

/// Which addresses may be dialed; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct AddressFilter {
    /// `upstream.allow_addresses`.
    configured: Arc<[AddressRange]>,
}

impl FilteredResolver {
    pub(super) fn new(resolver: Resolver, filter: AddressFilter) -> Self {
        Self { resolver, filter }
    }
}

impl tower::Service<Name> for FilteredResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = (self.resolver.0)(name.as_str().to_owned());
        let filter = self.filter.clone();
        Box::pin(async move {
            let (allowed, refused): (Vec<_>, Vec<_>) =
                addresses.await?.into_iter().partition(|address| filter.allows(name.as_str(), address.ip()));
            match refused.first() {
                _ if !allowed.is_empty() => Ok(allowed.into_iter()),
                Some(refused) => Err(AddressFilter::refusal(name.as_str(), refused.ip()).into()),
                None => Err(format!("{} resolves to no address", name.as_str()).into()),
            }
        })
    }
}

impl AddressFilter {
    pub(super) fn new(configured: &[AddressRange]) -> Self {
        Self { configured: configured.into() }
    }

    /// Whether a host may have this address.
    ///
    /// A loopback host has loopback addresses alone, since plain HTTP is sent there. An address that is itself written in the
    /// configuration is meant. Any other name has addresses that are globally reachable or within a configured range. Loopback,
    /// link-local and their like are never allowed, except for loopback hosts.
    pub(super) fn allows(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if is_loopback_host(host) {
            return address.is_loopback();
        }
        if is_never_a_provider(address) {
            return false;
        }
        let is_literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        is_literal || is_globally_reachable(address) || self.configured.iter().any(|range| range.contains(address))
    }

    fn refusal(name: &str, address: IpAddr) -> String {
        if is_loopback_host(name) {
            return format!("{name} resolves to {address}, which is not a loopback address");
        }
        if is_never_a_provider(address.to_canonical()) {
            return format!(
                "{name} resolves to {address}, an address that no provider can have: the name server is wrong"
            );
        }
        format!(
            "{name} resolves to {address}, which is not globally reachable; if that is meant, add it to \
             upstream.allow_addresses in Pixy's configuration"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str, address: &str) -> bool {
        AddressFilter::default().allows(host, address.parse().unwrap())
    }

    #[test]
    fn attack_26_no_name_resolves_to_loopback_or_metadata() {
        let everything = ["0.0.0.0/0", "::/0"].map(|range| range.parse().unwrap());
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
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
        ] {
            assert!(!allowed("api.example.com", address), "{address}");
            let is_configured_loopback = is_loopback_host(address);
            assert!(is_configured_loopback || !allowed(address, address), "{address}, written in the configuration");
            let address = address.parse().unwrap();
            assert!(!AddressFilter::new(&everything).allows("api.example.com", address), "{address}, in a range");
        }
    }

    #[test]
    fn attack_94_a_name_has_global_or_configured_addresses() {
        let ranges = ["10.1.0.0/16", "fd00::/8", "100.64.0.0/10"].map(|range| range.parse().unwrap());
        let configured = AddressFilter::new(&ranges);
        for (address, is_configured) in [
            ("10.1.2.3", true),
            ("10.2.2.3", false),
            ("::ffff:10.1.2.3", true),
            ("fd00::1", true),
            ("fc00::1", false),
            ("100.100.1.1", true),
            ("192.168.1.1", false),
            ("192.0.2.7", false),
            ("2001:db8::1", false),
            ("64:ff9b::a01:203", false),
        ] {
            assert!(!allowed("api.example.com", address), "{address}");
            assert_eq!(
                configured.allows("api.example.com", address.parse().unwrap()),
                is_configured,
                "{address}, with ranges"
            );
            assert!(allowed(address, address), "{address} is written in the configuration");
        }
        for address in ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            assert!(allowed("api.example.com", address), "{address}");
        }
    }

    #[tokio::test]
    async fn a_refused_address_is_named_with_the_fix() {
        use tower::Service as _;
        let refusal = async |name: &str, address: &'static str| {
            let resolver =
                Resolver::new(move |_| Box::pin(async move { Ok(vec![SocketAddr::new(address.parse().unwrap(), 0)]) }));
            let mut filtered = FilteredResolver::new(resolver, AddressFilter::default());
            filtered.call(name.parse().unwrap()).await.unwrap_err().to_string()
        };
        let private = refusal("llm.corp.example", "10.1.2.3").await;
        assert!(private.contains("10.1.2.3") && private.contains("upstream.allow_addresses"), "{private}");
        let metadata = refusal("api.example.com", "169.254.169.254").await;
        assert!(metadata.contains("no provider can have"), "{metadata}");
        assert!(refusal("localhost", "8.8.8.8").await.contains("not a loopback address"));
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
        assert!(!allowed("localhost", "8.8.8.8"));
    }
}
