//! What a test wants to exist: a pod, a service. Values only.

/// Label and annotation maps, in order.
pub type Pairs = Vec<(String, String)>;

/// A pod to be made.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name, unique in the lab over all namespaces.
    pub name: String,
    /// Node number, from 1.
    pub node: u8,
    /// Service account; the name of the app unless chosen.
    pub account: String,
    /// Labels; `app` is the given app.
    pub labels: Pairs,
    /// Annotations besides `weft.dev/netns`.
    pub annotations: Pairs,
    /// Condition Ready.
    pub ready: bool,
    /// Named container ports, for services whose targetPort is a name.
    pub ports: Vec<(String, u16)>,
}

impl PodPlan {
    /// Pod `name` of app `app` (label `app`, service account `app`) on node `node`; ready.
    #[must_use]
    pub fn new(namespace: &str, app: &str, name: &str, node: u8) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node,
            account: app.to_owned(),
            labels: vec![("app".to_owned(), app.to_owned())],
            annotations: Vec::new(),
            ready: true,
            ports: Vec::new(),
        }
    }
}

/// A service to be made.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels of its pods.
    pub selector: Pairs,
    /// TCP ports: of the service, of the pods.
    pub ports: Vec<(u16, u16)>,
    /// Without virtual addresses (`clusterIP: None`).
    pub headless: bool,
}

impl ServicePlan {
    /// Service `app` over the pods with label `app`.
    #[must_use]
    pub fn new(namespace: &str, app: &str, port: u16, target: u16) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: app.to_owned(),
            selector: vec![("app".to_owned(), app.to_owned())],
            ports: vec![(port, target)],
            headless: false,
        }
    }

    pub(super) fn selects(&self, pod: &PodPlan) -> bool {
        pod.ready && pod.namespace == self.namespace && self.selector.iter().all(|pair| pod.labels.contains(pair))
    }
}
