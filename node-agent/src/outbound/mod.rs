//! From a captured pod outwards: `serve` accepts, `decide` says where to, `reach` goes there with `connect`, or to the next one.
//! `ways` says whom a failure speaks against.

mod connect;
mod decide;
#[cfg(test)]
mod decide_tests;
mod reach;
mod serve;
mod ways;

pub use decide::{Decision, Question, Surroundings, Target, TunnelPlan, decide};
pub use serve::serve_outbound;
