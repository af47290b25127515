//! Weft seen from outside: a small shop as workload, the demo, the benchmark, the soak, a stock neighbour, and the tests that
//! run the real programs.

pub mod bench;
pub mod demo;
pub mod shop;
pub mod soak;
pub mod stock;
