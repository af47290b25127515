//! Which pods this agent serves now: written by the control thread, read by every worker.
//!
//! The workers need it for the short way between two pods of one node; the control thread for the number of connections
//! that it reports while a pod leaves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_model::SpiffeId;
use weft_model::spiffe::SpiffeError;
use weft_model::workload::{Uid, Workload};

use crate::handover::{Condition, PodInfo};
use crate::node_info::NodeInfo;
use crate::pods::PodUid;
use crate::worker::pod_load::PodLoad;

/// One pod that is captured and served.
#[derive(Debug, Clone)]
pub struct ServedPod {
    /// What the capture half says of it.
    pub info: Arc<PodInfo>,
    /// Who it is.
    pub identity: SpiffeId,
    /// It leaves the mesh: what is relayed goes on, nothing new takes the short way.
    pub leaving: bool,
    /// What it holds now, over all workers.
    pub load: Arc<PodLoad>,
}

impl ServedPod {
    /// How many connections are relayed for it now.
    #[must_use]
    pub fn relaying(&self) -> u64 {
        self.load.relaying()
    }
}

/// All pods that are served.
#[derive(Debug, Clone, Default)]
pub struct Served {
    pods: HashMap<PodUid, ServedPod>,
    by_workload: HashMap<Uid, PodUid>,
    complete: bool,
    retired: bool,
    in_touch: bool,
    condition: Arc<Condition>,
}

impl Served {
    /// The capture half has named all of its pods once. What is missing before that may be captured all the same, by the
    /// agent's former life: nobody may be told that it is not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Complete from now on.
    #[must_use]
    pub fn completed(&self) -> Self {
        Self { complete: true, ..self.clone() }
    }

    /// A newer proxy has taken every pod: what this one knows of them grows old, and is nobody's business any more.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Retired, until a pod is named again.
    #[must_use]
    pub fn retired(&self) -> Self {
        Self { retired: true, ..self.clone() }
    }

    /// The capture half is there, and has named its pods.
    #[must_use]
    pub fn is_in_touch(&self) -> bool {
        self.in_touch
    }

    /// With the capture half there, or away.
    #[must_use]
    pub fn in_touch(&self, in_touch: bool) -> Self {
        Self { in_touch, ..self.clone() }
    }

    /// How it stands with the capture of this node's pods, by the capture half's word.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// With another condition.
    #[must_use]
    pub fn in_condition(&self, condition: Condition) -> Self {
        Self { condition: Arc::new(condition), ..self.clone() }
    }

    /// With this pod, new or changed.
    ///
    /// # Errors
    /// Its names cannot be an identity.
    pub fn with(&self, node: &NodeInfo, info: Arc<PodInfo>) -> Result<Self, SpiffeError> {
        let identity = node.identity(&info)?;
        let mut next = self.clone();
        let load = next.pods.get(&info.uid).map_or_else(Arc::default, |pod| pod.load.clone());
        next.by_workload.insert(node.workload_uid(&info), info.uid.clone());
        next.pods.insert(info.uid.clone(), ServedPod { info, identity, leaving: false, load });
        next.retired = false;
        Ok(next)
    }

    /// With this pod about to leave.
    #[must_use]
    pub fn leaving(&self, uid: &PodUid) -> Self {
        let mut next = self.clone();
        if let Some(pod) = next.pods.get_mut(uid) {
            pod.leaving = true;
        }
        next
    }

    /// Without this pod.
    #[must_use]
    pub fn without(&self, uid: &PodUid) -> Self {
        let mut next = self.clone();
        next.pods.remove(uid);
        next.by_workload.retain(|_, owner| owner != uid);
        next
    }

    /// The pod with this uid.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&ServedPod> {
        self.pods.get(uid)
    }

    /// All pods, in no particular order.
    pub fn pods(&self) -> impl Iterator<Item = &ServedPod> {
        self.pods.values()
    }

    /// The pod behind a workload's address, if connections can be delivered to it here and now. Namespace and name are not
    /// enough: the mesh may still speak of the pod's former life, elsewhere or under another account.
    #[must_use]
    pub fn serving(&self, workload: &Workload, address: IpAddr) -> Option<&ServedPod> {
        let pod = self.pods.get(self.by_workload.get(&workload.uid)?)?;
        let same = *pod.info.service_account == *workload.service_account && pod.info.addresses.contains(&address);
        (same && !pod.leaving).then_some(pod)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use weft_model::Workload;

    use super::Served;
    use crate::handover::PodInfo;
    use crate::node_info::NodeInfo;

    fn node() -> NodeInfo {
        NodeInfo {
            name: "node-a".into(),
            network: "".into(),
            cluster: "Kubernetes".into(),
            trust_domain: "cluster.local".into(),
        }
    }

    fn web() -> PodInfo {
        PodInfo {
            uid: "uid-1".into(),
            name: "web".into(),
            namespace: "shop".into(),
            service_account: "shopper".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            node: "node-a".into(),
            strict: false,
        }
    }

    fn workload() -> Workload {
        let mut workload = Workload::named("Kubernetes", "shop", "web");
        workload.service_account = "shopper".into();
        workload
    }

    fn as_it_is(_: &mut Workload) {}

    fn and_stays(served: Served) -> Served {
        served
    }

    #[rstest]
    #[case::served(as_it_is, and_stays, "10.0.0.1", true)]
    #[case::at_another_address(as_it_is, and_stays, "10.0.0.2", false)]
    #[case::another_account(|workload: &mut Workload| workload.service_account = "thief".into(), and_stays, "10.0.0.1", false)]
    #[case::another_pod(|workload: &mut Workload| workload.uid = "Kubernetes//Pod/shop/other".into(), and_stays, "10.0.0.1", false)]
    #[case::leaving(as_it_is, |served: Served| served.leaving(&"uid-1".into()), "10.0.0.1", false)]
    #[case::gone(as_it_is, |served: Served| served.without(&"uid-1".into()), "10.0.0.1", false)]
    #[case::named_anew(as_it_is, |served: Served| served.leaving(&"uid-1".into()).with(&node(), Arc::new(web())).unwrap(), "10.0.0.1", true)]
    fn only_a_pods_present_life_is_served(
        #[case] change: fn(&mut Workload),
        #[case] then: fn(Served) -> Served,
        #[case] address: &str,
        #[case] expected: bool,
    ) {
        let mut workload = workload();
        change(&mut workload);
        let served = then(Served::default().with(&node(), Arc::new(web())).unwrap());
        assert_eq!(served.serving(&workload, address.parse().unwrap()).is_some(), expected);
    }

    #[test]
    fn a_new_life_of_the_same_name_takes_the_place_of_the_old_one() {
        let again = PodInfo { uid: "uid-2".into(), addresses: vec!["10.0.0.9".parse().unwrap()], ..web() };
        let served = Served::default().with(&node(), Arc::new(web())).unwrap().with(&node(), Arc::new(again)).unwrap();
        let uid =
            |served: &Served| served.serving(&workload(), "10.0.0.9".parse().unwrap()).map(|pod| pod.info.uid.clone());
        assert_eq!(uid(&served), Some("uid-2".into()));
        // The late removal of the old life does not take the new one with it.
        assert_eq!(uid(&served.without(&"uid-1".into())), Some("uid-2".into()));
    }
}
