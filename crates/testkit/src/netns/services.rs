//! The kube-proxy of the laboratory: ClusterIPs by DNAT in each node, for clients that no mesh serves.
//! The rule text is pure; `Lab::set_services` commits it, one `iptables-restore` per node and family.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::with_port;
use super::pod::Pod;

/// A service with virtual addresses in both families.
#[derive(Clone, Debug)]
pub struct ClusterService {
    /// Name, used in comments only.
    pub name: String,
    /// Virtual addresses.
    pub v4: Ipv4Addr,
    /// As `v4`.
    pub v6: Ipv6Addr,
    /// TCP ports: of the service, and of the pods.
    pub ports: Vec<(u16, u16)>,
    /// Pods behind it; none: connections are refused.
    pub endpoints: Vec<Pod>,
}

impl ClusterService {
    fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }
}

/// The input of `iptables-restore --noflush` (`v6`: of `ip6tables-restore`). Chains are declared anew, so this replaces
/// what was there; the jumps to them are not part of it.
pub(crate) fn rules(services: &[ClusterService], v6: bool) -> String {
    let mut nat = "*nat\n:LAB_SERVICES - [0:0]\n:LAB_HAIRPIN - [0:0]\n".to_owned();
    let mut filter = "*filter\n:LAB_EMPTY - [0:0]\n".to_owned();
    for service in services {
        let virtual_address = service.address(v6);
        for (port, target) in &service.ports {
            let matching = format!("-d {virtual_address} -p tcp --dport {port}");
            let count = service.endpoints.len();
            if count == 0 {
                let _ = writeln!(filter, "-A LAB_EMPTY {matching} -j REJECT --reject-with tcp-reset");
            }
            for (index, endpoint) in service.endpoints.iter().enumerate() {
                // The first of n takes 1/n, the next 1/(n-1) of the rest, the last all that is left.
                let share = 1.0 / (count - index) as f64;
                let chance = if index + 1 == count {
                    String::new()
                } else {
                    format!(" -m statistic --mode random --probability {share:.10}")
                };
                let to = with_port(endpoint.address(v6), *target);
                let _ = writeln!(nat, "-A LAB_SERVICES {matching}{chance} -j DNAT --to-destination {to}");
            }
        }
        for endpoint in &service.endpoints {
            // A pod that reaches itself through its service: without this it would see its own address as the client's.
            let own = endpoint.address(v6);
            let _ = writeln!(nat, "-A LAB_HAIRPIN -s {own} -d {own} -j MASQUERADE");
        }
    }
    format!("{nat}COMMIT\n{filter}COMMIT\n")
}

/// The jumps into the chains: table, chain, target. Added once when the node is made.
pub(crate) const JUMPS: [(&str, &str, &str); 5] = [
    ("nat", "PREROUTING", "LAB_SERVICES"),
    ("nat", "OUTPUT", "LAB_SERVICES"),
    ("nat", "POSTROUTING", "LAB_HAIRPIN"),
    ("filter", "FORWARD", "LAB_EMPTY"),
    ("filter", "OUTPUT", "LAB_EMPTY"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::address::{cluster_ip, pod_address};

    fn pod(index: u8) -> Pod {
        let (v4, v6) = pod_address(1, index);
        Pod { node: 1, name: format!("pod{index}"), netns: String::new(), v4, v6 }
    }

    #[test]
    fn endpoints_share_evenly_and_none_refuses() {
        let (v4, v6) = cluster_ip(10);
        let mut service =
            ClusterService { name: "web".into(), v4, v6, ports: vec![(80, 8080)], endpoints: vec![pod(2), pod(3)] };
        let text = rules(std::slice::from_ref(&service), false);
        let dnat: Vec<&str> = text.lines().filter(|line| line.contains("DNAT")).collect();
        assert_eq!(
            dnat,
            [
                "-A LAB_SERVICES -d 10.96.0.10 -p tcp --dport 80 -m statistic --mode random --probability 0.5000000000 \
                 -j DNAT --to-destination 10.244.1.2:8080",
                "-A LAB_SERVICES -d 10.96.0.10 -p tcp --dport 80 -j DNAT --to-destination 10.244.1.3:8080",
            ]
        );
        assert!(rules(std::slice::from_ref(&service), true).contains("--to-destination [fd00:10:244:1::2]:8080"));
        service.endpoints.clear();
        assert!(rules(&[service], false).contains("-A LAB_EMPTY -d 10.96.0.10 -p tcp --dport 80 -j REJECT"));
    }
}
