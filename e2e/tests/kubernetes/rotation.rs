//! The root of the mesh is replaced, while it carries calls: by `weft certs rotate`, and by whoever writes the Secret as cert-manager does.
//! Certificates live for half a minute here, so that a rotation takes two.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_testkit::agents::binary;
use weft_testkit::{stranger, wait};

use crate::stage::{DEADLINE, Load, Stage, Stream, rolled_out, run};
use crate::{alone, shop};

/// Two overlaps of a life and a quarter, and four times until every replica has looked at the Secret and said so; twice that.
const ROTATION: Duration = Duration::from_secs(240);
const SECRET: [&str; 4] = ["-n", "weft-system", "secret", "weft-ca"];

/// The control plane with certificates of a short life, as long as this lives.
struct ShortLife;

impl ShortLife {
    fn begin() -> Result<Self> {
        let life =
            r#"[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--certificate-life=30s"}]"#;
        let patch = ["-n", "weft-system", "patch", "deployment", "weft-xds-server", "--type=json", "-p", life];
        run(&patch, "")?;
        let short = Self;
        rolled_out("weft-system", "deployment/weft-xds-server")?;
        Ok(short)
    }
}

/// Other tests need certificates of the usual life, a root that `weft certs rotate` rotates, and a replica that leads.
impl Drop for ShortLife {
    fn drop(&mut self) {
        let _ours = patch(r#"{"data": {"tls.crt": null, "tls.key": null, "ca.crt": null}}"#);
        let _undone = run(&["-n", "weft-system", "rollout", "undo", "deployment/weft-xds-server"], "");
        let _there = rolled_out("weft-system", "deployment/weft-xds-server");
        let _leads = wait::eventually(DEADLINE, "a replica that leads, and stays", leads);
    }
}

/// Whether the replica that leads has not been told to end.
fn leads() -> Result<()> {
    let holder = "jsonpath={.spec.holderIdentity}";
    let holder = run(&["-n", "weft-system", "get", "lease", "weft-xds-server", "-o", holder], "")?;
    let pods = "jsonpath={range .items[*]}{.metadata.name},{.metadata.deletionTimestamp}\n{end}";
    let pods = run(&["-n", "weft-system", "get", "pods", "-l", "app=weft-xds-server", "-o", pods], "")?;
    let mut staying = pods.lines().filter_map(|pod| pod.strip_suffix(','));
    ensure!(staying.any(|pod| holder.starts_with(&format!("{pod}_"))), "'{holder}', pods {pods}");
    Ok(())
}

fn patch(text: &str) -> Result<()> {
    let [n, namespace, kind, name] = SECRET;
    run(&[n, namespace, "patch", kind, name, "--type=merge", "-p", text], "").map(drop)
}

/// A part of the Secret, as it stands there.
fn of_secret(path: &str) -> Result<String> {
    let [n, namespace, kind, name] = SECRET;
    run(&[n, namespace, "get", kind, name, "-o", &format!("jsonpath={path}")], "")
}

/// The roots that agents begin with, PEM.
fn roots() -> Result<String> {
    let path = "jsonpath={.data.root-cert\\.pem}";
    run(&["-n", "weft-system", "get", "configmap", "weft-root-cert", "-o", path], "")
}

/// `weft certs rotate`: whether it succeeds, and its words.
fn rotate() -> Result<(bool, String)> {
    let output = Command::new(binary("weft")?).args(["certs", "rotate"]).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
}

/// Until a rotation is over that was not at `before`: the root that is left.
fn over(before: &str, load: &Load<'_>) -> Result<String> {
    let old = roots()?;
    wait::eventually(ROTATION, "the end of the rotation", || {
        let step = of_secret("{.metadata.annotations}")?;
        ensure!(of_secret("{.metadata.annotations.weft\\.dev/rotated}")? != before, "{step}");
        let new = roots()?;
        ensure!(new.matches("BEGIN").count() == 1 && new != old, "{} roots", new.matches("BEGIN").count());
        ensure!(of_secret("{.data.old\\.pem}{.data.next\\.pem}")?.is_empty(), "an old root in the Secret");
        Ok(())
    })?;
    load.more(50)?;
    roots()
}

/// Whether the control plane's certificate is of these roots.
fn is_served(stage: &Stage, roots: &str) -> Result<bool> {
    let url = "https://weft-xds-server.weft-system.svc:15012/";
    let script = format!(
        "cat > /tmp/roots.pem <<'END'\n{roots}END\ncurl -s -m 10 -o /dev/null --cacert /tmp/roots.pem {url}; echo $?"
    );
    // 60: not of this root (curl's exit codes).
    Ok(stage.exec("client", &["sh", "-c", &script])?.trim() != "60")
}

#[test]
#[ignore = "needs a Kubernetes cluster: make e2e"]
fn the_root_is_rotated_and_then_cert_managers_and_no_call_fails_and_no_stream_ends() -> Result<()> {
    let _alone = alone();
    let _short = ShortLife::begin()?;
    let stage = shop("rotation")?;
    stage.enroll()?;
    stage.label("weft.dev/mtls=strict")?;
    let (first, before) = (roots()?, of_secret("{.metadata.annotations.weft\\.dev/rotated}")?);
    let (load, stream) = (Load::start(&stage, "http://web/")?, Stream::start(&stage)?);

    let (asked, words) = rotate()?;
    ensure!(asked && words.contains("asked for"), "{words}");
    wait::eventually(DEADLINE, "step 1 to be counted", || {
        let (again, words) = rotate()?;
        ensure!(again && words.contains("Step 1 of 2 since") && words.contains("Step 2 begins at"), "{words}");
        Ok(())
    })?;
    let second = over(&before, &load)?;
    ensure!(is_served(&stage, &second)? && !is_served(&stage, &first)?, "the new root alone is used");

    let before = of_secret("{.metadata.annotations.weft\\.dev/rotated}")?;
    let (certificate, key) = stranger::root("cluster.local")?;
    let given = serde_json::json!({ "tls.crt": certificate, "tls.key": key, "ca.crt": certificate });
    patch(&serde_json::json!({ "stringData": given }).to_string())?;
    let third = over(&before, &load)?;
    ensure!(third.trim() == certificate.trim(), "the root of tls.crt: {third}");
    ensure!(is_served(&stage, &third)? && !is_served(&stage, &second)?, "the new root alone is used");
    let (asked, words) = rotate()?;
    ensure!(!asked && words.contains("whoever writes it rotates it"), "{words}");

    load.end()?;
    let lasted = stream.end().context("the stream")?;
    ensure!(lasted > 100, "it went on all the time: {lasted}");
    Ok(())
}
