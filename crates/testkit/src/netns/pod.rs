//! A pod of the laboratory, as those who use it hold it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use anyhow::Result;

use super::namespace::{command_in, in_netns};

/// A pod: a namespace with one routed address per family. Cheap to clone; the lab owns the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Number of its node, from 1.
    pub node: u8,
    /// Name, unique in the lab.
    pub name: String,
    /// Name of its network namespace under /run/netns.
    pub netns: String,
    /// Address.
    pub v4: Ipv4Addr,
    /// Address.
    pub v6: Ipv6Addr,
}

impl Pod {
    /// A command that runs in the pod.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        command_in(&self.netns, program)
    }

    /// Runs `work` on a thread inside the pod: for sockets made in-process.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_netns(&self.netns, work)
    }

    /// Its address of one family.
    #[must_use]
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }
}
