//! Everything an agent knows, as one immutable value: `apply` makes the next version, look-ups read one version.

mod balance;
#[cfg(test)]
mod balance_tests;
mod endpoints;
mod index;
mod lookup;
#[cfg(test)]
mod tests;

pub use balance::{Chosen, EndpointRequest, choose};
pub use endpoints::EndpointSet;
pub use index::Mesh;
