//! `:authority`: where the tunnel leads, after routing: `ip:port`, `[v6]:port` or `host:port`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest DNS name in bytes (RFC 1035 section 2.3.4), without the final dot.
const LONGEST_NAME: usize = 253;

/// The target of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// A pod, or a service address towards a waypoint.
    Address(SocketAddr),
    /// A service by name: across networks, or towards a waypoint.
    Host {
        /// Lower case, 1 to 253 bytes of letters, digits, `-`, `_` and `.`; never something that looks like an IPv4 address.
        name: Box<str>,
        /// 1 to 65535.
        port: u16,
    },
}

/// Why a text is no authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No `:port` at the end, or a port that is not 1 to 65535 in plain digits.
    #[error("authority needs a port from 1 to 65535")]
    Port,
    /// Neither an address nor a name.
    #[error("authority names neither an IP address nor a host")]
    Host,
}

impl Authority {
    /// The port that is asked for.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl From<SocketAddr> for Authority {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not SocketAddr's own form: a scope id is meaningless to the other node.
            Self::Address(SocketAddr::V6(address)) => write!(f, "[{}]:{}", address.ip(), address.port()),
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let (host, port) = text.rsplit_once(':').ok_or(AuthorityError::Port)?;
        let port = parse_port(port)?;
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AuthorityError::Host)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| AuthorityError::Host)?;
            return Ok(Self::Address(SocketAddr::new(IpAddr::V6(address), port)));
        }
        if let Ok(address) = host.parse() {
            return Ok(Self::Address(SocketAddr::new(IpAddr::V4(address), port)));
        }
        Ok(Self::Host { name: parse_name(host)?, port })
    }
}

fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    // `u16::from_str` would take a leading `+`.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AuthorityError::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(AuthorityError::Port)
}

fn parse_name(text: &str) -> Result<Box<str>, AuthorityError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels_fit = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    });
    // "1.2.3", "10.0.0.256" or "2130706433" are addresses to some resolvers and must not pass for names.
    let ends_in_number =
        name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()) || is_hex(last));
    if name.len() > LONGEST_NAME || !labels_fit || ends_in_number {
        return Err(AuthorityError::Host);
    }
    Ok(name.to_ascii_lowercase().into())
}

fn is_hex(label: &str) -> bool {
    label.len() > 2
        && (label.starts_with("0x") || label.starts_with("0X"))
        && label[2..].bytes().all(|byte| byte.is_ascii_hexdigit())
}
