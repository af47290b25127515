//! Weft seen from outside: a small shop as workload, the demo, and the tests that run the real programs.

pub mod demo;
pub mod shop;
