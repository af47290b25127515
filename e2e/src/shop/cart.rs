//! `cart`: what a customer has chosen, kept in a real Redis.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;

use super::redis::Redis;
use super::serve::{self, Answer, bad_gateway};

/// A cart is forgotten after this, seconds: the demo writes some thousands.
const KEEP: &str = "60";

/// Settings of the cart.
#[derive(Args, Clone, Debug)]
pub struct CartFlags {
    /// Where to listen
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// The Redis
    #[arg(long)]
    pub redis: SocketAddr,
    /// Keep connections open between calls
    #[arg(long)]
    pub keep_alive: bool,
}

/// Runs until SIGTERM.
///
/// # Errors
/// The address cannot be listened on.
pub async fn run(flags: CartFlags) -> Result<()> {
    let redis = Arc::new(Redis::new(flags.redis, flags.keep_alive));
    serve::http(flags.listen, Router::new().route("/cart/{id}", get(read).post(write)).with_state(redis)).await
}

/// Puts the body into the cart and answers with what Redis then holds.
async fn write(State(redis): State<Arc<Redis>>, Path(id): Path<String>, body: String) -> Answer {
    let key = format!("cart:{id}");
    redis.command(&["SET", &key, &body, "EX", KEEP]).await.map_err(|error| bad_gateway("redis", &error))?;
    read(State(redis), Path(id)).await
}

async fn read(State(redis): State<Arc<Redis>>, Path(id): Path<String>) -> Answer {
    let held = redis.command(&["GET", &format!("cart:{id}")]).await.map_err(|error| bad_gateway("redis", &error))?;
    held.ok_or((StatusCode::NOT_FOUND, format!("no cart {id}")))
}
