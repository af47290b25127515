//! The certificate authority of the mesh: who may get which certificate, and the root that signs.
//!
//! It imports nothing from the rest of the control plane: who calls and which pods run where are functions that it is given,
//! so it can become a program of its own one day. How certificates are made is `weft-identity`'s.
//!
//! | module | gives |
//! |---|---|
//! | [`root`], `files`, `pair` | loads the root's files: made at first start, or given; how files and the PEM in them are read and written |
//! | [`rotate`] | the steps of a rotation of the root, in files |
//! | `given` | a root by `--ca-cert` that is replaced: the same steps, in memory (pure) |
//! | [`keeper`] | watches files and clock while the server runs, and goes from step to step |
//! | [`shared`] | the root in a Secret of Kubernetes, the same for all replicas |
//! | [`steward`] | follows that Secret; on the leading replica it writes the steps of a rotation (`next_step` decides: pure) |
//! | [`policy`] | the decision on one request: pure |
//! | [`serve`] | `IstioCertificateService` over gRPC |

mod files;
mod given;
pub mod keeper;
mod next_step;
mod pair;
pub mod policy;
pub mod root;
pub mod rotate;
pub mod serve;
pub mod shared;
pub mod steward;

pub use files::RootError;
pub use keeper::{CaSettings, Keeper};
pub use root::{RootSource, load};
pub use serve::{CaMetrics, CertificateService, Identify, REQUEST_LIMIT, RunsOn};
