//! The control plane: objects in, programs of the mesh told.
//!
//! `source` (what is written) -> `translate` (what it means; pure) -> `difference` (what is new in it; pure) -> `catalog` (versions; pure) -> `serve` (nodes meet it);
//! `status` says what became of policies (on Kubernetes); `ca` issues certificates to whom `placement` says; `pipeline` and `app` join the parts.

pub mod app;
pub mod ca;
pub mod catalog;
pub mod config;
pub mod difference;
mod ground;
pub mod pipeline;
pub mod placement;
mod sections;
pub mod serve;
pub mod source;
pub mod status;
pub mod translate;
