//! What really travels: packets captured from an interface, summed up per flow, searched for markers, checked for TLS.
//!
//! `tls` follows TLS records in one direction of a flow, `ledger` sums up frames (both pure), `capture` reads them from
//! the kernel on a thread of its own.

mod capture;
mod ledger;
mod tls;

pub use capture::Capture;
pub use ledger::{Flow, Ledger, Protocol, Report};
pub use tls::RecordTrack;
