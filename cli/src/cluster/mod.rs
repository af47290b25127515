//! `weft` for a Kubernetes cluster, with the rights of the user's kubeconfig.
//!
//! | module | does |
//! |---|---|
//! | [`manifests`], [`values`] | what is installed, and what of it can be set |
//! | `plan` | the values of an installation: what is there, and what is given |
//! | [`install`], [`uninstall`] | put it there, take it away, with progress |
//! | [`rollout`], `look` | whether a Deployment or DaemonSet is as it shall be (pure); what is asked for that |
//! | `object` | objects as plain values |
//! | [`enroll`] | a namespace in, and out |
//! | [`rotate`] | a new root for the mesh |
//! | [`pods`] | who is in the mesh, cluster-wide |
//! | [`check`] | what is wrong, and how to mend it |

pub mod check;
pub mod connect;
pub mod enroll;
pub mod install;
mod look;
pub mod manifests;
mod object;
pub mod options;
mod plan;
pub mod pods;
pub mod rollout;
pub mod rotate;
pub mod uninstall;
pub mod values;
