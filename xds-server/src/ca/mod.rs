//! The certificate authority of the mesh: who may get which certificate, and the root that signs.
//!
//! It imports nothing from the rest of the control plane: who calls and which pods run where are functions that it is given,
//! so it can become a program of its own one day. How certificates are made is `weft-identity`'s.
//!
//! | module | gives |
//! |---|---|
//! | [`root`] | the root's files: made at first start, or given |
//! | [`policy`] | the decision on one request: pure |
//! | [`serve`] | `IstioCertificateService` over gRPC |

pub mod policy;
pub mod root;
pub mod serve;

pub use root::{RootError, RootSource, load};
pub use serve::{CaMetrics, CertificateService, Identify, RunsOn};
