//! What becomes of policies, written where their authors look: the conditions `Accepted` and `Enforced`, and an Event on a refused one.
//!
//! ```text
//! streams -> acknowledged (of our agents) -> the replica's Lease -.
//!                                                                  v
//! pipeline (what is programmed) ------------------> knowledge (who holds which policy) -> judge -> conditions
//! ```
//!
//! Every replica says what its agents have acknowledged; the one that leads puts it together and writes. `knowledge` and `judge` are pure.

mod acknowledged;
mod judge;
mod knowledge;
mod run;

pub use acknowledged::Acknowledged;
pub use run::{StatusParts, start};
