//! `weft pods`, `services`, `policies`, `connections`, `certs` and `config` against running programs: tables for people,
//! JSON for scripts, exit codes; and what `weft config` says of broken files.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use weft_model::view::{CertificateRow, ConfigView, ConnectionRow, PodRow, PolicyRow, ServiceRow};
use weft_testkit::agents::{AGENT_ADMIN, Extra, SERVER_ADMIN, binary};
use weft_testkit::enter_or_skip;
use weft_testkit::wait;

use crate::ask::{answers, at, open, refused, talk};
use crate::checks::Checks;
use crate::world::{ECHO, SOON, World};

const NEAR: &str = "  targetRefs: [{group: \"\", kind: Pod, selector: {matchLabels: {app: near}}}]";

/// Who is asked.
#[derive(Clone, Copy)]
enum Of {
    Agent(u8),
    Server,
}

fn weft(world: &World, of: Of, words: &[&str]) -> Result<Output> {
    let lab = world.cluster.lab();
    let mut command = match of {
        Of::Agent(node) => lab.node(node).command(binary("weft")?),
        Of::Server => lab.control().command(binary("weft")?),
    };
    let port = if matches!(of, Of::Server) { SERVER_ADMIN } else { AGENT_ADMIN };
    // Not the cluster of whoever runs the tests.
    Ok(command.args(words).env("WEFT_ADMIN", format!("127.0.0.1:{port}")).output()?)
}

/// Exit code 0, and each of `parts` in one line of the table.
fn table(world: &World, of: Of, words: &[&str], parts: &[&str]) -> Result<()> {
    let output = weft(world, of, words)?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{words:?}: {} {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let found = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    ensure!(found, "{words:?} has no line with {parts:?}:\n{text}");
    Ok(())
}

/// Exit code 0, and the rows.
fn json<T: serde::de::DeserializeOwned>(world: &World, of: Of, words: &[&str]) -> Result<T> {
    let output = weft(world, of, &[words, &["-o", "json"]].concat())?;
    ensure!(output.status.success(), "{words:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_command_shows_what_runs() {
    enter_or_skip!();
    let (world, cast) = World::enrolled(&Extra::default()).unwrap();
    let identity = "cluster.local/ns/shop/sa/client";
    world
        .apply_policy("only-client", &format!("{NEAR}\n  rules: [{{from: [{{serviceAccounts: [shop/client]}}]}}]"))
        .unwrap();
    let live = open(&cast.client, cast.far_vip.at(false, 80)).unwrap();
    talk(&live).unwrap();
    refused(&cast.stranger, at(&cast.near, false, ECHO)).unwrap();
    let mut checks = Checks::default();
    checks.check("weft pods, of an agent and of the server", || {
        for of in [Of::Agent(1), Of::Agent(2), Of::Server] {
            table(&world, of, &["pods"], &["shop", "client", "node1", "encrypted", "10.244.1.2", identity])?;
            table(&world, of, &["pods", "-n", "outside"], &["stranger", "node1", " - "])?;
            let rows: Vec<PodRow> = json(&world, of, &["pods"])?;
            ensure!(rows.iter().filter(|row| row.in_mesh).count() == 4, "{rows:?}");
        }
        let rows: Vec<PodRow> = json(&world, Of::Agent(1), &["pods", "-n", "shop"])?;
        let near = rows.iter().find(|row| row.name == "near").context("no near")?;
        ensure!(
            near.captured_here == Some(true) && near.policies.iter().any(|name| name.contains("only-client")),
            "{near:?}"
        );
        Ok(())
    });
    checks.check("weft services", || {
        for of in [Of::Agent(1), Of::Server] {
            table(&world, of, &["services"], &["shop", "far", "80->8080"])?;
            let rows: Vec<ServiceRow> = json(&world, of, &["services"])?;
            let far = rows.iter().find(|row| row.name == "far").context("no far")?;
            ensure!(far.addresses.len() == 2 && far.endpoints.len() == 1, "{far:?}");
            ensure!(far.endpoints[0].in_mesh && far.endpoints[0].healthy, "{far:?}");
        }
        Ok(())
    });
    checks.check("weft policies", || {
        for of in [Of::Agent(1), Of::Server] {
            table(&world, of, &["policies"], &["only-client", "Allow", "Enforce", "shop/client"])?;
            let rows: Vec<PolicyRow> = json(&world, of, &["policies"])?;
            ensure!(rows.iter().any(|row| row.name == "only-client" && row.workloads == 1), "{rows:?}");
        }
        Ok(())
    });
    checks.check("weft connections, live and denied", || {
        table(&world, Of::Agent(1), &["connections"], &["outbound", "shop/client", "shop/far", "mtls"])?;
        table(&world, Of::Agent(2), &["connections"], &["inbound", "shop/client", "mtls", identity])?;
        table(
            &world,
            Of::Agent(1),
            &["connections", "--denied"],
            &["outside/stranger", "policy-not-allowed", "shop/only-client"],
        )?;
        let rows: Vec<ConnectionRow> = json(&world, Of::Agent(1), &["connections"])?;
        ensure!(rows.iter().any(|row| row.service.as_deref() == Some("far.shop.svc.cluster.local")), "{rows:?}");
        talk(&live)
    });
    checks.check("weft certs", || {
        table(&world, Of::Agent(1), &["certs"], &[identity, "valid"])?;
        let rows: Vec<CertificateRow> = json(&world, Of::Agent(1), &["certs"])?;
        ensure!(rows.len() == 2 && rows.iter().all(|row| row.state == "valid" && row.serial.len() >= 16), "{rows:?}");
        // 2: the command could not do its work; 1 is left to findings.
        ensure!(weft(&world, Of::Server, &["certs"])?.status.code() == Some(2), "the server has no certs to show");
        Ok(())
    });
    checks.check("weft config: exit code 0 when everything is in force", || {
        table(&world, Of::Agent(1), &["config"], &["weft-node-agent", "node1"])?;
        table(&world, Of::Server, &["config"], &["node2", "weft-node-agent", "yes"])?;
        let view: ConfigView = json(&world, Of::Agent(2), &["config"])?;
        ensure!(view.control_plane.is_some_and(|plane| plane.connected), "not connected");
        let view: ConfigView = json(&world, Of::Server, &["config"])?;
        ensure!(view.subscribers.len() == 2 && view.subscribers.iter().all(|row| row.in_sync), "{view:?}");
        Ok(())
    });
    checks.check("nobody there: exit code 2 and what to try", || {
        let output = weft(&world, Of::Agent(1), &["pods", "--admin", "127.0.0.1:1"])?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && words.contains("--admin"), "{words}");
        Ok(())
    });
    checks.end(&world);
}

#[test]
fn broken_files_reject_only_themselves() {
    enter_or_skip!();
    let (world, cast) = World::enrolled(&Extra::default()).unwrap();
    let mut checks = Checks::default();
    let directory = world.cluster.directory();
    world
        .apply_policy(
            "keep",
            &format!("{NEAR}\n  action: Deny\n  rules: [{{from: [{{serviceAccounts: [shop/other]}}]}}]"),
        )
        .unwrap();
    checks.check(
        "a broken version: the last good one stays in force, weft config says file and field, exit code 1",
        || {
            world.write_policy("keep", &format!("{NEAR}\n  action: Perhaps\n  rules: []"))?;
            found(&world, "policy-keep.yaml", "action")?;
            world.wait_policy("keep", true)?;
            refused(&cast.other, at(&cast.near, false, ECHO))?;
            answers(&cast.client, at(&cast.near, false, ECHO))
        },
    );
    checks.check("not even YAML, next to good documents of the same file", || {
        let good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: good}\n---\n";
        directory.apply_yaml("mixed", &format!("{good}kind: [Pod\n  nonsense: {{{{\n"))?;
        found(&world, "mixed.yaml", "")
    });
    checks.check("an unknown field of a known kind, and a foreign kind", || {
        directory.apply_yaml(
            "typo",
            "apiVersion: v1\nkind: Service\nmetadata: {name: typo, namespace: shop}\nspec: {portz: []}\n",
        )?;
        directory
            .apply_yaml("foreign", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n")?;
        found(&world, "typo.yaml", "portz")
    });
    checks.check("everything else is in force, changes are still taken in", || {
        world.apply_policy("new", &format!("{NEAR}\n  action: Deny\n  rules: [{{to: [{{ports: [8081]}}]}}]"))?;
        refused(&cast.client, at(&cast.near, false, 8081))?;
        answers(&cast.client, cast.far_vip.at(false, 80))
    });
    checks.check("repaired: nothing is found any more, exit code 0", || {
        world.write_policy(
            "keep",
            &format!("{NEAR}\n  action: Deny\n  rules: [{{from: [{{serviceAccounts: [shop/client]}}]}}]"),
        )?;
        for name in ["mixed", "typo", "foreign"] {
            directory.delete(name)?;
        }
        wait::eventually(SOON, "a clean weft config", || {
            let output = weft(&world, Of::Server, &["config"])?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            anyhow::Ok(())
        })?;
        wait::eventually(SOON, "the repaired policy", || refused(&cast.client, at(&cast.near, false, ECHO)))?;
        wait::eventually(SOON, "the repaired policy", || answers(&cast.other, at(&cast.near, false, ECHO)))
    });
    checks.end(&world);
}

/// `weft config` of the server ends with 1 and names file and field.
fn found(world: &World, file: &str, field: &str) -> Result<()> {
    wait::eventually(SOON, &format!("a finding about {field} in {file}"), || {
        let output = weft(world, Of::Server, &["config"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        let named = text.lines().any(|line| line.contains(file) && line.contains(field));
        ensure!(output.status.code() == Some(1) && named, "{} {text}", output.status);
        anyhow::Ok(())
    })
}
