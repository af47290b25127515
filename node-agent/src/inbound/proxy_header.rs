//! The PROXY protocol's header, version 2: how a proxy in front of the application learns who comes (a "sandwiched"
//! waypoint, as Istio's agents write it; format: haproxy's proxy-protocol.txt, section 2.2).

use std::net::{IpAddr, Ipv6Addr};

use super::admit::Announcement;

/// The first twelve bytes.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_AND_COMMAND: u8 = 0x21;
/// TCP over IPv4 and IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// The client's SPIFFE identity; from the range for applications, chosen by ztunnel.
const TYPE_IDENTITY: u8 = 0xd0;

/// The header for a connection.
#[must_use]
pub(super) fn encode(announcement: &Announcement) -> Vec<u8> {
    let (source, destination) = (announcement.source, announcement.destination);
    let mut body = Vec::with_capacity(128);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend(from.octets());
            body.extend(to.octets());
            TCP4
        }
        // Mixed families can only be said in the larger one.
        (from, to) => {
            body.extend(as_ipv6(from).octets());
            body.extend(as_ipv6(to).octets());
            TCP6
        }
    };
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    if let Some(identity) = &announcement.identity {
        let text = identity.to_string();
        // An identity has less than 800 bytes (`weft_model::spiffe` limits each part), so both lengths fit.
        body.push(TYPE_IDENTITY);
        body.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut header = Vec::with_capacity(body.len() + 16);
    header.extend(SIGNATURE);
    header.extend([VERSION_AND_COMMAND, family]);
    header.extend(u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend(body);
    header
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Reads a header back; only the tests need it.
#[cfg(test)]
fn decode(header: &[u8]) -> Option<Announcement> {
    let body = header.strip_prefix(SIGNATURE)?.strip_prefix(&[VERSION_AND_COMMAND])?;
    let (family, body) = body.split_first()?;
    let (length, body) = body.split_first_chunk::<2>()?;
    assert_eq!(usize::from(u16::from_be_bytes(*length)), body.len());
    let octets = if *family == TCP4 { 4 } else { 16 };
    let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(short) => IpAddr::from(short),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    };
    let (from, rest) = body.split_at(octets);
    let (to, rest) = rest.split_at(octets);
    let (ports, rest) = rest.split_at(4);
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let identity = rest.get(3..).map(|text| std::str::from_utf8(text).unwrap().parse().unwrap());
    let at = |address, index| std::net::SocketAddr::new(address, port(index));
    Some(Announcement { source: at(ip(from), 0), destination: at(ip(to), 2), identity })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::{any, prop_assert_eq, proptest};
    use weft_model::SpiffeId;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(v6 in any::<bool>(), from in any::<u128>(), to in any::<u128>(), ports in any::<(u16, u16)>(), known in any::<bool>()) {
            let ip = |bits: u128| if v6 { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from(<[u8; 4]>::try_from(&bits.to_be_bytes()[..4]).unwrap()) };
            let announcement = Announcement {
                source: SocketAddr::new(ip(from), ports.0),
                destination: SocketAddr::new(ip(to), ports.1),
                identity: known.then(|| SpiffeId::new("cluster.local", "shop", "web").unwrap()),
            };
            prop_assert_eq!(decode(&encode(&announcement)), Some(announcement));
        }
    }

    #[test]
    fn bytes_as_the_specification_has_them() {
        let announcement = Announcement {
            source: "10.0.0.1:1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
            identity: None,
        };
        let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x50";
        assert_eq!(encode(&announcement), expected);
    }
}
