//! The control plane: objects in, programs of the mesh told.
//!
//! `source` (what is written) -> `translate` (what it means; pure) -> catalog -> delta ADS.

pub mod config;
pub mod source;
pub mod translate;
