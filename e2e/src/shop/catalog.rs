//! `catalog`: prices, from files that a real nginx serves.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use hyper::Method;

use super::caller::Caller;
use super::serve::{self, Answer, bad_gateway};

/// Settings of the catalog.
#[derive(Args, Clone, Debug)]
pub struct CatalogFlags {
    /// Where to listen
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// The nginx with `prices.txt` (lines `ITEM PRICE`)
    #[arg(long)]
    pub files: SocketAddr,
    /// Keep connections open between calls
    #[arg(long)]
    pub keep_alive: bool,
}

/// Runs until SIGTERM.
///
/// # Errors
/// The address cannot be listened on.
pub async fn run(flags: CatalogFlags) -> Result<()> {
    let files = Arc::new(Caller::new(flags.files, flags.keep_alive));
    serve::http(flags.listen, Router::new().route("/price/{item}", get(price)).with_state(files)).await
}

async fn price(State(files): State<Arc<Caller>>, Path(item): Path<String>) -> Answer {
    let list = files.call(Method::GET, "/prices.txt", String::new()).await.map_err(|e| bad_gateway("nginx", &e))?;
    let price = list.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == item);
    price.map(|(_, price)| price.to_owned()).ok_or((StatusCode::NOT_FOUND, format!("no {item} in the catalog")))
}
