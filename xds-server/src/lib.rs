//! The control plane: reads Kubernetes objects, tells every node agent what follows from them, and issues certificates.
//!
//! ```text
//! source -> translate -> difference -> catalog -> serve
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`source`], `platform` | objects, from a directory or from Kubernetes |
//! | [`translate`] | objects to resources of the mesh (pure) |
//! | [`difference`] | which of them are new, changed or gone (pure) |
//! | [`catalog`] | each resource encoded once, with its version (pure) |
//! | [`serve`] | discovery and reports: the gRPC server that agents meet |
//! | [`ca`] | certificates, for the identities that [`placement`] has on the caller's node |
//! | [`status`] | on Kubernetes: what became of policies, written into their status |
//! | [`pipeline`], [`app`] | join the parts: one version from source to catalog; the whole program |

pub mod app;
pub mod ca;
pub mod catalog;
pub mod config;
pub mod difference;
pub mod pipeline;
pub mod placement;
mod platform;
mod sections;
pub mod serve;
pub mod source;
pub mod status;
pub mod translate;
