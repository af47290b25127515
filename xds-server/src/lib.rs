//! The control plane: objects in, programs of the mesh told.
//!
//! `source` (what is written) -> `translate` (what it means; pure) -> `catalog` (versions; pure) -> `serve` (nodes meet it).

pub mod ca;
pub mod catalog;
pub mod config;
pub mod serve;
pub mod source;
pub mod translate;
