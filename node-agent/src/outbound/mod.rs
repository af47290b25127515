//! From a captured pod outwards: `serve` accepts, `decide` says where to, `connect` goes there.

mod connect;
mod decide;
#[cfg(test)]
mod decide_tests;
mod serve;

pub use decide::{Decision, Question, Surroundings, Target, TunnelPlan, decide};
pub use serve::serve_outbound;
