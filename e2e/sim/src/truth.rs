//! The cluster as it is written: a few pods on two nodes, labels and policies that change, and every version there was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use weft_manifest::{Files, Objects, Store};
use weft_model::{Change, Mesh, Resource, Uid};
use weft_node_agent::capture::source::pods;
use weft_node_agent::pods::PodSpec;
use weft_xds_server::translate::{MeshSettings, translate};

/// The nodes.
pub const NODES: [&str; 2] = ["node-a", "node-b"];
/// The port of every application.
pub const PORT: u16 = 8080;

/// One pod.
#[derive(Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its name, its `app` label, its service account and its network namespace.
    pub name: &'static str,
    /// Index into [`NODES`].
    pub node: usize,
    /// Its address.
    pub address: &'static str,
}

/// The pods.
pub const PODS: [PodFacts; 5] = [
    PodFacts { namespace: "shop", name: "web", node: 0, address: "10.1.0.1" },
    PodFacts { namespace: "shop", name: "db", node: 0, address: "10.1.0.2" },
    PodFacts { namespace: "shop", name: "cart", node: 1, address: "10.2.0.1" },
    PodFacts { namespace: "out", name: "visitor", node: 1, address: "10.2.0.2" },
    PodFacts { namespace: "out", name: "batch", node: 0, address: "10.1.0.3" },
];

/// The namespaces.
pub const NAMESPACES: [&str; 2] = ["shop", "out"];

/// Policies that come and go, all of namespace `shop`: name, and everything below `spec`.
pub const POLICIES: [(&str, &str); 5] = [
    (
        "web-to-cart",
        "{targetRefs: [{group: '', kind: Pod, selector: {matchLabels: {app: cart}}}], action: Allow, rules: [{from: [{serviceAccounts: [shop/web]}]}]}",
    ),
    ("no-strangers", "{action: Deny, rules: [{from: [{namespaces: [out]}]}]}"),
    ("default-deny", "{action: Allow}"),
    (
        "cart-to-db",
        "{targetRefs: [{group: '', kind: Pod, selector: {matchLabels: {app: db}}}], action: Allow, rules: [{from: [{serviceAccounts: [shop/cart]}], to: [{ports: [8080]}]}]}",
    ),
    (
        "db-is-closed",
        "{targetRefs: [{group: '', kind: Pod, selector: {matchLabels: {app: db}}}], action: Deny, rules: [{from: [{notFrom: [{namespaces: [shop]}]}]}]}",
    ),
];

impl PodFacts {
    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
    }

    /// Its name in the mesh.
    #[must_use]
    pub fn uid(&self) -> Uid {
        Uid::of_pod(&MeshSettings::default().cluster, self.namespace, self.name)
    }
}

/// What is written now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Namespaces with the label.
    pub enrolled: BTreeSet<usize>,
    /// Namespaces in strict mode.
    pub strict: BTreeSet<usize>,
    /// Pods that opted out.
    pub opted_out: BTreeSet<usize>,
    /// Policies that are there.
    pub policies: BTreeSet<usize>,
    /// The Namespaces' file cannot be read.
    pub broken: bool,
}

impl Facts {
    /// As files.
    #[must_use]
    pub fn files(&self) -> Files {
        let mut contents = BTreeMap::new();
        let mut put = |path: &str, text: String| contents.insert(Arc::from(path), Ok(Arc::from(text.into_bytes())));
        let namespaces = if self.broken { "kind: [Namespace\n".to_owned() } else { self.namespaces() };
        put("namespaces.yaml", namespaces);
        put("pods.yaml", self.pods());
        for policy in &self.policies {
            let (name, spec) = POLICIES[*policy];
            let head = "apiVersion: weft.dev/v1alpha1\nkind: AuthorizationPolicy\n";
            put(
                &format!("policy-{name}.yaml"),
                format!("{head}metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"),
            );
        }
        Files { contents, ..Files::default() }
    }

    fn namespaces(&self) -> String {
        let mut text = String::new();
        for (index, name) in NAMESPACES.iter().enumerate() {
            let mesh = if self.enrolled.contains(&index) { "enabled" } else { "disabled" };
            let mtls = if self.strict.contains(&index) { "strict" } else { "permissive" };
            let labels = format!("{{weft.dev/mesh: {mesh}, weft.dev/mtls: {mtls}}}");
            add(
                &mut text,
                format_args!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}"),
            );
        }
        text
    }

    fn pods(&self) -> String {
        let mut text = String::new();
        for (index, node) in NODES.iter().enumerate() {
            let status = format!("{{addresses: [{{type: InternalIP, address: 10.0.0.{}}}]}}", index + 1);
            add(&mut text, format_args!("apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nstatus: {status}"));
        }
        for (index, pod) in PODS.iter().enumerate() {
            let out = if self.opted_out.contains(&index) { ", weft.dev/mesh: disabled" } else { "" };
            let PodFacts { namespace, name, address, .. } = pod;
            let labels = format!("{{app: {name}{out}}}");
            let metadata = format!(
                "{{name: {name}, namespace: {namespace}, uid: {name}, labels: {labels}, annotations: {{weft.dev/netns: {name}}}}}"
            );
            let spec = format!("{{nodeName: {}, serviceAccountName: {name}}}", NODES[pod.node]);
            let status = format!("{{podIP: {address}, phase: Running}}");
            add(
                &mut text,
                format_args!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\nspec: {spec}\nstatus: {status}"),
            );
        }
        text
    }
}

fn add(text: &mut String, document: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "---\n{document}\n");
}

/// One version of what is in force, after the store has kept last good documents.
#[derive(Debug, Clone)]
pub struct Version {
    /// What was written, as facts. A broken file is another matter: see `objects`.
    pub facts: Facts,
    /// What counts.
    pub objects: Arc<Objects>,
    /// What it means, when nothing is captured: policies and identities, whatever the agents do.
    pub mesh: Mesh,
    /// The pods of each node as the capture halves want them.
    pub wanted: [Vec<PodSpec>; NODES.len()],
}

impl Version {
    /// A pod as the capture half of its node wants it.
    #[must_use]
    pub fn spec(&self, pod: usize) -> Option<&PodSpec> {
        self.wanted[PODS[pod].node].iter().find(|spec| spec.name == PODS[pod].name)
    }

    /// Whether a pod is selected for the mesh.
    #[must_use]
    pub fn selects(&self, pod: usize) -> bool {
        self.spec(pod).is_some_and(|spec| spec.enrolled)
    }
}

/// All versions.
#[derive(Debug)]
pub struct Truth {
    store: Store,
    versions: Vec<Version>,
}

impl Default for Truth {
    fn default() -> Self {
        let mut truth = Self { store: Store::default(), versions: Vec::new() };
        truth.write(Facts::default());
        truth
    }
}

impl Truth {
    /// The number of the newest version.
    #[must_use]
    pub fn now(&self) -> usize {
        self.versions.len() - 1
    }

    /// One version.
    #[must_use]
    pub fn version(&self, number: usize) -> &Version {
        &self.versions[number]
    }

    /// The facts of the newest version.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.versions[self.now()].facts
    }

    /// Writes the next version.
    pub fn write(&mut self, facts: Facts) {
        let files = facts.files();
        let objects = Arc::new(self.store.apply(&files).objects);
        let resources = translate(&objects, &BTreeSet::new(), &MeshSettings::default());
        let mesh = mesh_of(resources);
        let wanted = NODES.map(|node| pods(&objects, node));
        self.versions.push(Version { facts, objects, mesh, wanted });
    }
}

/// An index of these resources.
#[must_use]
pub fn mesh_of(resources: Vec<Resource>) -> Mesh {
    Mesh::default().apply(resources.into_iter().map(Change::Upsert).collect())
}
