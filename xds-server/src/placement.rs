//! Which pod runs where, and as whom: what the certificate authority and the nodes' reports are checked against. Pure.

use std::sync::Arc;

use rpds::HashTrieMapSync as Map;
use weft_model::{Change, Mesh, Resource, ResourceKey, SpiffeId, Uid, Workload};

/// One version of the truth, as the source has it. The next one shares what did not change.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    nodes: Map<Uid, Arc<str>>,
    /// How many pods of the node run as that.
    identities: Map<(Arc<str>, SpiffeId), usize>,
}

impl Placement {
    /// Of everything that was translated.
    #[must_use]
    pub fn of(resources: &[Resource]) -> Self {
        let mut placement = Self::default();
        for resource in resources {
            if let Resource::Workload(workload) = resource {
                placement.put(workload);
            }
        }
        placement
    }

    /// The next version; `before` is the mesh that the changes are to.
    #[must_use]
    pub fn apply(&self, before: &Mesh, changes: &[Change]) -> Self {
        let mut next = self.clone();
        for change in changes {
            match change {
                Change::Upsert(Resource::Workload(workload)) => {
                    next.take(before, &workload.uid);
                    next.put(workload);
                }
                Change::Remove(ResourceKey::Workload(uid)) => next.take(before, uid),
                Change::Upsert(Resource::Service(_) | Resource::Policy(_))
                | Change::Remove(ResourceKey::Service(_) | ResourceKey::Policy(_)) => {}
            }
        }
        next
    }

    fn put(&mut self, workload: &Workload) {
        if workload.node.is_empty() {
            return;
        }
        self.nodes.insert_mut(workload.uid.clone(), workload.node.clone());
        if let Ok(identity) = workload.identity() {
            let key = (workload.node.clone(), identity);
            let count = self.identities.get(&key).copied().unwrap_or_default();
            self.identities.insert_mut(key, count + 1);
        }
    }

    fn take(&mut self, before: &Mesh, uid: &Uid) {
        let Some(workload) = before.workload(uid).filter(|workload| !workload.node.is_empty()) else { return };
        self.nodes.remove_mut(uid);
        let Ok(identity) = workload.identity() else { return };
        let key = (workload.node.clone(), identity);
        match self.identities.get(&key).copied() {
            Some(count) if count > 1 => self.identities.insert_mut(key, count - 1),
            _ => drop(self.identities.remove_mut(&key)),
        }
    }

    /// The node that a workload runs on.
    #[must_use]
    pub fn node_of(&self, uid: &Uid) -> Option<&Arc<str>> {
        self.nodes.get(uid)
    }

    /// Whether some pod on the node runs as the identity.
    #[must_use]
    pub fn runs_on(&self, node: &str, identity: &SpiffeId) -> bool {
        self.identities.contains_key(&(node.into(), identity.clone()))
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
