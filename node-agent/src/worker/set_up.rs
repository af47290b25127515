//! A connection while it is set up: counted for its pod, and for the address that it came from. It may begin on one worker and
//! end on another (a tunnel that is given away).

use std::net::IpAddr;
use std::sync::Arc;

use super::pod_load::{Counted, PodLoad, Way};

/// What a connection holds while it is set up: its drop says that it stands, or has failed.
#[derive(Debug)]
pub struct SetUp {
    load: Arc<PodLoad>,
    way: Way,
    peer: Option<IpAddr>,
    _begun: Counted,
}

impl SetUp {
    /// Of a pod's connection from that address. The pod's own calls have no peer but itself.
    #[must_use]
    pub fn begin(load: &Arc<PodLoad>, way: Way, client: IpAddr) -> Self {
        let peer = (way != Way::Outbound).then(|| client.to_canonical());
        peer.into_iter().for_each(|peer| load.peer_begins(way, peer));
        Self { load: load.clone(), way, peer, _begun: load.begin(way) }
    }
}

impl Drop for SetUp {
    fn drop(&mut self) {
        self.peer.into_iter().for_each(|peer| self.load.peer_ends(self.way, peer));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{PodLoad, SetUp, Way};

    #[test]
    fn an_address_counts_as_long_as_it_sets_up() {
        let load = Arc::<PodLoad>::default();
        let address = "10.0.0.1".parse().unwrap();
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let both = [SetUp::begin(&load, Way::Tunnel, address), SetUp::begin(&load, Way::Tunnel, mapped)];
        let _other = SetUp::begin(&load, Way::Inbound, address);
        let _own = SetUp::begin(&load, Way::Outbound, address);
        assert_eq!((load.of_peer(Way::Tunnel, address), load.of_peer(Way::Outbound, address)), (2, 0));
        assert_eq!((load.unfinished(Way::Tunnel), load.unfinished(Way::Outbound)), (2, 1));
        drop(both);
        assert_eq!((load.of_peer(Way::Tunnel, mapped), load.of_peer(Way::Inbound, address)), (0, 1));
    }
}
