//! Connections that are opened, used once and then kept open.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::closed::connect;
use super::drive::PATIENCE;
use super::server::HELD;
use super::wire::Exchange;

/// Threads that open.
const OPENERS: usize = 8;

/// Open connections, and how long opening took.
#[derive(Debug)]
pub struct Held {
    /// They close when this is dropped.
    pub streams: Vec<TcpStream>,
    /// For all of them.
    pub took: Duration,
}

/// Opens `count` connections, each proved by one exchange.
///
/// # Errors
/// The first that fails.
pub fn hold(address: IpAddr, count: usize) -> Result<Held> {
    let begin = Instant::now();
    let parts: Result<Vec<_>> = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS)
            .map(|opener| {
                scope.spawn(move || {
                    (opener..count).step_by(OPENERS).map(|number| open(address, number)).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        openers.into_iter().map(|opener| opener.join().expect("an opener does not panic")).collect()
    });
    Ok(Held { streams: parts?.into_iter().flatten().collect(), took: begin.elapsed() })
}

fn open(address: IpAddr, number: usize) -> Result<TcpStream> {
    let target = SocketAddr::new(address, HELD[number / OPENERS % HELD.len()]);
    let exchange = Exchange::kept();
    let mut stream = connect(target).with_context(|| format!("connection {number}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&exchange.request)?;
    let mut answer = vec![0; exchange.answer];
    stream.read_exact(&mut answer).with_context(|| format!("answer on connection {number}"))?;
    Ok(stream)
}
