//! How connections end across the border: either side first, resets, drains and restarts of either program.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use weft_testkit::netns::Pod;
use weft_testkit::traffic::{Behaviour, Ending, Outcome, Server, connect, echo, outcome, read_until_end, reset};
use weft_testkit::wait;

use crate::stage::{APP, EFFECT, Stage, anywhere};
use crate::stage_or_skip;

/// Ends its own direction at once, then counts what still comes.
fn ends_first(pod: &Pod) -> Result<JoinHandle<std::io::Result<usize>>> {
    let listener = pod.run(|| TcpListener::bind(("::", APP)))??;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"my last words")?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())
    }))
}

#[test]
fn the_server_may_end_first() {
    let stage = stage_or_skip!("the_server_may_end_first");
    for (from, to) in [(&stage.ours, &stage.theirs), (&stage.theirs, &stage.ours)] {
        let counted = ends_first(to).unwrap();
        let mut stream = connect(&from.netns, Stage::app(to, false), EFFECT).unwrap();
        assert_eq!(read_until_end(&stream).unwrap(), "my last words");
        stream.write_all(&[7; 100_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(counted.join().unwrap().unwrap(), 100_000);
    }
}

/// What ztunnel does on either side of the tunnel: a reset ends as an orderly end. Between
/// two agents of ours it stays a reset; across the border our log is what still tells.
#[test]
fn resets_become_orderly_ends_across_the_border() {
    let stage = stage_or_skip!("resets_become_orderly_ends_across_the_border");
    for (from, to) in [(&stage.ours, &stage.theirs), (&stage.theirs, &stage.ours)] {
        let server = Server::start(&to.netns, anywhere(), Behaviour::Reset).unwrap();
        assert_eq!(outcome(&from.netns, Stage::app(to, false), EFFECT), Outcome::Closed, "{} resets", to.name);
        drop(server);
        let server = Server::start(&to.netns, anywhere(), Behaviour::Echo).unwrap();
        let stream = connect(&from.netns, Stage::app(to, false), EFFECT).unwrap();
        echo(&stream, b"here").unwrap();
        reset(stream);
        let records = server.wait_finished(1, EFFECT).unwrap();
        assert_eq!(records[0].ending, Ending::Fin, "the client in {} resets", from.name);
    }
    stage.wait_our_log(&["reason=reset", "direction=inbound", "reset by the server"]).unwrap();
    stage.wait_our_log(&["reason=reset", "direction=outbound", "reset by the client"]).unwrap();
}

#[test]
fn ztunnel_drains_and_comes_back() {
    let mut stage = stage_or_skip!("ztunnel_drains_and_comes_back");
    let _server = Server::start(&stage.theirs.netns, anywhere(), Behaviour::Echo).unwrap();
    let to = Stage::app(&stage.theirs, false);
    let live = connect(&stage.ours.netns, to, EFFECT).unwrap();
    echo(&live, b"before").unwrap();
    stage.ztunnel.process().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    stage.wait_their_log(&["shutdown"]).unwrap();
    // GOAWAY: what is open goes on until its deadline.
    echo(&live, b"while it drains").unwrap();
    stage.ztunnel.process_mut().wait_end(Duration::from_secs(20)).unwrap();
    wait::until(EFFECT, "the end of what was open", || echo(&live, b"after").is_err()).unwrap();
    assert!(!matches!(outcome(&stage.ours.netns, to, EFFECT), Outcome::Answered(_)), "nobody carries it");
    stage.ztunnel.restart().unwrap();
    stage.ztunnel.wait_ready().unwrap();
    wait::until(EFFECT, "an answer again", || matches!(outcome(&stage.ours.netns, to, EFFECT), Outcome::Answered(_)))
        .unwrap();
    stage.assert_only_hbone().unwrap();
}

#[test]
fn our_agent_drains_and_comes_back() {
    let mut stage = stage_or_skip!("our_agent_drains_and_comes_back");
    let _server = Server::start(&stage.ours.netns, anywhere(), Behaviour::Echo).unwrap();
    let to = Stage::app(&stage.ours, false);
    let live = connect(&stage.theirs.netns, to, EFFECT).unwrap();
    echo(&live, b"before").unwrap();
    let proxy = &mut stage.mesh.agents[0].proxy;
    proxy.process().signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    wait::until(EFFECT, "the drain", || proxy.process().output().contains("drain")).unwrap();
    for _ in 0..20 {
        echo(&live, b"while it drains").unwrap();
        wait::pause(Duration::from_millis(20));
    }
    drop(live);
    proxy.process_mut().wait_end(Duration::from_secs(20)).unwrap();
    proxy.restart().unwrap();
    proxy.wait_ready().unwrap();
    wait::until(EFFECT, "an answer again", || matches!(outcome(&stage.theirs.netns, to, EFFECT), Outcome::Answered(_)))
        .unwrap();
    stage.assert_only_hbone().unwrap();
}
