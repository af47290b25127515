//! The generated messages and services, under the paths of their packages. Definitions: `proto/` of this crate.

#![expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    reason = "generated code writes every path in full"
)]

/// Istio's packages.
pub mod istio {
    /// `istio.workload`: workloads and services.
    pub mod workload {
        tonic::include_proto!("istio.workload");
    }
    /// `istio.security`: authorization.
    pub mod security {
        tonic::include_proto!("istio.security");
    }
    /// `istio.v1`.
    pub mod v1 {
        /// `istio.v1.auth`: the certificate authority.
        pub mod auth {
            tonic::include_proto!("istio.v1.auth");
        }
    }
}

/// `envoy.service.discovery.v3`: the delta discovery protocol.
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// `weft.node.v1`: what nodes tell the control plane.
pub mod node {
    tonic::include_proto!("weft.node.v1");
}
