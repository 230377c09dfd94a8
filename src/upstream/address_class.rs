//! Which addresses are globally reachable, by the IANA special-purpose address registries (RFC 6890, RFC 8190; state of 2025-10),
//! and ranges of addresses.
//!
//! - <https://www.iana.org/assignments/iana-ipv4-special-registry>
//! - <https://www.iana.org/assignments/iana-ipv6-special-registry>

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Blocks of IPv4 whose "Globally Reachable" is not True, multicast (RFC 5771) included.
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network (RFC 791 §3.2)
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private use (RFC 1918)
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // shared address space (RFC 6598)
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback (RFC 1122 §3.2.1.3)
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local (RFC 3927)
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private use
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // IETF protocol assignments (RFC 6890 §2.1)
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation (RFC 5737)
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relay anycast, deprecated (RFC 7526)
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private use
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking (RFC 2544)
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved (RFC 1112 §4)
    (Ipv4Addr::BROADCAST, 32),            // limited broadcast (RFC 919 §7)
];

/// Blocks within [`SPECIAL_V4`] that are globally reachable: PCP and TURN anycast (RFC 7723, RFC 8155).
const GLOBAL_V4: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(192, 0, 0, 9), 32), (Ipv4Addr::new(192, 0, 0, 10), 32)];

/// The global unicast addresses of IPv6 (RFC 4291 §2.4).
const UNICAST_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks within [`UNICAST_V6`] whose "Globally Reachable" is not True.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF protocol assignments (RFC 2928): Teredo, benchmarking, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation (RFC 3849)
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4 (RFC 3056)
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation (RFC 9637)
];

/// Blocks within [`SPECIAL_V6`] that are globally reachable.
const GLOBAL_V6: [(Ipv6Addr, u8); 7] = [
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128), // PCP anycast (RFC 7723)
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128), // TURN anycast (RFC 8155)
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128), // DNS-SD service registration anycast (RFC 9665)
    (Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 0), 32),  // AMT (RFC 7450)
    (Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 0), 48), // AS112 (RFC 7535)
    (Ipv6Addr::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28), // ORCHIDv2 (RFC 7343)
    (Ipv6Addr::new(0x2001, 0x30, 0, 0, 0, 0, 0, 0), 28), // drone remote identification (RFC 9374)
];

/// The well-known prefix of NAT64 (RFC 6052 §2.1). It is globally reachable, as far as the IPv4 address behind it is. The local
/// one, 64:ff9b:1::/48 (RFC 8215), is outside [`UNICAST_V6`] and not globally reachable.
const NAT64: (Ipv6Addr, u8) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Prefixes whose last 32 bits are an IPv4 address: NAT64's, and the deprecated IPv4-compatible addresses (RFC 4291 §2.5.5.1).
const V4_AT_END: [(Ipv6Addr, u8); 3] =
    [NAT64, (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), (Ipv6Addr::UNSPECIFIED, 96)];

/// Whether the address is globally reachable. An IPv4-mapped address is the IPv4 address.
pub fn is_globally_reachable(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !is_in_v4(&SPECIAL_V4, v4) || is_in_v4(&GLOBAL_V4, v4),
        IpAddr::V6(v6) if is_in_v6(&[NAT64], v6) => is_globally_reachable(IpAddr::V4(last_32_bits(v6))),
        IpAddr::V6(v6) => is_in_v6(&[UNICAST_V6], v6) && (!is_in_v6(&SPECIAL_V6, v6) || is_in_v6(&GLOBAL_V6, v6)),
    }
}

/// Whether the address is never that of a provider, whatever is configured: loopback, unspecified, link-local (clouds serve their
/// metadata there), multicast and broadcast, also as an IPv4 address within an IPv6 address.
pub(super) fn is_never_a_provider(address: IpAddr) -> bool {
    let is_never = |v4: Ipv4Addr| {
        let is_this_network = v4.octets()[0] == 0; // Linux connects 0.0.0.0 to itself
        v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || is_this_network
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => is_never(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || embedded_v4(v6).is_some_and(is_never)
        }
    }
}

/// The IPv4 address that a packet to `address` may reach by a translator or a tunnel.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    if is_in_v6(&V4_AT_END, address) {
        Some(last_32_bits(address))
    } else if address.segments()[0] == 0x2002 {
        Some(Ipv4Addr::new(octets[2], octets[3], octets[4], octets[5])) // 6to4 (RFC 3056 §2)
    } else if address.segments()[..2] == [0x2001, 0] {
        let client = last_32_bits(address).octets().map(|octet| !octet); // Teredo (RFC 4380 §4)
        Some(Ipv4Addr::from(client))
    } else {
        None
    }
}

fn last_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

fn is_in_v4(blocks: &[(Ipv4Addr, u8)], address: Ipv4Addr) -> bool {
    blocks.iter().any(|&(block, length)| u32::from(address).leading_bits_equal(u32::from(block), length))
}

fn is_in_v6(blocks: &[(Ipv6Addr, u8)], address: Ipv6Addr) -> bool {
    blocks.iter().any(|&(block, length)| u128::from(address).leading_bits_equal(u128::from(block), length))
}

trait LeadingBits {
    /// Whether the first `length` bits are the same.
    fn leading_bits_equal(self, other: Self, length: u8) -> bool;
}

impl LeadingBits for u32 {
    fn leading_bits_equal(self, other: Self, length: u8) -> bool {
        (self ^ other).leading_zeros() >= u32::from(length)
    }
}

impl LeadingBits for u128 {
    fn leading_bits_equal(self, other: Self, length: u8) -> bool {
        (self ^ other).leading_zeros() >= u32::from(length)
    }
}

/// A range of addresses in CIDR notation (RFC 4632 §3.1): `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    length: u8,
}

impl AddressRange {
    /// Whether the address is within the range. An IPv4-mapped address is the IPv4 address.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(v4)) => is_in_v4(&[(first, self.length)], v4),
            (IpAddr::V6(first), IpAddr::V6(v6)) => is_in_v6(&[(first, self.length)], v6),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The text is not a range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRange;

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let (first, length) = text.split_once('/').map_or((text, None), |(first, length)| (first, Some(length)));
        let first: IpAddr = first.parse().map_err(|_| InvalidRange)?;
        let (bits, whole) = match first {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        let is_digits = |length: &str| length.bytes().all(|digit| digit.is_ascii_digit());
        let length = match length {
            None => whole,
            Some(length) if is_digits(length) => length.parse().map_err(|_| InvalidRange)?,
            Some(_) => return Err(InvalidRange),
        };
        // Bits after the prefix are a mistake: `10.1.0.0/8`.
        let rest = bits.checked_shl(u32::from(length)).unwrap_or(0);
        if length <= whole && rest == 0 { Ok(Self { first, length }) } else { Err(InvalidRange) }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
#[path = "address_class_tests.rs"]
mod tests;
