use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The first and the last address of a block.
fn ends(block: &str) -> [IpAddr; 2] {
    let range: AddressRange = block.parse().unwrap();
    let last = match range.first {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) | u32::MAX.checked_shr(range.length.into()).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) | u128::MAX.checked_shr(range.length.into()).unwrap_or(0)).into()),
    };
    [range.first, last]
}

/// The two registries, entry by entry, with "Globally Reachable". N/A counts as False: 6to4, Teredo and IPv4-mapped.
const REGISTRIES: [(&str, bool); 51] = [
    ("0.0.0.0/8", false),
    ("0.0.0.0/32", false),
    ("10.0.0.0/8", false),
    ("100.64.0.0/10", false),
    ("127.0.0.0/8", false),
    ("169.254.0.0/16", false),
    ("172.16.0.0/12", false),
    ("192.0.0.0/29", false),
    ("192.0.0.8/32", false),
    ("192.0.0.9/32", true),
    ("192.0.0.10/32", true),
    ("192.0.0.170/32", false),
    ("192.0.0.171/32", false),
    ("192.0.2.0/24", false),
    ("192.31.196.0/24", true),
    ("192.52.193.0/24", true),
    ("192.88.99.0/24", false),
    ("192.88.99.2/32", false),
    ("192.168.0.0/16", false),
    ("192.175.48.0/24", true),
    ("198.18.0.0/15", false),
    ("198.51.100.0/24", false),
    ("203.0.113.0/24", false),
    ("240.0.0.0/4", false),
    ("255.255.255.255/32", false),
    ("::1/128", false),
    ("::/128", false),
    ("64:ff9b:1::/48", false),
    ("100::/64", false),
    ("100:0:0:1::/64", false),
    ("2001::/32", false),
    ("2001:1::1/128", true),
    ("2001:1::2/128", true),
    ("2001:1::3/128", true),
    ("2001:2::/48", false),
    ("2001:3::/32", true),
    ("2001:4:112::/48", true),
    ("2001:10::/28", false),
    ("2001:20::/28", true),
    ("2001:30::/28", true),
    ("2001:db8::/32", false),
    ("2002::/16", false),
    ("2620:4f:8000::/48", true),
    ("3fff::/20", false),
    ("5f00::/16", false),
    ("fc00::/7", false),
    ("fe80::/10", false),
    // Not in the registries of special purposes: multicast, and what is not allocated for unicast.
    ("224.0.0.0/4", false),
    ("ff00::/8", false),
    ("4000::/3", false),
    ("fec0::/10", false),
];

#[test]
fn attack_94_the_iana_registries_decide_who_is_reachable() {
    for (block, expected) in REGISTRIES {
        for address in ends(block) {
            assert_eq!(is_globally_reachable(address), expected, "{address} of {block}");
            if let IpAddr::V4(v4) = address {
                let mapped = IpAddr::V6(v4.to_ipv6_mapped());
                assert_eq!(is_globally_reachable(mapped), expected, "{mapped} of {block}");
                let nat64 = address_in("64:ff9b::", v4);
                assert_eq!(is_globally_reachable(nat64), expected, "{nat64} of {block}");
                assert!(!is_globally_reachable(address_in("64:ff9b:1::", v4)), "local NAT64 of {block}");
                assert!(!is_globally_reachable(address_in("::", v4)), "IPv4-compatible of {block}");
            }
        }
    }
}

#[test]
fn addresses_beside_the_special_blocks_are_reachable() {
    for text in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "203.0.114.0",
        "223.255.255.255",
        "2001:200::",
        "2001:db7:ffff::1",
        "2001:db9::",
        "2003::",
        "2606:4700::6810:84e5",
        "3ffe::1",
        "3fff:1000::",
    ] {
        assert!(is_globally_reachable(address(text)), "{text}");
        assert!(!is_never_a_provider(address(text)), "{text}");
    }
}

#[test]
fn attack_94_no_ipv6_form_hides_this_machine() {
    for v4 in [[127, 0, 0, 1], [169, 254, 169, 254], [0, 0, 0, 0], [255, 255, 255, 255], [224, 0, 0, 1]] {
        let v4 = Ipv4Addr::from(v4);
        let [a, b, c, d] = v4.octets();
        let six_to_four = Ipv6Addr::from([0x20, 2, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let teredo = Ipv6Addr::from([0x20, 1, 0, 0, 8, 8, 8, 8, 0, 0, 0, 0, !a, !b, !c, !d]);
        let forms = [
            IpAddr::V4(v4),
            IpAddr::V6(v4.to_ipv6_mapped()),
            address_in("64:ff9b::", v4),
            address_in("64:ff9b:1::", v4),
            address_in("::", v4),
            IpAddr::V6(six_to_four),
            IpAddr::V6(teredo),
        ];
        for form in forms {
            assert!(is_never_a_provider(form) && !is_globally_reachable(form), "{form} hides {v4}");
        }
    }
    for text in ["::1", "::", "fe80::1", "ff02::1"] {
        assert!(is_never_a_provider(address(text)), "{text}");
    }
}

#[test]
fn ranges_are_written_as_cidr() {
    let range = |text: &str| text.parse::<AddressRange>();
    assert!(range("10.0.0.0/8").unwrap().contains(address("10.255.0.1")));
    assert!(range("10.0.0.0/8").unwrap().contains(address("::ffff:10.0.0.1")));
    assert!(!range("10.0.0.0/8").unwrap().contains(address("11.0.0.1")));
    assert!(range("192.0.2.7").unwrap().contains(address("192.0.2.7")));
    assert!(!range("192.0.2.7").unwrap().contains(address("192.0.2.8")));
    assert!(range("fd00::/8").unwrap().contains(address("fd12::1")));
    assert!(
        range("::/0").unwrap().contains(address("fd12::1")) && !range("::/0").unwrap().contains(address("10.0.0.1"))
    );
    assert!(range("0.0.0.0/0").unwrap().contains(address("10.0.0.1")));
    assert_eq!(range("fd00::/8").unwrap().to_string(), "fd00::/8");
    for wrong in [
        "",
        "10.0.0.0/33",
        "10.1.0.0/8",
        "fd00::/129",
        "fd00::1/8",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "a",
        "10/8",
        "1.1.1.1/8",
    ] {
        assert_eq!(range(wrong), Err(InvalidRange), "{wrong}");
    }
}

/// An IPv6 address of this prefix that ends in an IPv4 address.
fn address_in(prefix: &str, v4: Ipv4Addr) -> IpAddr {
    let prefix: Ipv6Addr = prefix.parse().unwrap();
    IpAddr::V6((u128::from(prefix) | u128::from(u32::from(v4))).into())
}
