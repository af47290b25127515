//! The head of a tunnel: what a CONNECT request says, and what a refusal answers.
//!
//! Each part is text both ways, parsed strictly where it decides something (the authority) and tolerantly where it only
//! labels telemetry (baggage, forwarded, traceparent). The wire: `docs/hbone.md`.

mod authority;
mod baggage;
mod forwarded;
mod head;
mod refusal;
#[cfg(test)]
mod tests;
mod traceparent;

pub use authority::{Authority, AuthorityError};
pub use baggage::{Baggage, WorkloadKind};
pub use forwarded::Forwarded;
pub(crate) use head::{BAGGAGE, REASON_HEADER, header_text, is_header_value, merged};
pub use head::{ConnectHead, DecodeError, EncodeError};
pub use refusal::Refusal;
pub use traceparent::Traceparent;
