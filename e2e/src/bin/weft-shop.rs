//! The shop's programs in one binary: `weft-shop web|catalog|cart|ledger|shopper`. What they do stands in `shop`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use weft_e2e::shop::{CartFlags, CatalogFlags, LedgerFlags, ShopperFlags, WebFlags, roles};

#[derive(Debug, Parser)]
#[command(about = "A small shop: the workload of Weft's demo and tests")]
struct Command {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The front page
    Web(WebFlags),
    /// Prices, from nginx
    Catalog(CatalogFlags),
    /// Carts, in Redis
    Cart(CartFlags),
    /// Payments, over TCP lines; speaks first
    Ledger(LedgerFlags),
    /// Buys at a steady rate and counts
    Shopper(ShopperFlags),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Command::parse().role {
        Role::Web(flags) => roles::web(flags).await,
        Role::Catalog(flags) => roles::catalog(flags).await,
        Role::Cart(flags) => roles::cart(flags).await,
        Role::Ledger(flags) => roles::ledger(flags).await,
        Role::Shopper(flags) => roles::shopper(flags).await,
    }
}
