//! Everything of Weft that reads what strangers write, as functions from bytes: for any bytes they neither panic, nor hang,
//! nor grow beyond bounds, and what they say of them holds together (what is written is read back, a certificate is
//! believed only if our root signed it, an answer is for the question).
//!
//! The same functions are run by three:
//!
//! | who | when |
//! |---|---|
//! | `tests/corpus.rs`: every seed, every earlier find | `make test` |
//! | `weft-fuzz run`: mutations of the seeds, guided by what comes out, on any toolchain | `make fuzz` |
//! | `libfuzzer/`: libFuzzer, guided by coverage; a package of its own, for `cargo fuzz` | by hand, see `README.md` |

pub mod corpus;
pub mod mutate;
pub mod runner;
pub mod targets;
