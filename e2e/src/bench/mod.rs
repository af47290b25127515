//! `make bench`: Weft against the direct path, in one interleaved run of real programs on two nodes and on one.
//!
//! Pure: `statistics`, `figure` (what is asked), `results` (what it comes to), `table`. `load` generates and measures,
//! `account` reads what processes cost, `place` is a peer's laboratory; `rounds`, `memory`, ... are the parts of a run,
//! and `run` puts them together.

pub mod account;
pub mod allocations;
pub mod catalog;
pub mod figure;
pub mod flags;
pub mod load;
pub mod machine;
pub mod memory;
pub mod place;
pub mod results;
pub mod rounds;
pub mod run;
pub mod show;
pub mod statistics;
pub mod table;

pub use flags::BenchFlags;
pub use run::run;
