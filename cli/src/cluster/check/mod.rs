//! `weft check`: what is wrong in a cluster, each with what to do. With `--pre`, before anything is installed.
//!
//! | module | does |
//! |---|---|
//! | [`finding`] | one thing that was looked at, and whether it is as it should be |
//! | [`seen`] | what is looked at, as values |
//! | `gather`, `proxy`, `cni` | ask the API server and the programs for it |
//! | [`plane`], [`node`], [`pods`], [`certificates`] | what of it is a finding (pure) |
//! | [`pre`] | the same for a cluster without Weft |
//! | [`run`], `print` | the command |

pub mod certificates;
mod cni;
pub mod finding;
mod gather;
pub mod node;
pub mod plane;
pub mod pods;
pub mod pre;
mod print;
mod proxy;
pub mod run;
pub mod seen;
#[cfg(test)]
mod tests;
