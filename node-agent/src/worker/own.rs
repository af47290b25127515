//! The mesh's view of a pod of this node.

use std::sync::Arc;

use weft_model::Mesh;
use weft_model::Workload;

use crate::handover::PodInfo;
use crate::node_info::NodeInfo;

/// The workload that a captured pod is; `None` while the mesh does not know it, or still describes another life of the
/// same name (a restarted `StatefulSet` pod): other account, other address, maybe other policies.
#[must_use]
pub fn own_workload<'a>(mesh: &'a Mesh, node: &NodeInfo, info: &PodInfo) -> Option<&'a Arc<Workload>> {
    let workload = mesh.workload(&node.workload_uid(info))?;
    let same_account = *workload.service_account == *info.service_account;
    let same_address = workload.addresses.is_empty()
        || info.addresses.is_empty()
        || workload.addresses.iter().any(|address| info.addresses.contains(address));
    (same_account && same_address).then_some(workload)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use weft_model::change::{Change, Resource};
    use weft_model::{Mesh, Workload};

    use super::own_workload;
    use crate::handover::PodInfo;
    use crate::node_info::NodeInfo;

    #[rstest]
    #[case::known("cart-0", "cart", &["10.0.0.1"], true)]
    #[case::not_known_yet("cart-1", "cart", &["10.0.0.1"], false)]
    #[case::another_account("cart-0", "thief", &["10.0.0.1"], false)]
    #[case::its_former_life_elsewhere("cart-0", "cart", &["10.0.9.9"], false)]
    #[case::one_address_of_two("cart-0", "cart", &["fd00::1", "10.0.0.1"], true)]
    #[case::no_address_to_compare("cart-0", "cart", &[], true)]
    fn the_pods_present_life(
        #[case] name: &str,
        #[case] account: &str,
        #[case] mesh_has: &[&str],
        #[case] known: bool,
    ) {
        let mut workload = Workload::named("Kubernetes", "shop", name);
        workload.service_account = account.into();
        workload.addresses = mesh_has.iter().map(|address| address.parse().unwrap()).collect();
        let mesh = Mesh::default().apply(vec![Change::Upsert(Resource::Workload(workload))]);
        let node =
            NodeInfo { name: "n".into(), network: "".into(), cluster: "Kubernetes".into(), trust_domain: "td".into() };
        let pod = PodInfo {
            uid: "uid".into(),
            name: "cart-0".into(),
            namespace: "shop".into(),
            service_account: "cart".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: "n".into(),
            strict: false,
        };
        assert_eq!(own_workload(&mesh, &node, &pod).is_some(), known);
    }
}
