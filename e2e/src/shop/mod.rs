//! A small shop of five programs in one binary (`weft-shop ROLE`): what people run on a mesh, small enough to read.
//!
//! ```text
//!   shopper --HTTP--> web --HTTP--> catalog --HTTP--> nginx (price list)
//!                      |---HTTP--> cart ----RESP--> redis
//!                      `---lines-> ledger (speaks first)
//! ```
//! Every purchase crosses all of them and carries the card number, so a marker in it shows wherever plaintext travels.

mod caller;
mod cart;
mod catalog;
mod ledger;
mod lines;
mod redis;
mod serve;
mod shopper;
mod web;

pub(crate) use caller::LIFE;
pub use cart::CartFlags;
pub use catalog::CatalogFlags;
pub use ledger::LedgerFlags;
pub use shopper::{ShopError, ShopperFlags, Totals};
pub use web::WebFlags;

/// The roles, each with its `run`.
pub mod roles {
    pub use super::cart::run as cart;
    pub use super::catalog::run as catalog;
    pub use super::ledger::run as ledger;
    pub use super::shopper::run as shopper;
    pub use super::web::run as web;
}
