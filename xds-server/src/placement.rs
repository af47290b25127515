//! Which pod runs where, and as whom: what the certificate authority and the nodes' reports are checked against. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weft_model::{Resource, SpiffeId, Uid};

/// One version of the truth, as the source has it.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    nodes: HashMap<Uid, Arc<str>>,
    identities: HashSet<(Arc<str>, SpiffeId)>,
}

impl Placement {
    /// Of everything that was translated.
    #[must_use]
    pub fn of(resources: &[Resource]) -> Self {
        let mut placement = Self::default();
        for resource in resources {
            let Resource::Workload(workload) = resource else { continue };
            if workload.node.is_empty() {
                continue;
            }
            placement.nodes.insert(workload.uid.clone(), workload.node.clone());
            if let Ok(identity) = workload.identity() {
                placement.identities.insert((workload.node.clone(), identity));
            }
        }
        placement
    }

    /// The node that a workload runs on.
    #[must_use]
    pub fn node_of(&self, uid: &Uid) -> Option<&Arc<str>> {
        self.nodes.get(uid)
    }

    /// Whether some pod on the node runs as the identity.
    #[must_use]
    pub fn runs_on(&self, node: &str, identity: &SpiffeId) -> bool {
        self.identities.contains(&(node.into(), identity.clone()))
    }
}

#[cfg(test)]
mod tests {
    use weft_model::{Resource, Uid, Workload};

    use super::Placement;

    #[test]
    fn says_who_runs_where() {
        let mut cart = Workload::named("c", "shop", "cart-1");
        (cart.node, cart.service_account) = ("node-a".into(), "cart".into());
        let nowhere = Workload::named("c", "shop", "pending");
        let placement = Placement::of(&[Resource::Workload(cart), Resource::Workload(nowhere)]);
        assert_eq!(placement.node_of(&Uid::of_pod("c", "shop", "cart-1")).map(|node| &**node), Some("node-a"));
        assert_eq!(placement.node_of(&Uid::of_pod("c", "shop", "pending")), None);
        let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        assert!(placement.runs_on("node-a", &identity));
        assert!(!placement.runs_on("node-b", &identity));
        let other = "spiffe://cluster.local/ns/shop/sa/default".parse().unwrap();
        assert!(!placement.runs_on("node-a", &other), "a pod without node runs nowhere");
    }
}
