//! Which ways to an endpoint are left out for a while, because connections over them failed: passive ejection.
//!
//! ```text
//!            enough failures in a row                     time is over                one connection tries
//!   Counting ------------------------> Ejected(until) ------------------> (due) -----------------------> Probing
//!      ^                                  ^                                                                 |
//!      |                                  '------ it failed too: longer than before -----------------------|
//!      '------------------------------------------ it was answered -----------------------------------------'
//! ```
//!
//! What fails is one of three things ([`Subject`]): the application (an endpoint at one port), the way there (the peer agent at
//! an address), or a whole node. An endpoint is left out while any of the three is; whoever chooses asks for that, and uses
//! the ejected ones when there are no others. No clock and no chance in here: both come in as values.

mod entry;
mod report;
mod state;
#[cfg(test)]
mod tests;

pub use report::{Change, ChangeKind, EjectionSettings, Fault, Report, Standing, Subject};
pub use state::{Ejections, Row};
