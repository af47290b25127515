//! `web`: the front page. `POST /buy` with `NUMBER ITEM CARD` asks catalog, cart and ledger, and answers with all of it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use clap::Args;
use hyper::Method;

use super::caller::Caller;
use super::ledger::GREETING;
use super::lines::Lines;
use super::serve::{self, Answer, bad_gateway};

/// Settings of the front page.
#[derive(Args, Clone, Debug)]
pub struct WebFlags {
    /// Where to listen
    #[arg(long, default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// The catalog
    #[arg(long)]
    pub catalog: SocketAddr,
    /// The cart
    #[arg(long)]
    pub cart: SocketAddr,
    /// The ledger
    #[arg(long)]
    pub ledger: SocketAddr,
    /// Keep connections open between calls
    #[arg(long)]
    pub keep_alive: bool,
}

#[derive(Debug)]
struct Shop {
    catalog: Caller,
    cart: Caller,
    ledger: SocketAddr,
}

/// Runs until SIGTERM.
///
/// # Errors
/// The address cannot be listened on.
pub async fn run(flags: WebFlags) -> Result<()> {
    let shop = Arc::new(Shop {
        catalog: Caller::new(flags.catalog, flags.keep_alive),
        cart: Caller::new(flags.cart, flags.keep_alive),
        ledger: flags.ledger,
    });
    let routes =
        Router::new().route("/", get(async || "welcome to the shop\n")).route("/buy", post(buy)).with_state(shop);
    serve::http(flags.listen, routes).await
}

async fn buy(State(shop): State<Arc<Shop>>, order: String) -> Answer {
    let mut words = order.split_whitespace();
    let (Some(number), Some(item), Some(card)) = (words.next(), words.next(), words.next()) else {
        return Err((StatusCode::BAD_REQUEST, "expected NUMBER ITEM CARD".to_owned()));
    };
    let (shelf, basket) = (format!("/price/{item}"), format!("/cart/{number}"));
    let price = shop.catalog.call(Method::GET, &shelf, String::new()).await;
    let price = price.map_err(|error| bad_gateway("catalog", &error))?;
    let held = shop.cart.call(Method::POST, &basket, format!("{item} for {card}")).await;
    let held = held.map_err(|error| bad_gateway("cart", &error))?;
    let booked = book(shop.ledger, &format!("{number} {card} {price}")).await;
    let booked = booked.map_err(|error| bad_gateway("ledger", &error))?;
    Ok(format!("{number} {held} at {price}, {booked}"))
}

async fn book(ledger: SocketAddr, entry: &str) -> Result<String> {
    let mut lines = Lines::connect(ledger).await?;
    let greeting = lines.expect().await?;
    ensure!(greeting == GREETING, "{greeting:?} is no greeting of a ledger");
    lines.send(format!("BOOK {entry}\n").as_bytes()).await?;
    let booked = lines.expect().await?;
    ensure!(booked == format!("BOOKED {entry}"), "booked something else: {booked:?}");
    lines.finish().await?;
    Ok(booked)
}
