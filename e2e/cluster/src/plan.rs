//! What a cluster is called and which addresses its parts have. Pure: everything else reads it from here.
//!
//! | what | cluster K (0 to 9), node I (from 1) |
//! |---|---|
//! | network of the nodes | 172.30.K.0/24, fd30:K::/64: .1 bridge and API server, .10+I node I, .254 this machine |
//! | pods of node I | 10.(244-K).I.0/24, fd31:K:I::/64; .1 their gateway, from which the kubelet probes |
//! | services | 10.(96+K).0.0/16, fd32:K::/108; .1 the API server, .10 DNS |

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How kube-proxy programs services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// The default of Kubernetes 1.34.
    Iptables,
    /// Stable since 1.33.
    Nftables,
}

impl ProxyMode {
    /// As kube-proxy's configuration writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// A cluster as it was asked for. Kept in its folder, so that later commands find the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Prefix of all that has a name on this machine.
    pub name: String,
    /// Which of the ten address ranges.
    pub index: u8,
    /// How many nodes.
    pub nodes: u8,
    /// How kube-proxy works.
    pub proxy: ProxyMode,
    /// IPv6 beside IPv4.
    pub dual_stack: bool,
    /// Programs, keys, logs and data; absolute.
    pub folder: PathBuf,
}

/// One node of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `node1`.
    pub name: String,
    /// Its addresses: IPv4, and IPv6 where the plan has it.
    pub addresses: (Ipv4Addr, Option<Ipv6Addr>),
    /// The ranges of its pods, with their lengths.
    pub pods: (String, Option<String>),
    number: u8,
}

impl Plan {
    /// All nodes, in order.
    #[must_use]
    pub fn all_nodes(&self) -> Vec<Node> {
        (1..=self.nodes).map(|number| self.node(number)).collect()
    }

    /// The node of that name.
    #[must_use]
    pub fn node_called(&self, name: &str) -> Option<Node> {
        self.all_nodes().into_iter().find(|node| node.name == name)
    }

    fn node(&self, number: u8) -> Node {
        Node {
            name: format!("node{number}"),
            addresses: (self.wire(10 + number), self.dual_stack.then(|| self.wire6(10 + u16::from(number)))),
            pods: (
                format!("10.{}.{number}.0/24", 244 - self.index),
                self.dual_stack.then(|| format!("fd31:{}:{number}::/64", self.index)),
            ),
            number,
        }
    }

    /// An address of the nodes' network.
    #[must_use]
    pub fn wire(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, last)
    }

    /// The same in IPv6.
    #[must_use]
    pub fn wire6(&self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd30, u16::from(self.index), 0, 0, 0, 0, 0, last)
    }

    /// Where the API server listens.
    #[must_use]
    pub fn server(&self) -> String {
        format!("https://{}:6443", self.wire(1))
    }

    /// The range of all pods, both families with a comma.
    #[must_use]
    pub fn pod_ranges(&self) -> String {
        self.both(format!("10.{}.0.0/16", 244 - self.index), format!("fd31:{}::/32", self.index))
    }

    /// The range of services, both families with a comma.
    #[must_use]
    pub fn service_ranges(&self) -> String {
        self.both(self.service_range4(), self.service_range6())
    }

    /// IPv4 alone.
    #[must_use]
    pub fn service_range4(&self) -> String {
        format!("10.{}.0.0/16", 96 + self.index)
    }

    /// IPv6 alone; at most /108, says the API server.
    #[must_use]
    pub fn service_range6(&self) -> String {
        format!("fd32:{}::/108", self.index)
    }

    /// A service's address.
    #[must_use]
    pub fn service(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.index, 0, last)
    }

    fn both(&self, v4: String, v6: String) -> String {
        if self.dual_stack { format!("{v4},{v6}") } else { v4 }
    }

    /// The network namespace with the bridge, where the control plane runs.
    #[must_use]
    pub fn bridge_netns(&self) -> String {
        format!("{}-net", self.name)
    }

    /// A node's network namespace.
    #[must_use]
    pub fn node_netns(&self, node: &Node) -> String {
        format!("{}-{}", self.name, node.name)
    }

    /// This machine's end of the wire to the bridge. A link's name has at most 15 bytes.
    #[must_use]
    pub fn machine_link(&self) -> String {
        format!("weft-kube{}", self.index)
    }

    /// The programs, shared by all clusters of a folder.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// What belongs to this cluster alone.
    #[must_use]
    pub fn own(&self, what: &str) -> PathBuf {
        self.folder.join("clusters").join(&self.name).join(what)
    }

    /// Keys and certificates.
    #[must_use]
    pub fn pki(&self, what: &str) -> PathBuf {
        self.own("pki").join(what)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.own("kubeconfig")
    }

    /// Where the plan of a cluster is kept.
    #[must_use]
    pub fn file(folder: &Path, name: &str) -> PathBuf {
        folder.join("clusters").join(name).join("plan.json")
    }
}

impl Node {
    /// Both addresses with a comma, as the kubelet wants them.
    #[must_use]
    pub fn ips(&self) -> String {
        let (v4, v6) = self.addresses;
        v6.map_or_else(|| v4.to_string(), |v6| format!("{v4},{v6}"))
    }

    /// Both ranges of pods.
    #[must_use]
    pub fn pod_ranges(&self) -> Vec<&str> {
        std::iter::once(&*self.pods.0).chain(self.pods.1.as_deref()).collect()
    }

    /// The bridge's end of its wire.
    #[must_use]
    pub fn bridge_port(&self) -> String {
        format!("port{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, ProxyMode};

    fn plan(index: u8, dual_stack: bool) -> Plan {
        Plan { name: "weft".to_owned(), index, nodes: 3, proxy: ProxyMode::Iptables, dual_stack, folder: "/f".into() }
    }

    #[test]
    fn ten_clusters_share_no_address_and_no_name_of_a_link() {
        let plans: Vec<Plan> = (0..10).map(|index| plan(index, true)).collect();
        let mut seen = std::collections::BTreeSet::new();
        for plan in &plans {
            assert!(plan.machine_link().len() <= 15);
            assert!(seen.insert(plan.machine_link()));
            for range in plan.service_ranges().split(',').chain(plan.pod_ranges().split(',')) {
                assert!(seen.insert(range.to_owned()), "{range}");
            }
            for node in plan.all_nodes() {
                assert!(seen.insert(node.ips()), "{}", node.ips());
                assert!(node.pod_ranges().iter().all(|range| seen.insert((*range).to_owned())));
            }
        }
    }

    #[test]
    fn one_family_or_two() {
        let node = plan(0, false).node_called("node2").unwrap();
        assert_eq!((node.ips(), node.pod_ranges()), ("172.30.0.12".to_owned(), vec!["10.244.2.0/24"]));
        let node = plan(1, true).node_called("node2").unwrap();
        assert_eq!(
            (node.ips(), node.pod_ranges()),
            ("172.30.1.12,fd30:1::c".to_owned(), vec!["10.243.2.0/24", "fd31:1:2::/64"])
        );
        assert_eq!(plan(0, false).node_called("node4"), None);
        let text = serde_json::to_string(&plan(3, true)).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan(3, true));
    }
}
