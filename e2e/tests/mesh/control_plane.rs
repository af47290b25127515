//! The control plane and its CA at their worst, with certificates that live for seconds: a root that is rotated, a CA that is
//! away until everything has expired, a directory that is empty, a state that is lost. No agent is restarted, and nothing
//! goes out in plain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_model::view::{CertificateRow, ConfigView, ConnectionRow, PodRow};
use weft_testkit::agents::{Extra, binary};
use weft_testkit::enter_or_skip;
use weft_testkit::netns::Pod;
use weft_testkit::stranger::{Answer, Authority, Credentials, ask_tunnel};
use weft_testkit::traffic::{Outcome, outcome};
use weft_testkit::wait;

use crate::ask::{answers, at, open, talk};
use crate::checks::Checks;
use crate::programs::Loads;
use crate::world::{Cast, ECHO, HBONE, SOON, World};

/// A rotation has two steps of a life and a quarter and a second each; and as much again for a busy machine.
const ROTATION: Duration = Duration::from_secs(40);
/// Without a certificate a connection waits 5 s for one before it is refused.
const REFUSAL: Duration = Duration::from_secs(10);
/// A CA that is back is found within 15 s (`weft_identity::schedule::Limits`), at once when the stream stands again.
const FOUND: Duration = Duration::from_secs(20);

fn state(world: &World) -> PathBuf {
    world.cluster.lab().directory().join("weft/server")
}

#[test]
fn the_mesh_goes_on_whatever_happens_to_roots_ca_directory_and_state() {
    enter_or_skip!();
    let (mut world, cast) = World::enrolled(&Extra::words("--certificate-life 4s", "", "")).unwrap();
    let mut checks = Checks::default();
    checks.check("a root is rotated under load: not one request fails, and only the new root is left", || {
        rotate(&world, &cast)
    });
    checks.check("nothing in plain while the root was rotated", || world.assert_encrypted().map(drop));
    checks
        .check("the CA is away until all certificates have expired: new tunnels are refused, live ones go on", || {
            ca_away(&mut world, &cast)
        });
    checks.check("it is back: everything works again, nothing was restarted", || ca_back(&mut world, &cast));
    checks.check("nothing in plain while there were no certificates", || world.assert_encrypted().map(drop));
    checks.check("a directory that is empty at a restart of the server takes nothing away", || {
        empty_directory(&mut world, &cast)
    });
    checks.check("the server's state is lost, CA and all: everybody takes the new root without a restart", || {
        state_lost(&mut world, &cast)
    });
    checks.check("nothing in plain after all this", || world.assert_encrypted().map(drop));
    checks.end(&world);
}

fn rotate(world: &World, cast: &Cast) -> Result<()> {
    let state = state(world);
    let (published, old) = (state.join("root-cert.pem"), Authority::of_server(&state)?);
    let before = fs::read_to_string(&published)?;
    let loads = Loads::start(&cast.client, cast.far_vip)?;
    rotate_root(&state, &["step 1 of 2"])?;
    wait::eventually(SOON, "both roots are published", || {
        let now = fs::read_to_string(&published)?;
        ensure!(now.len() > before.len() && now.contains(&before), "{now}");
        anyhow::Ok(())
    })?;
    opened(world, cast, &old.issue("spiffe://cluster.local/ns/shop/sa/client")?, true)?;
    wait::eventually(ROTATION, "the end of the rotation", || {
        loads.go_on()?;
        ensure!(!state.join("ca/next.pem").exists() && !state.join("ca/old.pem").exists(), "not yet");
        anyhow::Ok(())
    })?;
    // The published file follows the state.
    wait::eventually(SOON, "only the new root", || {
        let after = fs::read_to_string(&published)?;
        ensure!(!after.contains(&before) && after.len() < 2 * before.len(), "{after}");
        anyhow::Ok(())
    })?;
    let (new, client) = (Authority::of_server(&state)?, "spiffe://cluster.local/ns/shop/sa/client");
    wait::eventually(SOON, "every agent has forgotten the old root", || {
        opened(world, cast, &new.issue(client)?, true)?;
        opened(world, cast, &old.issue(client)?, false)
    })?;
    answers(&cast.other, cast.near_vip.at(true, 80))?;
    loads.end_clean()
}

fn rotate_root(state: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new(binary("weft-xds-server")?);
    let output = command.args(["rotate-root", "--state-dir"]).arg(state).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && words.iter().all(|word| text.contains(word)), "{text}");
    Ok(())
}

/// Whether a tunnel to `far` is opened for whoever has these credentials.
fn opened(_world: &World, cast: &Cast, credentials: &Credentials, expected: bool) -> Result<()> {
    let (far, target) = ("spiffe://cluster.local/ns/shop/sa/far", at(&cast.far, false, ECHO));
    let answer = ask_tunnel(&cast.hermit.netns, at(&cast.far, false, HBONE), credentials, far, target);
    let found = answer.as_ref().is_ok_and(|answer| *answer == Answer::Opened);
    ensure!(found == expected, "{answer:?}, expected to be opened: {expected}");
    Ok(())
}

fn certificates(world: &World, state: &str) -> Result<()> {
    for node in [1, 2] {
        let rows: Vec<CertificateRow> = world.agent(node, "certs")?;
        ensure!(!rows.is_empty() && rows.iter().all(|row| row.state == state), "node {node}: {rows:?}");
    }
    Ok(())
}

fn refused(pod: &Pod, to: std::net::SocketAddr) -> Result<()> {
    let found = outcome(&pod.netns, to, REFUSAL);
    ensure!(matches!(found, Outcome::Refused | Outcome::Reset), "{found:?}");
    Ok(())
}

fn ca_away(world: &mut World, cast: &Cast) -> Result<()> {
    let live = open(&cast.client, cast.far_vip.at(false, 80))?;
    talk(&live)?;
    world.mesh().server.kill9()?;
    wait::eventually(SOON, "all certificates are expired", || certificates(world, "expired"))?;
    refused(&cast.client, cast.far_vip.at(false, 80))?;
    wait::eventually(SOON, "the reason", || {
        let rows: Vec<ConnectionRow> = world.agent(1, "refusals")?;
        ensure!(rows.iter().any(|row| row.reason.as_deref() == Some("no-certificate")), "{rows:?}");
        anyhow::Ok(())
    })?;
    talk(&live).context("a live connection")?;
    answers(&cast.client, cast.near_vip.at(false, 80)).context("on one node no certificate is shown")?;
    let contact = world.metric(1, "weft_control_plane_last_contact_timestamp_seconds", &[])?;
    let connected = world.metric(1, "weft_control_plane_connected", &[])?;
    ensure!(contact > 0.0 && connected == 0.0, "contact {contact}, connected {connected}");
    Ok(())
}

fn ca_back(world: &mut World, cast: &Cast) -> Result<()> {
    world.mesh().server.restart()?;
    world.mesh().server.wait_ready()?;
    wait::eventually(FOUND, "an answer", || answers(&cast.client, cast.far_vip.at(false, 80)))?;
    wait::eventually(FOUND, "an answer the other way", || answers(&cast.other, cast.near_vip.at(true, 80)))
}

/// A volume that is not mounted yet.
fn empty_directory(world: &mut World, cast: &Cast) -> Result<()> {
    let (root, away) = (world.cluster.directory().root().to_owned(), world.cluster.lab().directory().join("away"));
    world.mesh().server.kill9()?;
    // As a whole, there and back: agents read it, too, and files that vanish one by one are removals (decision 21).
    fs::rename(&root, &away)?;
    fs::create_dir(&root)?;
    world.mesh().server.restart()?;
    world.mesh().server.wait_ready()?;
    wait::eventually(SOON, "an answer, and all pods", || {
        answers(&cast.client, cast.far_vip.at(false, 80))?;
        let rows: Vec<PodRow> = world.agent(1, "pods")?;
        ensure!(rows.iter().filter(|row| row.in_mesh).count() >= 4, "{rows:?}");
        let view: ConfigView = world.agent(1, "config")?;
        ensure!(view.control_plane.context("an agent")?.connected, "not connected");
        anyhow::Ok(())
    })?;
    let log = world.mesh().server.process().output();
    ensure!(log.contains("holds no file any more"), "the server says nothing of it");
    fs::remove_dir(&root)?;
    fs::rename(&away, &root)?;
    answers(&cast.other, cast.near_vip.at(false, 80))
}

fn state_lost(world: &mut World, cast: &Cast) -> Result<()> {
    world.mesh().server.kill9()?;
    let state = state(world);
    fs::remove_dir_all(state.join("ca"))?;
    // The nodes' copy of it is the file itself here, so they get the new one when it is written.
    fs::remove_file(state.join("root-cert.pem"))?;
    fs::remove_file(state.join("captured.json"))?;
    world.mesh().server.restart()?;
    world.mesh().server.wait_ready()?;
    let new = Authority::of_server(&state)?;
    wait::eventually(FOUND, "everybody trusts the new root", || {
        opened(world, cast, &new.issue("spiffe://cluster.local/ns/shop/sa/client")?, true)?;
        answers(&cast.client, cast.far_vip.at(false, 80))?;
        answers(&cast.other, cast.near_vip.at(true, 80))
    })?;
    world.wait_in_mesh(&["client", "near", "far", "other"], true)
}
