//! Addresses that must not be mixed up, each a type of its own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where the application wanted to go, before capture: a VIP or a pod address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OriginalDst(pub SocketAddr);

/// Where our next TCP connection goes: `podIP:15008`, or the application's own address for plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop(pub SocketAddr);

/// An IP address inside one network. The same address may exist in several networks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The network's name; empty is the default network.
    pub network: Arc<str>,
    /// The address.
    pub address: IpAddr,
}

impl NetworkAddress {
    /// An address in a network.
    #[must_use]
    pub fn new(network: impl Into<Arc<str>>, address: IpAddr) -> Self {
        Self { network: network.into(), address }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

impl fmt::Debug for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
