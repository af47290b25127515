//! What leads from one version of the mesh to the next. Pure.
//!
//! A translation is always the whole mesh. Comparing a resource with the one in force costs a tenth of encoding it, so everything
//! after this step (encoding, hashing, the index, the placement, the push) costs by what changed.

use std::collections::HashSet;

use weft_model::{Change, Mesh, Resource, ResourceKey};

/// See the [module](self).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// At most one for each key.
    pub changes: Vec<Change>,
    /// Keys that were given more than once; the first one counts.
    pub duplicates: Vec<ResourceKey>,
}

impl Changes {
    /// From the version before to exactly these resources.
    #[must_use]
    pub fn between(before: &Mesh, resources: Vec<Resource>) -> Self {
        let mut present: HashSet<ResourceKey> = HashSet::with_capacity(resources.len());
        let mut found = Self::default();
        for resource in resources {
            let key = resource.key();
            if present.contains(&key) {
                found.duplicates.push(key);
                continue;
            }
            present.insert(key);
            if !is_held(before, &resource) {
                found.changes.push(Change::Upsert(resource));
            }
        }
        let workloads = before.workloads().map(|workload| ResourceKey::Workload(workload.uid.clone()));
        let services = before.services().map(|service| ResourceKey::Service(service.key.clone()));
        let policies = before.policies().map(|policy| ResourceKey::Policy(policy.key.clone()));
        let held = workloads.chain(services).chain(policies);
        found.changes.extend(held.filter(|key| !present.contains(key)).map(Change::Remove));
        found
    }
}

fn is_held(mesh: &Mesh, resource: &Resource) -> bool {
    match resource {
        Resource::Workload(workload) => mesh.workload(&workload.uid).is_some_and(|held| **held == *workload),
        Resource::Service(service) => mesh.service(&service.key).is_some_and(|held| **held == *service),
        Resource::Policy(policy) => mesh.policy(&policy.key).is_some_and(|held| *held == *policy),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use weft_model::{Change, Mesh, Resource, Uid, Workload};
    use weft_wire::convert::ResourceType;
    use weft_wire::delta::Snapshot;

    use super::Changes;
    use crate::catalog::Catalog;
    use crate::placement::Placement;

    fn workload(name: &str, node: &str) -> Resource {
        let mut workload = Workload::named("c", "ns", name);
        (workload.node, workload.service_account) = (node.into(), name[..1].into());
        Resource::Workload(workload)
    }

    #[test]
    fn one_change_is_one_change() {
        let all: Vec<Resource> = (0..100).map(|number| workload(&format!("w{number}"), "n")).collect();
        let mesh = Mesh::default().apply(Changes::between(&Mesh::default(), all.clone()).changes);
        assert_eq!(Changes::between(&mesh, all.clone()), Changes::default());
        let mut next = all;
        next[7] = workload("w7", "other");
        next.push(workload("w8", "again"));
        let found = Changes::between(&mesh, next.clone());
        assert_eq!(found.changes, [Change::Upsert(next[7].clone())]);
        assert_eq!(found.duplicates.len(), 1);
        next.truncate(7);
        let found = Changes::between(&mesh, next);
        assert!(found.changes.len() == 93 && found.changes.iter().all(|change| matches!(change, Change::Remove(_))));
    }

    proptest! {
        /// Whatever the history: step by step leads where building everything afresh leads.
        #[test]
        fn steps_lead_to_the_same(versions in vec(btree_map("[a-d]", "[xy]?", 0..4), 1..12)) {
            let (mut mesh, mut catalog, mut placement) = (Mesh::default(), Catalog::new(), Placement::default());
            for version in versions {
                let resources: Vec<Resource> = version.iter().map(|(name, node)| workload(name, node)).collect();
                let found = Changes::between(&mesh, resources.clone());
                placement = placement.apply(&mesh, &found.changes);
                catalog = catalog.apply(&found.changes).0;
                mesh = mesh.apply(found.changes);
                let fresh = Catalog::new().update(&resources).0;
                let (fresh_placement, kind) = (Placement::of(&resources), ResourceType::Address);
                prop_assert_eq!(catalog.len(kind), resources.len());
                for (name, node) in &version {
                    let uid = Uid::of_pod("c", "ns", name);
                    prop_assert_eq!(catalog.get(kind, &uid.0), fresh.get(kind, &uid.0));
                    prop_assert_eq!(placement.node_of(&uid), fresh_placement.node_of(&uid));
                    prop_assert_eq!(mesh.workload(&uid).map(|workload| &*workload.node), Some(node.as_str()));
                }
                for (node, account) in ["x", "y"].into_iter().flat_map(|node| ["a", "b", "c", "d"].map(|account| (node, account))) {
                    let identity = format!("spiffe://cluster.local/ns/ns/sa/{account}").parse().unwrap();
                    prop_assert!(placement.runs_on(node, &identity) == fresh_placement.runs_on(node, &identity));
                }
            }
        }
    }
}
