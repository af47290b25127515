//! How connections begin and end: half-close both ways, resets as resets, servers that speak first, closed ports. On each
//! way through the mesh: over a tunnel, on one node, and in plain from outside.

use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Ending, Outcome, Server, greeting, half_close, read_until_end, reset};

use crate::ask::{PROMPT, find, open, refused, talk};
use crate::checks::Checks;
use crate::world::{Apps, CLOSE, CLOSED, COUNT, ECHO, GREET, GREETING, PEER, RESET, World};

/// A server that speaks first is heard within this: 0.1 s were measured with a cold tunnel on a busy machine.
const FIRST_WORD: Duration = Duration::from_millis(800);
/// More than every buffer on the way holds.
const LONG: usize = 3_000_000;
const LATER: Duration = Duration::from_secs(5);

/// One way: who asks, at which address, and the servers there.
struct Way<'a> {
    name: &'static str,
    from: &'a Pod,
    to: IpAddr,
    apps: &'a Apps,
}

impl Way<'_> {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.to, port)
    }

    /// The record of the next connection that ends at a server while `work` runs.
    fn ends(&self, port: u16, work: impl FnOnce() -> Result<()>) -> Result<(Ending, u64)> {
        let server: &Server = self.apps.at(port);
        let before = server.finished().len();
        work()?;
        let records = server.wait_finished(before + 1, LATER)?;
        let record = records.get(before).context("one more")?;
        Ok((record.ending.clone(), record.bytes))
    }
}

#[test]
fn connections_begin_and_end_as_without_a_mesh() {
    enter_or_skip!();
    let (world, cast) = World::enrolled(&Extra::default()).unwrap();
    let ways = [
        Way { name: "over a tunnel, IPv4", from: &cast.client, to: cast.far.address(false), apps: &cast.far_apps },
        Way { name: "over a tunnel, IPv6", from: &cast.client, to: cast.far.address(true), apps: &cast.far_apps },
        Way { name: "on one node", from: &cast.client, to: cast.near.address(false), apps: &cast.near_apps },
        Way { name: "in plain from outside", from: &cast.hermit, to: cast.near.address(true), apps: &cast.near_apps },
    ];
    let mut checks = Checks::default();
    for way in &ways {
        let mut check = |name: &str, work: &dyn Fn(&Way<'_>) -> Result<()>| {
            checks.check(&format!("{}: {name}", way.name), || work(way));
        };
        check("a server that speaks first is heard at once", &speaks_first);
        check("the client ends its direction, and is answered after that", &client_half_closes);
        check("the server ends its direction, and hears on", &server_half_closes);
        check("an orderly end arrives as an orderly end", &orderly);
        check("the server's reset arrives as a reset", &server_resets);
        check("the client's reset arrives as a reset", &client_resets);
        check("a closed port refuses at once", &|way| refused(way.from, way.at(CLOSED)));
    }
    checks.end(&world);
}

fn speaks_first(way: &Way<'_>) -> Result<()> {
    let (words, took) = greeting(&way.from.netns, way.at(GREET), GREETING.len())?;
    ensure!(words == GREETING && took < FIRST_WORD, "{words:?} after {took:?}");
    Ok(())
}

fn client_half_closes(way: &Way<'_>) -> Result<()> {
    half_close(&way.from.netns, way.at(COUNT), LONG)?;
    Ok(())
}

fn server_half_closes(way: &Way<'_>) -> Result<()> {
    let (ending, bytes) = way.ends(PEER, || {
        let mut stream = open(way.from, way.at(PEER))?;
        read_until_end(&stream).context("the server's end")?;
        stream.write_all(&vec![7; LONG]).context("after the server's end")?;
        Ok(stream.shutdown(Shutdown::Write)?)
    })?;
    ensure!(ending == Ending::Fin && bytes == LONG as u64, "{ending:?} after {bytes} bytes");
    Ok(())
}

fn orderly(way: &Way<'_>) -> Result<()> {
    let found = find(way.from, way.at(CLOSE));
    ensure!(found == Outcome::Closed, "the server's end arrived as {found:?}");
    let (ending, _) = way.ends(ECHO, || talk(&open(way.from, way.at(ECHO))?))?;
    ensure!(ending == Ending::Fin, "the client's end arrived as {ending:?}");
    Ok(())
}

fn server_resets(way: &Way<'_>) -> Result<()> {
    let before = way.apps.at(RESET).accepted();
    let start = std::time::Instant::now();
    let found = find(way.from, way.at(RESET));
    ensure!(way.apps.at(RESET).accepted() == before + 1, "the server was not reached: {found:?}");
    ensure!(found == Outcome::Reset && start.elapsed() < PROMPT, "{found:?} after {:?}", start.elapsed());
    Ok(())
}

fn client_resets(way: &Way<'_>) -> Result<()> {
    let (ending, _) = way.ends(ECHO, || {
        let stream = open(way.from, way.at(ECHO))?;
        talk(&stream)?;
        reset(stream);
        Ok(())
    })?;
    ensure!(ending == Ending::Reset, "{ending:?}");
    Ok(())
}
