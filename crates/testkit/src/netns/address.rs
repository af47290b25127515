//! Who gets which address in the laboratory. Pure; the same digits are readable in both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address of the control namespace on the wire.
pub const CONTROL_V4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 100);
/// Address of the control namespace on the wire, IPv6.
pub const CONTROL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, 0x100);

/// Reads the decimal digits of `number` as hexadecimal, so that node 12 is `::12`: people compare addresses by eye.
fn digits(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 0x100 + number / 10 % 10 * 0x10 + number % 10
}

/// Addresses of node `node` (from 1) on the wire.
#[must_use]
pub fn node_address(node: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(172, 31, 0, node), Ipv6Addr::new(0xfd00, 0x172, 0x31, 0, 0, 0, 0, digits(node)))
}

/// Addresses of pod `pod` on node `node`; pod 1 is the node's own address towards its pods, pods start at 2.
#[must_use]
pub fn pod_address(node: u8, pod: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(node), 0, 0, 0, digits(pod));
    (Ipv4Addr::new(10, 244, node, pod), v6)
}

/// Virtual addresses of service number `number`.
#[must_use]
pub fn cluster_ip(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 96, 0, number), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, digits(number)))
}

/// `ip:port` as iptables and people write it, with brackets around IPv6.
pub(crate) fn with_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_look_alike_in_both_families() {
        assert_eq!(pod_address(1, 12), ("10.244.1.12".parse().unwrap(), "fd00:10:244:1::12".parse().unwrap()));
        assert_eq!(node_address(2), ("172.31.0.2".parse().unwrap(), "fd00:172:31::2".parse().unwrap()));
        assert_eq!(cluster_ip(250), ("10.96.0.250".parse().unwrap(), "fd00:10:96::250".parse().unwrap()));
        assert_eq!((CONTROL_V4, CONTROL_V6), node_address(100));
    }
}
