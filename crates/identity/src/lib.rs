//! Keys, certificate requests, certificates, the check of a peer, TLS, and the store that keeps every workload of a node
//! supplied with a certificate.
//!
//! Line 2 of the layers, and the only home of rustls and X.509: nobody else builds a TLS configuration or reads a
//! certificate. Keys live in memory only. Identity rules are SPIFFE's (X.509-SVID) in Istio's spelling
//! (`docs/hbone.md`, "TLS").
//!
//! | module | gives |
//! |---|---|
//! | [`request`] | a fresh key with its certificate request; the check of a request on the CA's side |
//! | [`certificate`] | [`Credentials`]: key, chain, roots, validity, identity, as one value |
//! | [`verify`] | who the peer is, by chain and SPIFFE identity; [`verify::Roots`] is a set, for overlapping rotation |
//! | [`tls`] | the rustls configurations, and `accept` / `connect` on any byte stream |
//! | [`control`] | TLS between agents and the control plane, both ends, in the shapes that tonic takes |
//! | [`authority`] | who signs: the trait and the gRPC client |
//! | [`schedule`] | when to ask for which certificate: pure |
//! | [`store`] | one certificate per identity, shared by its pods, renewed ahead of time |
//! | [`signer`] | the CA itself: root, leaves, the control plane's own serving certificate |

pub mod authority;
pub mod certificate;
pub mod clock;
pub mod control;
pub mod request;
pub mod schedule;
pub mod signer;
pub mod store;
pub mod tls;
pub mod verify;

pub use authority::{AuthorityError, CertificateAuthority, RemoteAuthority};
pub use certificate::{Credentials, Validity};
pub use schedule::Priority;
pub use store::{Store, StoreError};
pub use tls::HandshakeError;
pub use verify::Roots;
