//! Settings as the clients of the control plane want them.

use std::path::{Path, PathBuf};

use weft_identity::control::{ControlConnector, ControlRoots, ControlSecurity, LearntRoots};
use weft_wire::connect::{Connector, Credentials};
use weft_wire::delta::{NodeIdentity, StreamSettings};

use super::resolve::{ResolverError, resolver};
use crate::config::{ControlPlaneOptions, Endpoint};

/// Everything needed to talk to the control plane.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// To the discovery server.
    pub discovery: Connector,
    /// To the certificate authority.
    pub authority: Connector,
    /// Token and headers.
    pub credentials: Credentials,
    /// Who we say that we are.
    pub node: NodeIdentity,
    /// The roots that the CA gives: what both are believed by, too.
    pub learnt: LearntRoots,
    /// The files with the roots of both.
    pub root_files: Vec<PathBuf>,
}

/// The settings do not make sense together.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The address cannot be part of a request.
    #[error("'{address}' cannot be the address of the control plane: {cause}")]
    Address {
        /// What was given.
        address: String,
        /// Why not.
        cause: http::Error,
    },
    /// Names cannot be looked up.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
}

impl ControlPlane {
    /// Makes the connectors; nothing is connected yet.
    ///
    /// # Errors
    /// When an address is unusable.
    pub fn new(options: &ControlPlaneOptions, node: &str) -> Result<Self, PlaneError> {
        let learnt = LearntRoots::default();
        let ca_roots = options.ca_roots.as_ref().unwrap_or(&options.roots);
        let discovery = Target {
            endpoint: &options.xds_address,
            server_name: options.xds_server_name.as_deref(),
            roots: &options.roots,
        };
        let authority = Target {
            endpoint: options.ca_address.as_ref().unwrap_or(&options.xds_address),
            server_name: options.ca_server_name.as_deref().or(options.xds_server_name.as_deref()),
            roots: ca_roots,
        };
        let (discovery, authority) =
            (connector(options, &discovery, &learnt)?, connector(options, &authority, &learnt)?);
        let root_files = vec![options.roots.clone(), ca_roots.clone()];
        let credentials = Credentials {
            token_file: Some(options.token_file.clone()),
            cluster: options.cluster.clone(),
            headers: options.headers.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
        };
        let node = node_identity(options, node);
        Ok(Self { discovery, authority, credentials, node, learnt, root_files })
    }

    /// Settings of the discovery stream.
    #[must_use]
    pub fn stream(&self) -> StreamSettings {
        StreamSettings::everything(self.node.clone(), self.credentials.clone())
    }
}

/// One of the two servers.
struct Target<'a> {
    endpoint: &'a Endpoint,
    server_name: Option<&'a str>,
    roots: &'a Path,
}

fn connector(
    options: &ControlPlaneOptions,
    target: &Target<'_>,
    learnt: &LearntRoots,
) -> Result<Connector, PlaneError> {
    let Target { endpoint, server_name, roots } = *target;
    let address = endpoint.to_string();
    let origin = http::Uri::builder().scheme("https").authority(address.as_str()).path_and_query("/").build();
    let origin = origin.map_err(|cause| PlaneError::Address { address, cause })?;
    let security = if options.control_plane_plaintext {
        ControlSecurity::Plaintext
    } else {
        // ztunnel's word for the machine's own roots.
        let roots = match roots.to_str() {
            Some("SYSTEM") => ControlRoots::System,
            _ => ControlRoots::File(roots.to_owned()),
        };
        ControlSecurity::Tls { roots, server_name: server_name.map(ToOwned::to_owned) }
    };
    let connector = ControlConnector::new(security, resolver(&endpoint.host)?).with_learnt(learnt.clone());
    Ok(connector.into_wire(origin))
}

/// `ztunnel~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN`: the first word is how istiod learns what kind of proxy it serves
/// (ztunnel's `ISTIO_META_*`).
fn node_identity(options: &ControlPlaneOptions, node: &str) -> NodeIdentity {
    let (pod, namespace) = (options.pod_name.as_deref().unwrap_or(node), options.pod_namespace.as_str());
    let id = format!("ztunnel~{}~{pod}.{namespace}~{namespace}.svc.{}", options.instance_ip, options.cluster_domain);
    let known = [
        ("NAME", pod.to_owned()),
        ("NAMESPACE", namespace.to_owned()),
        ("INSTANCE_IPS", options.instance_ip.to_string()),
        ("NODE_NAME", node.to_owned()),
        ("CLUSTER_ID", options.cluster.clone()),
        ("NETWORK", options.network.clone()),
        ("WEFT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let mut metadata: std::collections::BTreeMap<String, String> = known
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    metadata.extend(options.metadata.iter().map(|pair| (pair.name.clone(), pair.value.clone())));
    NodeIdentity { id, metadata }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::ControlPlane;
    use crate::config::{Arguments, Half};

    fn plane(words: &str) -> ControlPlane {
        let words = format!("weft-node-agent proxy --node node-a {words}");
        let Half::Proxy { proxy, .. } = Arguments::parse_from(words.split_whitespace()).half else {
            panic!("not the proxy half")
        };
        ControlPlane::new(&proxy.control_plane, "node-a").unwrap()
    }

    #[test]
    fn a_stock_istiod_learns_what_it_needs() {
        let plane = plane(
            "--xds-address 10.0.0.1:15012 --pod-name weft-x --pod-namespace istio-system --instance-ip 10.0.0.9 \
             --node-metadata ISTIO_VERSION=1.31.0 --cluster c1 --network n1",
        );
        assert_eq!(plane.node.id, "ztunnel~10.0.0.9~weft-x.istio-system~istio-system.svc.cluster.local");
        assert_eq!(plane.node.metadata["NODE_NAME"], "node-a");
        assert_eq!(plane.node.metadata["ISTIO_VERSION"], "1.31.0");
        assert_eq!(plane.node.metadata["NETWORK"], "n1");
        assert_eq!(plane.credentials.cluster, "c1");
        assert_eq!(plane.authority.origin(), plane.discovery.origin());
    }

    #[test]
    fn the_authority_may_live_elsewhere() {
        let plane = plane("--xds-address [fd00::1]:15012 --ca-address 10.0.0.2:15013");
        assert_eq!(plane.discovery.origin().authority().unwrap().as_str(), "[fd00::1]:15012");
        assert_eq!(plane.authority.origin().authority().unwrap().as_str(), "10.0.0.2:15013");
    }
}
