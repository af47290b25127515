//! Clients and servers that live in a pod of the laboratory and look closely at how a connection begins and ends.
//!
//! `server` behaves in chosen ways and remembers each connection's end, `client` asks one question per function,
//! `load` asks all the time and counts what goes wrong.

mod client;
mod load;
mod server;

pub use client::{Outcome, connect, echo, greeting, half_close, outcome, read_until_end, reset, who_am_i};
pub use load::{Failure, Load, LoadPlan, Totals};
pub use server::{Behaviour, Ending, Record, Server};
