//! Addresses as the mesh compares them.

use std::net::{IpAddr, SocketAddr};

/// IPv4 as IPv4, also when it came through an IPv6 socket. Anything else stays as it is, with the interface of a link-local
/// address.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, SocketAddrV6};

    use rstest::rstest;

    use super::canonical;

    #[rstest]
    #[case("10.0.0.1:80", "10.0.0.1:80")]
    #[case("[::ffff:10.0.0.1]:80", "10.0.0.1:80")]
    #[case("[2001:db8::1]:80", "[2001:db8::1]:80")]
    fn one_spelling_of_each(#[case] address: SocketAddr, #[case] expected: SocketAddr) {
        assert_eq!(canonical(address), expected);
    }

    #[test]
    fn a_link_local_address_keeps_its_interface() {
        let address = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 7));
        assert_eq!(canonical(address), address);
    }
}
