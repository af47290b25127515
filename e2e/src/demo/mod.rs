//! `make demo`: two nodes, real programs, the mesh switched on under load, in seven steps that each claim something
//! and show whether it held.
//!
//! `run` walks the table of `steps`; `stage` holds what they act on (cluster, shop, wire, mesh); `floor` starts the
//! shop, `shopper` reads its load generators; `claim` and `show` are the words on the screen.

mod claim;
mod flags;
mod floor;
mod run;
mod shopper;
mod show;
mod stage;
mod steps;

pub use claim::{Claim, Outcome, table};
pub use flags::DemoFlags;
pub use run::run;
