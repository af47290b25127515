//! Programs that cannot start, or not wholly: each says what is wrong and what to do, in words, and never serves half.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_model::view::ConfigView;
use weft_testkit::agents::{Extra, binary};
use weft_testkit::enter_or_skip;
use weft_testkit::wait;

use crate::ask::answers;
use crate::checks::Checks;
use crate::world::{Cast, SOON, World};

/// A program that cannot start says so at once.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Runs "$@" where none of the packet filter's programs exists; other mounts stay.
const WITHOUT_IPTABLES: &str = "for d in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $d; done; exec \"$@\"";

/// Ends with a failure, and standard error holds every one of `words`.
fn fails(mut command: Command, words: &[&str]) -> Result<()> {
    let start = Instant::now();
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it ended well: {text}");
    ensure!(start.elapsed() < AT_ONCE, "only after {:?}: {text}", start.elapsed());
    ensure!(!text.contains("panicked"), "a panic: {text}");
    let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
    ensure!(missing.is_empty(), "no word of {missing:?} in: {text}");
    Ok(())
}

#[test]
fn programs_that_cannot_start_say_why_and_what_to_do() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::default()).unwrap();
    let base = world.cluster.lab().directory().join("weft");
    let (tokens, plain_file) = (base.join("node-tokens"), base.join("node1/token"));
    let source = format!("dir:{}", world.cluster.directory().root().display());
    let mut checks = Checks::default();
    let server = |words: &[&str]| -> Result<Command> {
        let mut command = world.cluster.lab().control().command("timeout");
        command.arg("10").arg(binary("weft-xds-server")?).args(words);
        Ok(command)
    };
    let node = |words: &[&str]| -> Result<Command> {
        let mut command = world.cluster.lab().node(1).command("timeout");
        command.arg("10").arg(binary("weft-node-agent")?).args(words);
        Ok(command)
    };
    let text = |path: &std::path::Path| path.display().to_string();
    let fresh = text(&base.join("fresh"));
    let common = ["--source", &source, "--node-tokens", &text(&tokens), "--state-dir", &fresh].map(str::to_owned);
    let common: Vec<&str> = common.iter().map(String::as_str).collect();
    checks.check("server: a taken --admin port", || {
        let words = [&common[..], &["--listen", "127.0.0.1:16012", "--admin", "0.0.0.0:15014"]].concat();
        fails(server(&words)?, &["--admin", "0.0.0.0:15014", "in use"])
    });
    checks.check("server: a taken --listen port", || {
        let words = [&common[..], &["--listen", "[::]:15012", "--admin", "127.0.0.1:16014"]].concat();
        fails(server(&words)?, &["--listen", "15012", "in use"])
    });
    checks.check("server: a state directory that cannot be", || {
        let state = text(&plain_file.join("state"));
        let words = ["--source", &source, "--node-tokens", &text(&tokens), "--state-dir", &state].map(str::to_owned);
        fails(server(&words.each_ref().map(String::as_str))?, &[&text(&plain_file), "Not a directory"])
    });
    checks.check("server: no node tokens, no source", || {
        fails(server(&["--source", &source, "--node-tokens", "/nowhere", "--state-dir", &fresh])?, &["/nowhere"])?;
        let tokens = text(&tokens);
        let words = ["--source", "dir:/nowhere", "--node-tokens", &tokens, "--state-dir", &fresh];
        fails(server(&words)?, &["--source", "/nowhere"])?;
        fails(server(&["--source", "somewhere", "--node-tokens", &tokens])?, &["dir:PATH"])
    });
    checks.check("capture: no iptables", || {
        fails(without_iptables(&world, &source)?, &["iptables", "install the package"])
    });
    checks.check("capture: no source, no place for the socket, a second one of the node", || {
        let handover = text(&base.join("spare/handover.sock"));
        fails(
            node(&["capture", "--node", "node1", "--handover", &handover, "--source", "dir:/nowhere"])?,
            &["--source", "/nowhere"],
        )?;
        let nowhere = text(&plain_file.join("sub/handover.sock"));
        fails(node(&["capture", "--node", "node1", "--handover", &nowhere, "--source", &source])?, &["--handover"])?;
        let taken = text(&base.join("node1/handover.sock"));
        fails(node(&["capture", "--node", "node1", "--handover", &taken, "--source", &source])?, &["handover.sock"])
    });
    checks.check("proxy: taken ports", || {
        let handover = text(&base.join("spare/handover.sock"));
        let words = ["proxy", "--node", "node1", "--handover", &handover, "--xds-address", "172.31.0.100:15012"];
        fails(node(&words)?, &["--admin", "127.0.0.1:15000", "in use"])?;
        let free = ["--admin", "127.0.0.1:16000"];
        fails(node(&[&words[..], &free].concat())?, &["--metrics", "15020", "in use"])?;
        fails(node(&[&words[..3], &["--xds-address", "nonsense"]].concat())?, &["HOST:PORT"])
    });
    checks.check("the running ones are not disturbed", || answers(&cast.client, cast.far_vip.at(false, 80)));
    checks.check("proxy: roots that are not there are named, until they are; nothing is in force meanwhile", || {
        missing_roots(&mut world, &cast)
    });
    checks.end(&world);
}

/// The capture half where no program of the packet filter is installed.
fn without_iptables(world: &World, source: &str) -> Result<Command> {
    let handover = world.cluster.lab().directory().join("weft/spare/handover.sock");
    let agent = binary("weft-node-agent")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", WITHOUT_IPTABLES, "sh"]);
    // nsenter and timeout lie in /usr/bin.
    let netns = format!("--net=/run/netns/{}", world.cluster.lab().node(1).netns());
    command.args(["nsenter", &netns, "--", "timeout", "10"]).arg(agent);
    command.args(["capture", "--node", "node1", "--source", source, "--handover"]).arg(handover);
    Ok(command)
}

fn missing_roots(world: &mut World, cast: &Cast) -> Result<()> {
    let roots = world.cluster.lab().directory().join("weft/server/root-cert.pem");
    let pem = fs::read(&roots)?;
    fs::remove_file(&roots)?;
    let proxy = &mut world.mesh().agents[1].proxy;
    proxy.terminate()?;
    proxy.restart()?;
    wait::eventually(SOON, "the missing file in weft config", || {
        let view: ConfigView = world.agent(2, "config")?;
        let error = view.control_plane.and_then(|plane| plane.last_error).context("no error")?;
        ensure!(error.contains("root-cert.pem"), "{error}");
        anyhow::Ok(())
    })?;
    fs::write(&roots, pem)?;
    world.mesh().agents[1].proxy.wait_ready()?;
    answers(&cast.client, cast.far_vip.at(false, 80))
}
