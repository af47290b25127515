//! A stock ztunnel as a neighbour: what an Istio node gives it, so that it runs under our control plane in a laboratory.
//!
//! The program itself is not part of this repository: `WEFT_PEER_ZTUNNEL` names it. `redirection` captures a pod as istio-cni
//! does, `zds` hands the pod's namespace over, `program` holds its settings.

mod program;
mod redirection;
mod zds;

pub use program::{REDIRECTED, plan};
pub use redirection::redirect;
pub use zds::{Exchange, ZdsPod, ZdsServer};
