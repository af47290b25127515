//! Which connection carries the next tunnel to a peer: kept per key, dialled when needed, released when idle.
//!
//! [`ledger`] decides and knows no I/O; `pool` does. One pool per data worker: what a connection touches stays there.

mod dial;
pub mod ledger;
#[expect(clippy::module_inception, reason = "pool/pool.rs is the doing half beside pool/ledger.rs, the deciding one")]
mod pool;

pub use dial::{Dial, DialFailure, PoolKey};
pub use pool::{Patience, Pool, PoolCount, PoolDriver, PoolError, PoolSettings};
