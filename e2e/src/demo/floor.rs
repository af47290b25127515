//! The shop on its two nodes: pods, services, and the programs in them.
//!
//! | node1 | node2 |
//! |---|---|
//! | shopper, visitor, web-1, cart-1, prices (nginx) | web-2, cart-2, catalog-1, ledger-1, redis-1, echo-1 |

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use weft_testkit::agents::binary;
use weft_testkit::mesh::{Cluster, PodPlan, ServicePlan};
use weft_testkit::netns::Pod;
use weft_testkit::process::Process;
use weft_testkit::programs;
use weft_testkit::traffic::{Behaviour, Server, connect};

use super::shopper::Shopper;

/// The Kubernetes namespace of the shop.
pub(crate) const NAMESPACE: &str = "shop";
/// The card number that must never be seen on the wire.
pub(crate) const MARKER: &str = "4111-MARKER";
/// Port of every HTTP service.
const HTTP: u16 = 80;
/// Port of the echo service.
pub(crate) const ECHO: u16 = 7;
/// A program of the shop listens within some ms of its start; two busy cores may take longer.
const READY: Duration = Duration::from_secs(10);

/// Virtual addresses of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Virtual {
    v4: IpAddr,
    v6: IpAddr,
    port: u16,
}

impl Virtual {
    /// Of one family.
    #[must_use]
    pub(crate) fn at(self, v6: bool) -> SocketAddr {
        SocketAddr::new(if v6 { self.v6 } else { self.v4 }, self.port)
    }
}

/// The programs that run, and where.
#[derive(Debug)]
pub(crate) struct Floor {
    /// Where the load comes from.
    pub(crate) shopper: Pod,
    /// Somebody else of the same namespace, with a service account of its own.
    pub(crate) visitor: Pod,
    /// The front page.
    pub(crate) web: Virtual,
    /// The cart.
    pub(crate) cart: Virtual,
    /// The echo service.
    pub(crate) echo: Virtual,
    _echo_server: Server,
    _programs: Vec<Process>,
}

impl Floor {
    /// Makes pods and services, starts every program, and waits until all listen.
    ///
    /// # Errors
    /// A program is missing (names `make setup` or `cargo build`) or does not come up (with its log).
    pub(crate) fn open(cluster: &mut Cluster) -> Result<Self> {
        cluster.namespace(NAMESPACE, &[])?;
        let shopper = pod(cluster, "shopper", "shopper-1", 1)?;
        let visitor = pod(cluster, "visitor", "visitor-1", 1)?;
        let prices = pod(cluster, "prices", "prices-1", 1)?;
        let redis = pod(cluster, "redis", "redis-1", 2)?;
        let catalog = pod(cluster, "catalog", "catalog-1", 2)?;
        let ledger = pod(cluster, "ledger", "ledger-1", 2)?;
        let echo = pod(cluster, "echo", "echo-1", 2)?;
        let carts = [pod(cluster, "cart", "cart-1", 1)?, pod(cluster, "cart", "cart-2", 2)?];
        let webs = [pod(cluster, "web", "web-1", 1)?, pod(cluster, "web", "web-2", 2)?];
        let prices_at = service(cluster, "prices", HTTP, 8080)?;
        let redis_at = service(cluster, "redis", 6379, 6379)?;
        let catalog_at = service(cluster, "catalog", HTTP, 8080)?;
        let ledger_at = service(cluster, "ledger", 7000, 7000)?;
        let cart_at = service(cluster, "cart", HTTP, 8080)?;
        let web_at = service(cluster, "web", HTTP, 8080)?;
        let echo_at = service(cluster, "echo", ECHO, ECHO)?;

        let echo_server = Server::start(&echo.netns, SocketAddr::new("::".parse()?, ECHO), Behaviour::Echo)?;
        let mut programs = vec![nginx(cluster, &prices)?];
        let data = cluster.lab().directory().join("redis");
        programs.push(cluster.lab().start("redis", programs::redis(&redis, &data, 6379)?)?);
        // Each hop uses another family than the one before, so that every purchase crosses both.
        let catalog_words = ["catalog", "--keep-alive", "--files", &prices_at.at(true).to_string()].map(str::to_owned);
        programs.push(start(cluster, &catalog, &catalog_words)?);
        programs.push(start(cluster, &ledger, &["ledger".to_owned()])?);
        for (index, cart) in carts.iter().enumerate() {
            let redis_at = redis_at.at(index == 0).to_string();
            programs.push(start(cluster, cart, &["cart", "--keep-alive", "--redis", &redis_at].map(str::to_owned))?);
        }
        for (index, web) in webs.iter().enumerate() {
            let v6 = index == 1;
            let (catalog, cart, ledger) = (catalog_at.at(v6), cart_at.at(!v6), ledger_at.at(v6));
            let words = format!("web --keep-alive --catalog {catalog} --cart {cart} --ledger {ledger}");
            programs.push(start(cluster, web, &words.split(' ').map(str::to_owned).collect::<Vec<_>>())?);
        }
        let listening = [(&prices, 8080), (&redis, 6379), (&catalog, 8080), (&ledger, 7000)].into_iter();
        let listening = listening.chain(carts.iter().chain(&webs).map(|pod| (pod, 8080)));
        for ((pod, port), process) in listening.zip(&mut programs) {
            for v6 in [false, true] {
                let address = SocketAddr::new(pod.address(v6), port);
                process.wait_ready(READY, "listening", || Ok(connect(&pod.netns, address, READY).map(drop)?))?;
            }
        }
        Ok(Self {
            shopper,
            visitor,
            web: web_at,
            cart: cart_at,
            echo: echo_at,
            _echo_server: echo_server,
            _programs: programs,
        })
    }

    /// Starts the load: one shopper on kept connections over IPv4, one on new connections over IPv6.
    ///
    /// # Errors
    /// The program has not been built.
    pub(crate) fn shoppers(&self, cluster: &Cluster, rate: u32) -> Result<Vec<Shopper>> {
        [("kept", false), ("new", true)]
            .into_iter()
            .map(|(name, v6)| {
                let (web, rate) = (self.web.at(v6).to_string(), rate.to_string());
                let mut command = self.shopper.command(binary("weft-shop")?);
                command.args(["shopper", "--card", MARKER, "--rate", &rate, "--web", &web]);
                if !v6 {
                    command.arg("--keep-alive");
                }
                Ok(Shopper::new(cluster.lab().start(&format!("shopper-{name}"), command)?))
            })
            .collect()
    }
}

fn pod(cluster: &mut Cluster, app: &str, name: &str, node: u8) -> Result<Pod> {
    cluster.pod(PodPlan::new(NAMESPACE, app, name, node))
}

fn service(cluster: &mut Cluster, app: &str, port: u16, target: u16) -> Result<Virtual> {
    let addresses = cluster.service(ServicePlan::new(NAMESPACE, app, port, target))?;
    let (v4, v6) = addresses.context("a service with virtual addresses")?;
    Ok(Virtual { v4, v6, port })
}

fn start(cluster: &Cluster, pod: &Pod, words: &[String]) -> Result<Process> {
    let mut command: Command = pod.command(binary("weft-shop")?);
    command.args(words);
    cluster.lab().start(&pod.name, command)
}

fn nginx(cluster: &Cluster, pod: &Pod) -> Result<Process> {
    let directory = cluster.lab().directory().join("nginx");
    std::fs::create_dir_all(directory.join("www"))?;
    std::fs::write(directory.join("www/prices.txt"), "teapot 12.50\nkettle 29.90\n")?;
    // nginx ends a kept connection after 1000 requests by itself; here it shall not be the one that ends anything.
    let server = "server { listen 8080; listen [::]:8080; root www; keepalive_requests 1000000; }";
    cluster.lab().start(&pod.name, programs::nginx(pod, &directory, server)?)
}
