//! Authorization: what a policy says, and what it means for one connection.

mod basis;
mod evaluate;
mod pattern;
mod policy;
#[cfg(test)]
mod tests;

pub use basis::Basis;
pub use evaluate::{Connection, Denial, Ground, Permit, ShadowDenial, Verdict, evaluate};
pub use pattern::StringMatch;
pub use policy::{Action, Group, Match, Mode, Policy, PolicyKey, PolicyKeyError, Rule, Scope, ServiceAccountMatch};
