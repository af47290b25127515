//! Who comes to port 15008 without the right to: nothing of it reaches an application, and the agent serves on.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_model::view::ConfigView;
use weft_testkit::agents::Extra;
use weft_testkit::enter_or_skip;
use weft_testkit::stranger::{Answer, Authority, Credentials, ask_tunnel};
use weft_testkit::traffic::connect;
use weft_testkit::wait;

use crate::ask::{answers, at};
use crate::checks::Checks;
use crate::world::{Cast, ECHO, HBONE, SOON, World};

const FAR: &str = "spiffe://cluster.local/ns/shop/sa/far";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
/// A peer that says nothing sensible is cut within this; the agent itself waits 10 s for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn strangers_at_the_tunnel_port_get_nowhere() {
    enter_or_skip!();
    let asked = format!("--sandbox {}", if kernel_has_landlock() { "required" } else { "best-effort" });
    let (mut world, cast) = World::enrolled(&Extra::words("", "", &asked)).unwrap();
    let authority = Authority::of_server(&world.cluster.lab().directory().join("weft/server")).unwrap();
    let mut checks = Checks::default();
    checks.check("control: the right certificate opens a tunnel", || {
        let answer = ask(&cast, &authority.issue(CLIENT)?, cast_target(&cast))?;
        ensure!(answer == Answer::Opened, "{answer:?}");
        // Counted by the server's own thread, which may be late.
        wait::until(SOON, "the application's count", || cast.far_apps.at(ECHO).accepted() > 0)
    });
    let before = cast.far_apps.at(ECHO).accepted();
    checks.check("garbage is cut", || raw(&cast, &[0x16, 0x03, 0x01, 0xff, 0xff, 1, 2, 3, 4, 5]));
    checks.check("random bytes are cut", || raw(&cast, &std::array::from_fn::<u8, 512, _>(|at| (at * 89 % 251) as u8)));
    checks.check("plain HTTP is cut", || {
        raw(&cast, format!("CONNECT {} HTTP/1.1\r\nHost: far\r\n\r\n", cast_target(&cast)).as_bytes())
    });
    checks.check("plaintext HTTP/2 is cut", || raw(&cast, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
    checks.check("a certificate of a foreign root is refused", || {
        refused(&cast, &Authority::foreign("cluster.local")?.issue(CLIENT)?)
    });
    checks.check("a certificate of another trust domain is refused, even from our own root", || {
        refused(&cast, &authority.issue("spiffe://elsewhere.example/ns/shop/sa/client")?)
    });
    checks.check("an expired certificate is refused", || refused(&cast, &authority.issue_expired(CLIENT)?));
    checks.check("an authority that is not this pod's is refused", || {
        for target in [at(&cast.near, false, ECHO), at(&cast.hermit, false, ECHO), "127.0.0.1:8080".parse()?] {
            let answer = ask(&cast, &authority.issue(CLIENT)?, target)?;
            ensure!(answer == Answer::Refused, "{target}: {answer:?}");
        }
        wait::eventually(SOON, "the refusal", || {
            ensure!(!world.refusals(2, "wrong-destination")?.is_empty(), "no refusal is known");
            anyhow::Ok(())
        })
    });
    checks.check("a port of the mesh itself is refused", || {
        for port in [15001, 15006, HBONE] {
            let answer = ask(&cast, &authority.issue(CLIENT)?, at(&cast.far, false, port))?;
            ensure!(answer == Answer::Refused, "{port}: {answer:?}");
        }
        Ok(())
    });
    checks.check("an identity that no policy allows is refused", || {
        let far = "  targetRefs: [{group: \"\", kind: Pod, selector: {matchLabels: {app: far}}}]";
        world.apply_policy(
            "only-client",
            &format!("{far}\n  rules: [{{from: [{{serviceAccounts: [shop/client]}}]}}]"),
        )?;
        let answer = ask(&cast, &authority.issue("spiffe://cluster.local/ns/shop/sa/other")?, cast_target(&cast))?;
        ensure!(answer == Answer::Refused, "{answer:?}");
        let known = wait::eventually(SOON, "the refusal", || {
            let rows = world.refusals(2, "policy-not-allowed")?;
            rows.into_iter().next().context("not known yet")
        })?;
        ensure!(known.source_identity.as_deref() == Some("spiffe://cluster.local/ns/shop/sa/other"), "{known:?}");
        Ok(())
    });
    checks.check("nothing of all this reached the application", || {
        let arrived = cast.far_apps.at(ECHO).accepted() - before;
        ensure!(arrived == 0, "{arrived} connections");
        Ok(())
    });
    checks.check("many who connect and say nothing do not keep others out", || {
        // Beyond 64 of one address without a handshake they are shed (`peer-handshake-limit`): a reset, perhaps while it connects.
        let silent: Vec<_> =
            (0..200).filter_map(|_| connect(&cast.hermit.netns, at(&cast.far, false, HBONE), PATIENCE).ok()).collect();
        ensure!(silent.len() >= 64, "only {} connections stood", silent.len());
        answers(&cast.client, cast.far_vip.at(false, 80))?;
        drop(silent);
        Ok(())
    });
    let proxies: Vec<u32> = world.mesh().agents.iter().map(|agent| agent.proxy.process().pid()).collect();
    checks.check("the proxy halves stand behind their walls, and say so", || {
        [1, 2].into_iter().zip(proxies).try_for_each(|(node, pid)| is_walled_off(&world, node, pid))
    });
    checks.check("the agent serves on", || {
        answers(&cast.client, cast.far_vip.at(true, 80))?;
        let failed = world.metric(2, "weft_refusals_total", &[r#"reason="policy-not-allowed""#])?;
        ensure!(failed >= 1.0, "{failed}");
        Ok(())
    });
    checks.end(&world);
}

/// Every thread of the proxy half, and what its page says.
fn is_walled_off(world: &World, node: u8, pid: u32) -> Result<()> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            ensure!(status.contains(line), "no {line:?} in\n{status}");
        }
    }
    let view: ConfigView = world.agent(node, "config")?;
    let said = view.settings.get("sandbox").context("the page says nothing of it")?;
    let (files, calls) = said.split_once("; calls: ").context("two walls")?;
    ensure!(calls.contains("seccomp") && !calls.contains("NO"), "{said}");
    if files.contains("no Landlock in force") && !kernel_has_landlock() {
        // The one wall that a kernel may lack, and only such a kernel: its absence is said, and the other one was checked.
        let line = format!("SKIPPED: the wall around files of node {node}: {said}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        return Ok(());
    }
    ensure!(files.contains("Landlock") && !files.contains("NO"), "{said}");
    Ok(())
}

/// What the kernel says of its security modules, where it says anything (securityfs is mounted).
fn kernel_has_landlock() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|modules| modules.contains("landlock"))
}

fn cast_target(cast: &Cast) -> SocketAddr {
    at(&cast.far, false, ECHO)
}

fn ask(cast: &Cast, credentials: &Credentials, target: SocketAddr) -> Result<Answer> {
    ask_tunnel(&cast.hermit.netns, at(&cast.far, false, HBONE), credentials, FAR, target)
}

/// TLS ends before any answer.
fn refused(cast: &Cast, credentials: &Credentials) -> Result<()> {
    let answer = ask(cast, credentials, cast_target(cast))?;
    ensure!(matches!(answer, Answer::Ended(_)), "{answer:?}");
    Ok(())
}

/// Sends bytes to the tunnel port: an end must come, and not one byte of an application.
fn raw(cast: &Cast, bytes: &[u8]) -> Result<()> {
    let mut stream = connect(&cast.hermit.netns, at(&cast.far, false, HBONE), PATIENCE)?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    // An alert may come before the end; the end may be a reset.
    let ended = stream.read_to_end(&mut answer);
    let hung = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    ensure!(!hung && answer.len() < 100, "hung: {hung}, answered {} bytes", answer.len());
    Ok(())
}
