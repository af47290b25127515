//! From a captured pod outwards: `serve` accepts, `decide` says where to, `connect` goes there.

mod decide;
#[cfg(test)]
mod decide_tests;

pub use decide::{Decision, Question, Surroundings, Target, TunnelPlan, decide};
