//! PURE: which addresses a server may lead us to (RFC 9728 section 7.7). The judgement is `std`'s where it has one, and the texts
//! of addresses are read by `url`; that names are looked up and sifted by it is `network`'s doing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Where a request may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Wherever the URL leads: the person or the config named its host.
    #[default]
    Anywhere,
    /// Addresses of the public internet, and this machine's loopback: the person named a server on this machine.
    PublicAndLoopback,
    /// Addresses of the public internet.
    Public,
}

impl Reach {
    /// Whether an address is within reach.
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::PublicAndLoopback => is_public(address) || address.to_canonical().is_loopback(),
            Self::Public => is_public(address),
        }
    }

    /// Whether the host of a URL may be tried: `false` for an address that is out of reach. Names are told when they are
    /// looked up.
    pub fn allows_host(self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.allows(address.into()),
            Some(Host::Ipv6(address)) => self.allows(address.into()),
            Some(Host::Domain(_)) | None => true,
        }
    }
}

/// Whether an address belongs to the public internet. Forms that hold an IPv4 address within are judged by that.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240;
    // Shared (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544): std has no stable word for these.
    let reserved = a == 100 && (64..128).contains(&b) || a == 192 && b == 0 && c == 0 || a == 198 && matches!(b, 18 | 19);
    !special && !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match (a, b) {
        // 6to4 (RFC 3056) and NAT64 (RFC 6052) lead to an IPv4 address.
        (0x2002, _) => embedded(b, c),
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => embedded(g, h),
        // Teredo (RFC 4380), documentation (RFC 3849, RFC 9637).
        (0x2001, 0 | 0xdb8) | (0x3fff, 0..0x1000) => false,
        // Everything that is routed lies in 2000::/3.
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_no_public_ones_in_any_form() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::808:808",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_judged_however_a_url_spells_it() {
        for url in [
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://0xa9fea9fe/",
            "https://[::ffff:a00:1]/",
            "https://127.1/",
        ] {
            assert!(!Reach::Public.allows_host(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(Reach::Public.allows_host(&Url::parse("https://mcp.example/").unwrap()), "a name is judged when it is looked up");
    }

    #[test]
    fn loopback_is_within_reach_of_a_server_on_this_machine_and_a_private_network_is_not() {
        for (address, both, public) in [
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("10.0.0.1", false, false),
            ("8.8.8.8", true, true),
            ("0.0.0.0", false, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let allowed = [Reach::PublicAndLoopback, Reach::Public, Reach::Anywhere].map(|reach| reach.allows(address));
            assert_eq!(allowed, [both, public, true], "{address}");
        }
    }
}
