//! What is fuzzed: one function per kind of input.

mod certificates;
mod config;
mod cuts;
mod heads;
mod http2;
mod outcome;
mod table;
mod wire;

pub use outcome::Outcome;
pub use table::{TARGETS, Target, by_name};
